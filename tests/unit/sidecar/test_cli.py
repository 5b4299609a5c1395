import json
import sys
from pathlib import Path

import pytest
import yaml

from sidecar.cli import main


@pytest.fixture
def routes(tmp_path: Path) -> str:
    path = tmp_path / "routes.yaml"
    path.write_text("served: {fraud: {resource: endpoint/fraud-prod, model: model/fraud@12}}")
    return str(path)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pdp-sidecar", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_config_prints_what_envoy_would_be_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], routes: str
) -> None:
    assert call(monkeypatch, "config", "--upstream", "http://127.0.0.1:8080", "--routes", routes) == 0
    assert json.loads(capsys.readouterr().out)["static_resources"]["listeners"]


def test_config_for_an_envoy_of_yours_is_parts_or_a_whole_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], routes: str
) -> None:
    Path(routes).write_text(Path(routes).read_text() + "\nprotocols: [oip, oip-grpc]\n")
    assert call(monkeypatch, "config", "--envoy", "--routes", routes) == 0
    parts = yaml.safe_load(capsys.readouterr().out)
    assert set(parts) == {"http_connection_manager", "http_filters", "routes", "clusters"}
    model = ("--upstream", "http://127.0.0.1:8080", "--upstream-grpc", "http://127.0.0.1:8081")
    assert call(monkeypatch, "config", "--envoy", *model, "--routes", routes, "--listen", "127.0.0.1:10000") == 0
    whole = yaml.safe_load(capsys.readouterr().out)["static_resources"]
    (listener,), clusters = whole["listeners"], {one["name"]: one for one in whole["clusters"]}
    assert listener["address"]["socket_address"]["port_value"] == 10_000
    assert set(clusters) == {"model", "model_grpc", "portcullis"}
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager.items() >= parts["http_connection_manager"].items()
    assert [one["name"] for one in manager["http_filters"]][:2] == [one["name"] for one in parts["http_filters"]]
    told = {one["route"]["cluster"] for one in manager["route_config"]["virtual_hosts"][0]["routes"] if "route" in one}
    assert told == {"model", "model_grpc"}


RUN = ("run", "--upstream", "http://127.0.0.1:1", "--pdp", "127.0.0.1:8181", "--root-digest", "0" * 64)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no credential"),
        (("--cert", "{tmp}/none.pem", "--key", "{tmp}/none.key"), "--cert: cannot read"),
        (("--pdp-token-file", "{routes}"), "--pdp-ca is missing"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--listen", "9081"), "HOST:PORT"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--tls-cert", "{routes}"), "--tls-key"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--root-digest", "abc"), "--root-digest"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--upstream", "model"), "--upstream"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--routes", "{tmp}/none.yaml"), "--routes"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext"), "trust.yaml"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--state-dir", "{tmp}/" + "d" * 100), "shorter"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--state-dir", "/proc/none"), "--state-dir"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(  # noqa: PLR0917 - fixtures and one row
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    routes: str,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    given = [one.replace("{tmp}", str(tmp_path)).replace("{routes}", routes) for one in arguments]
    defaults = ["--routes", routes, "--trust", str(tmp_path / "trust.yaml"), "--state-dir", str(tmp_path / "s")]
    assert call(monkeypatch, *RUN, *defaults, "--probes", "127.0.0.1:0", *given) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("pdp-sidecar: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("config", "--upstream", "http://127.0.0.1:1", "--routes", "{bad}"), "nested too deeply"),
        (("doctor", "--ca", "{bad}"), "--ca, --cert, --key"),
        (("doctor", "--model-ports", "99999"), "--model-ports"),
    ],
)
def test_rubbish_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    bad = tmp_path / "bad"
    bad.write_text("served: " + "[" * 20_000)
    assert call(monkeypatch, *(one.replace("{bad}", str(bad)) for one in arguments)) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
