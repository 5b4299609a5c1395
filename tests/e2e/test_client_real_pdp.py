"""The SDK and the command line against the real `pdp serve`, in processes of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pdp
from pdp.demo.child import Child
from pdp.errors import Reason
from pdp.sdk import AccessDenied, Client, NotPermitted
from pdp.sdk.admin import AdminClient, LockTarget

SHIPPED = Path(pdp.__file__).parent.parent / "policies"
READY = r"ready grpc=(?P<grpc>\S+) probes=(?P<probes>\S+) world_seq=\d+"
ADA, BOB = "user:ada@demo.portcullis", "user:bob@example.com"
PDP = (sys.executable, "-m", "pdp")


def environment(**more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PDP_")}
    return ours | {"NO_COLOR": "1", "PYTHONPATH": str(SHIPPED.parent)} | more


def command(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    words = [*PDP, *map(str, arguments)]
    return subprocess.run(words, env=environment(**settings), capture_output=True, text=True, check=False, timeout=60)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A running PDP with its state directory, and a token for each of two people."""

    directory: Path
    server: str
    probes: str

    def token(self, who: str) -> Path:
        return self.directory / f"{who}.token"

    def run(self, who: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return command(*arguments, PDP_SERVER=self.server, PDP_TOKEN_FILE=str(self.token(who)))

    def json(self, who: str, *arguments: object) -> Any:
        ended = self.run(who, *arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("stage")
    issuer = directory / "issuer"
    assert command("token", "init", "--dir", issuer).returncode == 0
    for who, subject in (("ada", ADA), ("bob", BOB)):
        issued = command("token", "issue", "--dir", issuer, "--sub", subject.removeprefix("user:"), "--ttl", "10m")
        (directory / f"{who}.token").write_text(issued.stdout)
    serve = [*PDP, "serve", "--mode", "development", "--init", "--admin", ADA, "--pack", str(SHIPPED)]
    serve += ["--state-dir", str(directory / "state"), "--trust", str(issuer / "trust.yaml")]
    serve += ["--listen", "127.0.0.1:0", "--probes", "127.0.0.1:0"]
    child = Child.start("pdp", serve, log=directory / "pdp.log", environment=environment())
    try:
        ready = child.wait_for(READY)
        yield Stage(directory=directory, server=ready["grpc"], probes=f"http://{ready['probes']}")
    finally:
        child.stop()


@pytest.fixture
def ada(stage: Stage) -> Iterator[Client]:
    with Client(stage.server, token=stage.token("ada")) as client:
        yield client


@pytest.fixture
def admin(stage: Stage) -> Iterator[AdminClient]:
    with AdminClient(stage.server, token=stage.token("ada")) as client:
        yield client


@pytest.fixture
def member(stage: Stage, tmp_path: Path) -> Stage:
    """Let bob ask, by applying a pack that says so."""
    pack = tmp_path / "pack"
    pack.mkdir()
    for path in SHIPPED.rglob("*"):
        if path.is_file():
            (pack / path.relative_to(SHIPPED)).parent.mkdir(parents=True, exist_ok=True)
            (pack / path.relative_to(SHIPPED)).write_bytes(path.read_bytes())
    rows = f"g, {BOB}, role:member, prod\ng, {ADA}, role:policy-admin, prod\n"
    (pack / "extra.csv").write_text(rows)
    assert stage.json("ada", "policy", "apply", pack, "-m", "bob joins")["world_seq"] > 0
    return stage


def test_check_and_explain(stage: Stage) -> None:
    assert stage.json("ada", "check", "decision.ask", "decision/main")["effect"] == "allow"
    ended = stage.run("ada", "explain", "dataset.read", "dataset/nowhere", "--json")
    assert ended.returncode == 3
    assert json.loads(ended.stdout)["reason"] == "asset_unregistered"


def test_a_stranger_may_not_ask(stage: Stage) -> None:
    ended = stage.run("bob", "policy", "show")
    assert ended.returncode == 3
    assert ended.stderr.count("\n") == 1


def test_without_a_credential_nothing_is_answered(stage: Stage) -> None:
    ended = command("check", "decision.ask", "decision/main", PDP_SERVER=stage.server)
    assert ended.returncode == 4
    assert "credential_missing" in ended.stderr


def test_an_expired_token_is_exit_code_4(stage: Stage, tmp_path: Path) -> None:
    issued = command("token", "issue", "--dir", stage.directory / "issuer", "--sub", "ada@demo.portcullis", "--ttl=-5m")
    (tmp_path / "old.token").write_text(issued.stdout)
    ended = stage.run("ada", "check", "decision.ask", "decision/main", "--token-file", tmp_path / "old.token")
    assert ended.returncode == 4
    assert "token_expired" in ended.stderr


def test_a_pack_is_applied_or_refused_whole(member: Stage, tmp_path: Path) -> None:
    assert member.json("bob", "check", "decision.ask", "decision/main")["determining"]
    broken = tmp_path / "pack" / "broken.csv"
    broken.write_text("p, nonsense\n")
    before = member.json("ada", "policy", "show")["world_seq"]
    ended = member.run("ada", "policy", "apply", tmp_path / "pack")
    assert ended.returncode == 2
    assert ended.stderr.startswith("broken.csv:1:")
    assert member.json("ada", "policy", "show")["world_seq"] == before


def test_an_asset_is_registered_and_listed(stage: Stage) -> None:
    options = ("--environment", "dev", "--segment", "segment:serving", "--set", "owner=ml")
    registered = stage.json("ada", "asset", "register", "model/e2e@7", *options)
    listed = {asset["name"]: asset["attributes"] for asset in stage.json("ada", "asset", "list", "model/**")}
    assert registered["world_seq"] > 0
    assert listed["model/e2e@7"] == {"environment": "dev", "owner": "ml", "segment": "segment:serving"}


def test_a_lock_cuts_a_watch_and_ends_with_its_removal(member: Stage, ada: Client, admin: AdminClient) -> None:
    watch = ada.watch("decision.ask", "decision/main")
    assert next(watch).allowed
    with Client(member.server, token=member.token("bob")) as bob:
        watched = bob.watch("decision.ask", "decision/main")
        assert next(watched).allowed
        locked = admin.lock(LockTarget.parse(BOB), reason="laptop stolen", wait_all=True)
        with pytest.raises(NotPermitted) as cut:
            list(watched)
        assert cut.value.reason in {Reason.LOCKED, Reason.NO_GRANT}
        with pytest.raises(NotPermitted):
            bob.check("decision.ask", "decision/main")
        admin.unlock(locked.lock.id)
        assert bob.check("decision.ask", "decision/main").allowed
    assert ada.check("decision.ask", "decision/main").world_seq >= locked.receipt.world_seq


def test_a_watch_tells_that_the_resource_was_locked(ada: Client, admin: AdminClient) -> None:
    admin.register("dataset/e2e/watched", {"environment": "dev"})
    with pytest.raises(AccessDenied) as denied:
        ada.require("dataset.read", "dataset/e2e/watched")
    assert denied.value.decision_id
    watch = ada.watch("dataset.read", "dataset/e2e/watched")
    assert next(watch).reason is denied.value.reason
    locked = admin.lock(LockTarget.parse("resource:dataset/e2e/**"), reason="leak")
    assert next(watch).reason is Reason.LOCKED
    admin.unlock(locked.lock.id)
    assert next(watch).reason is denied.value.reason


def test_the_decision_log_is_read_and_verified(stage: Stage) -> None:
    ended = stage.run("ada", "audit", "tail", "-n", "3", "--json")
    assert [json.loads(line)["kind"] for line in ended.stdout.splitlines()]
    verified = command("audit", "verify", stage.directory / "state" / "audit", "--json")
    assert verified.returncode == 0
    assert json.loads(verified.stdout)["chains"][0]["records"] > 3


def test_the_doctor_finds_nothing_but_the_weakened_settings(stage: Stage) -> None:
    found = stage.json("ada", "doctor", "--probes", stage.probes)
    states = {entry["check"]: entry["state"] for entry in found}
    assert states.pop("weakened") == "warning"
    assert set(states.values()) == {"ok"}
