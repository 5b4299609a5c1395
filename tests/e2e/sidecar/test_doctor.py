"""`pdp-sidecar doctor` against the real gate: it passes on a closed one, and fails on an open door."""

import json
import socket
from collections.abc import Callable
from typing import Any

from sidecar.doctor import Subject, _own_addresses, examine
from sidecar.routes.assembly import assemble
from tests.e2e.sidecar.conftest import SERVED


def test_the_gate_passes_its_own_attacks(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        findings = await examine(Subject(gate=lab.address, probes=lab.address, served="fraud"))
        failed = {one.check for one in findings if not one.passed}
        assert failed == {"the sidecar is ready"}  # this laboratory has no probes
        assert len(findings) == 6

    in_lab(body)


def test_an_unguarded_model_port_is_found(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        addresses = _own_addresses()
        if not addresses:
            return
        with socket.create_server((addresses[0], 0)) as model:
            port = model.getsockname()[1]
            findings = await examine(Subject(gate=lab.address, probes=lab.address, model_ports=(port,)))
        assert [one.check for one in findings if "open" in one.seen] == [
            f"the model's port {port} refuses on {addresses[0]}"
        ]

    in_lab(body)


def test_a_route_of_the_server_without_a_row_is_named(in_lab: Callable[..., None]) -> None:
    described = {
        "paths": {
            "/v2/models/{model_name}/infer": {"post": {}},
            "/v2/repository/index": {"post": {}},
            "/v2/systemsharedmemory/status": {"get": {}},  # a deliberate deny is a row
            "/debug/{anything}": {"get": {}, "delete": {}},
        }
    }

    async def body(lab: Any) -> None:
        lab.model.reply, lab.model.reply_type = json.dumps(described).encode(), b"application/json"
        model = f"http://127.0.0.1:{lab.model_port}"
        subject = Subject(gate=lab.address, probes=lab.address, model=model, table=assemble(served=SERVED))
        found = (await examine(subject))[-1]
        assert (found.passed, found.seen) == (False, "DELETE /debug/{anything}, GET /debug/{anything}")
        lab.model.reply = json.dumps({"paths": dict(list(described["paths"].items())[:3])}).encode()
        assert (await examine(subject))[-1].seen == "all 3"
        lab.model.reply = b"<html>"
        assert not (await examine(subject))[-1].passed

    in_lab(body)
