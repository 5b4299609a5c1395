"""`pdp-sidecar doctor` against the real gate: it passes on a closed one, and fails on an open door."""

import socket
from collections.abc import Callable
from typing import Any

from sidecar.doctor import Subject, _own_addresses, examine


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
