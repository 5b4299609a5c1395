"""What `pdp-sidecar doctor` reads from the sidecar's own numbers."""

import asyncio

import pytest

from sidecar.doctor import Subject, _age, _durability, _proofs, _told, examine
from sidecar.envoy_names import Address
from sidecar.metrics import exposition
from sidecar.probes import Probes, bound_socket


async def served(metrics: dict[str, float]) -> dict[str, float]:
    async def ready() -> str:
        return ""

    listener = bound_socket(Address(host="127.0.0.1", port=0), option="--probes")
    probes = Probes(ready=ready, metrics=lambda: exposition(metrics))
    await probes.start(listener)
    try:
        return await _told(Address(host="127.0.0.1", port=listener.getsockname()[1]))
    finally:
        await probes.stop()


def test_the_age_of_the_world_and_the_memory_of_proofs_are_told() -> None:
    told = asyncio.run(served({"pdp_sidecar_staleness_seconds": 1.5, "pdp_sidecar_takes_proofs": 1}))
    assert (_age(told).passed, _age(told).seen) == (True, "1.5 s old")
    (finding,) = _proofs(told)
    assert "by this sidecar, restarts included" in finding.seen


def test_where_no_issuer_wants_proofs_nothing_is_said_of_them() -> None:
    assert list(_proofs({"pdp_sidecar_takes_proofs": 0})) == []


@pytest.mark.parametrize("durable", [True, False])
def test_a_sidecar_whose_allows_do_not_wait_for_their_record_fails(*, durable: bool) -> None:
    told = asyncio.run(served({"pdp_sidecar_audit_durable": durable}))
    (finding,) = _durability(told)
    assert finding.passed is durable
    assert ("weakened" in finding.seen) is not durable


def test_a_sidecar_that_says_nothing_is_not_fresh() -> None:
    async def silent() -> dict[str, float]:
        listener = bound_socket(Address(host="127.0.0.1", port=0), option="--probes")
        port = listener.getsockname()[1]
        listener.close()
        return await _told(Address(host="127.0.0.1", port=port))

    assert not _age(asyncio.run(silent())).passed


def test_a_gate_that_does_not_answer_is_told_once() -> None:
    async def run() -> None:
        listener = bound_socket(Address(host="127.0.0.1", port=0), option="--probes")
        here = Address(host="127.0.0.1", port=listener.getsockname()[1])
        listener.close()
        gate, ready = await examine(Subject(gate=here, probes=here, served="fraud"))
        assert (gate.check, gate.passed) == ("the gate answers", False)
        assert gate.seen == f"127.0.0.1:{here.port}: Connection refused; does it run, and is --gate right?"
        assert (ready.passed, ready.seen) == (False, f"no answer from 127.0.0.1:{here.port}: Connection refused")

    asyncio.run(run())


def test_a_world_that_is_too_old_names_the_bound() -> None:
    assert _age({"pdp_sidecar_staleness_seconds": 24.9}).seen == "24.9 s old, of 15; does the sidecar reach its PDP?"
