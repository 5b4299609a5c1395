"""When a running stream's caller has lost its right: only if a policy says so."""

import asyncio
from pathlib import Path

import pytest

from pdp.errors import Reason
from pdp.limits import MAX_STALENESS_S
from pdp.replica import Replica
from pdp.server.callers import ASK, ASSERT, Caller, right
from pdp.v1 import lock_pb2, lock_pb2_grpc
from tests.support.pdp import ADA, BOB, running_pdp


def test_a_policy_takes_a_right_away_and_a_stale_world_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            caller = await pdp.app.gate.admit(f"Bearer {pdp.token(BOB)}", None, method="test")
            assert pdp.app.gate.lost(caller, ASK) is None
            assert pdp.app.gate.lost(caller, ASSERT) is Reason.NO_GRANT
            stale = MAX_STALENESS_S["low"] + 1
            monkeypatch.setattr(Replica, "staleness_s", lambda _self, **_: stale)
            assert not pdp.app.decider.recheck(caller.question(ASK)).allowed
            assert pdp.app.gate.lost(caller, ASK) is None
            monkeypatch.undo()
            target = lock_pb2.LockTarget(principal=f"user:{BOB}")
            stub = lock_pb2_grpc.LockServiceStub(pdp.channel())
            await stub.Lock(lock_pb2.LockRequest(target=target), metadata=pdp.metadata(ADA), timeout=10)
            assert pdp.app.gate.lost(caller, ASK) is Reason.LOCKED

    asyncio.run(run())


def test_a_caller_does_not_show_its_credential() -> None:
    assert Caller.__dataclass_fields__["authorization"].repr is False
    assert str(right("lock.add", "lock/all")) == "lock.add on lock/all"
