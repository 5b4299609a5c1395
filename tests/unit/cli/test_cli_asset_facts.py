"""What the logs say of assets: who registered what, and what was asked for that nobody registered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_pdp import ScriptedPdp

from pdp.v1 import asset_pb2, types_pb2
from tests.support.office import ADA, BOB, EVE, Office, in_office

Pdp = Callable[..., Any]


async def history(office: Office) -> None:
    for _ in range(3):
        await office.ask(BOB, "endpoint.invoke", "endpoint/my-own-llm")
    await office.ask(EVE, "dataset.read", "dataset/scraped")
    await office.ask(BOB, "dataset.read", "dataset/sales")
    await office.assets({"model/fraud@7": {"environment": "dev", "derived_from": ["dataset/people@3"]}})
    await office.publisher.publish("retire", {"names": ["model/fraud@7"], "reason": "drifted"}, author=ADA)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_office(tmp_path_factory.mktemp("office"), history)


def test_what_nobody_registered_is_counted_by_who_asked(pdp: Pdp, state: Path) -> None:
    told = pdp("asset", "shadow", "--state-dir", state, "--json").json
    assert [(one["resource"], one["subject"], one["times"]) for one in told] == [
        ("endpoint/my-own-llm", BOB, 3), ("dataset/scraped", EVE, 1),
    ]  # fmt: skip
    lines = pdp("asset", "shadow", "--state-dir", state).out.splitlines()
    assert lines[-1] == "2 unregistered resources were asked for 4 times"


def test_a_history_tells_each_change_and_where_it_comes_from(pdp: Pdp, state: Path) -> None:
    first, second, third = pdp("asset", "history", "model/fraud@7", "--state-dir", state, "--json").json
    assert (first["author"], first["derived_from"]) == ("genesis", [])
    assert (second["author"], second["derived_from"]) == (ADA, ["dataset/people@3"])
    assert third["retired"] == "drifted"
    told = pdp("asset", "history", "model/fraud@7", "--state-dir", state).out
    assert "dataset/people@3" in told
    assert "retired: drifted" in told


def test_an_asset_that_never_was_is_not_found(pdp: Pdp, state: Path) -> None:
    assert pdp("asset", "history", "model/none@1", "--state-dir", state).code == 7
    assert pdp("asset", "history", "no name", "--state-dir", state).code == 2


def test_a_file_of_assets_is_registered_at_once(pdp: Pdp, server: ScriptedPdp, tmp_path: Path) -> None:
    file = tmp_path / "assets.yaml"
    file.write_text(
        "model/fraud@7: {environment: prod, derived_from: [dataset/people@3]}\ndataset/people@3: {environment: prod}\n"
    )
    server.script("AssetService/Register", asset_pb2.RegisterResponse(world_seq=9))
    ended = pdp("asset", "import", file)
    assert (ended.code, ended.out) == (0, "2 assets are registered in world 9\n")
    ((_, request),) = server.calls
    assert [asset.name for asset in request.assets] == ["model/fraud@7", "dataset/people@3"]
    assert list(request.assets[0].attributes["derived_from"].list_value.items) == ["dataset/people@3"]


def test_an_asset_is_shown_with_all_that_is_said_of_it(pdp: Pdp, server: ScriptedPdp) -> None:
    said = {"environment": types_pb2.Value(string_value="prod"), "vendor": types_pb2.Value(string_value="acme")}
    server.script(
        "AssetService/Get", asset_pb2.GetAssetResponse(asset=asset_pb2.Asset(name="model/fraud@7", attributes=said))
    )
    assert pdp("asset", "show", "model/fraud@7", "--json").json == {
        "name": "model/fraud@7", "attributes": {"environment": "prod", "vendor": "acme"},
    }  # fmt: skip
    lines = [line.split() for line in pdp("asset", "show", "model/fraud@7").out.splitlines()]
    assert lines == [["model/fraud@7"], ["ATTRIBUTE", "VALUE"], ["environment", "prod"], ["vendor", "acme"]]


def test_assets_are_retired_with_a_reason(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("AssetService/Retire", asset_pb2.RetireResponse(world_seq=9))
    ended = pdp("asset", "retire", "model/fraud@6", "model/fraud@5", "--reason", "superseded")
    assert (ended.code, ended.out) == (0, "model/fraud@6, model/fraud@5 are retired in world 9\n")
    ((_, request),) = server.calls
    assert (list(request.names), request.reason) == (["model/fraud@6", "model/fraud@5"], "superseded")


@pytest.mark.parametrize(
    "text", ["- a\n", "model/fraud@7: prod\n", "model/fraud@7: {a: 1}\nmodel/fraud@7: {a: 2}\n", "{"]
)
def test_a_file_that_is_none_is_refused(pdp: Pdp, tmp_path: Path, text: str) -> None:
    (tmp_path / "assets.yaml").write_text(text)
    assert pdp("asset", "import", tmp_path / "assets.yaml").code == 2
