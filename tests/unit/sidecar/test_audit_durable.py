"""Whether an allow waits for its record: it does, unless whoever runs the sidecar says otherwise at any of its doors."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from pdp.adapters.audit_file import AuditChain
from pdp.adapters.clock import SystemClock
from pdp.audit.chain import Link
from sidecar import cli
from sidecar.asgi_door import load
from sidecar.config import CoreConfig, PdpAccess
from sidecar.core import Core
from sidecar.routes import RouteTable

DIGEST = "0" * 64
PATIENCE_S = 10.0


def core(directory: Path, *, durable: bool) -> Core:
    config = CoreConfig(
        table=RouteTable(rows=(), served={}),
        pdp=PdpAccess(address="unused:1", root_digest=DIGEST),
        trust=directory,
        state_dir=directory,
        audit_durable=durable,
    )
    source: Any = SimpleNamespace()  # it follows nothing here
    return Core(config, source=source, sink=None, clock=SystemClock())


@pytest.mark.parametrize("durable", [True, False])
def test_while_the_disk_is_busy_an_allow_leaves_only_where_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, durable: bool
) -> None:
    free, append = threading.Event(), AuditChain.append

    def slow(chain: AuditChain, records: Sequence[Mapping[str, Any]]) -> Link:
        free.wait(PATIENCE_S)
        return append(chain, records)

    async def go() -> None:
        one = core(tmp_path, durable=durable)
        trust: Any = SimpleNamespace(generation="g")
        trail = one._open_audit(trust)
        monkeypatch.setattr(AuditChain, "append", slow)
        answered = asyncio.create_task(trail.record([{"kind": "decision"}], durable=True))
        if not durable:
            await asyncio.wait_for(answered, PATIENCE_S)
        assert (trail.written, answered.done()) == (0, not durable)
        free.set()
        await asyncio.wait_for(answered, PATIENCE_S)
        await one.stop()
        assert trail.written == 1  # the record is the same in both

    asyncio.run(go())


def test_every_door_waits_unless_it_is_told_not_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("routes.yaml", "cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).write_text("served: {}\n")
    seen: list[bool] = []
    monkeypatch.setattr(cli, "_serve", lambda config: seen.append(config.audit_durable))
    monkeypatch.setattr(cli, "_serve_foreign", lambda config, _port, _probes: seen.append(config.audit_durable))
    monkeypatch.chdir(tmp_path)
    common = ["--routes=routes.yaml", "--pdp=localhost:1", f"--root-digest={DIGEST}", "--trust=t", "--pdp-ca=ca.pem"]
    common += ["--cert=cert.pem", "--key=key.pem"]
    for command in (["run", "--upstream=http://127.0.0.1:1", *common], ["serve", *common]):
        for more in ([], ["--no-audit-durable"]):
            result = CliRunner().invoke(cli.app, [*command, *more])
            assert result.exit_code == 0, result.output
    assert seen == [True, False, True, False]


@pytest.mark.parametrize(("more", "durable"), [("", True), ("audit: {durable: false}\n", False)])
def test_the_middlewares_file_says_it_too(tmp_path: Path, more: str, *, durable: bool) -> None:
    (tmp_path / "routes.yaml").write_text("served: {}\n")
    file = tmp_path / "sidecar.yaml"
    file.write_text(
        f"pdp: {{address: 'localhost:1', root_digest: '{DIGEST}', ca: ca.pem, token_file: token}}\n"
        f"trust: trust.yaml\nroutes: routes.yaml\nstate_dir: state\n{more}"
    )
    assert load(file)[0].audit_durable is durable
