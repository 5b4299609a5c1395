"""Clients, a publisher and faults around a real PDP, and the history of what happened: what drives the checker."""

import asyncio
import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from pdp.adapters.audit_reader import read_segments
from pdp.adapters.keys_files import load_root
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.audit import chain as chains
from pdp.audit.chain import Verdict
from pdp.audit.verify import verify
from pdp.engine import reference
from pdp.engine.question import EngineRequest
from pdp.errors import Reason
from pdp.model.decision import Effect
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.replica import Prepared, Replica
from pdp.server.stores import WORLD_FILE
from pdp.trust.verifier import TrustVerifier
from pdp.v1 import decision_pb2, decision_pb2_grpc, lock_pb2, lock_pb2_grpc, types_pb2
from pdp.world import World, empty_world
from tests.faults.checker import Call, History
from tests.support.pdp import ADA, BOB, GATE
from tests.support.served import ServedPdp

ASSETS = "dataset/open: {environment: dev}\n"
SUBJECT, ACTION, RESOURCE = f"user:{BOB}", "dataset.read", "dataset/open"
QUESTION = Question(
    subject=Party(principal=Principal.parse(SUBJECT)),
    action=Action.parse(ACTION),
    resource=Resource.parse(RESOURCE),
)
_ASKED = decision_pb2.Question(
    subject=decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal=SUBJECT)),
    action=ACTION,
    resource=RESOURCE,
    supports_all=True,
)
TARGETS = (lock_pb2.LockTarget(principal=SUBJECT), lock_pb2.LockTarget(resource=RESOURCE))
PATIENCE_S = 5.0


@dataclass
class Drive:
    """What is under way: asked by clients, changed by one publisher, and disturbed."""

    pdp: ServedPdp
    order: random.Random
    calls: list[Call] = field(default_factory=list)
    published: dict[int, float] = field(default_factory=dict)
    unanswered: int = 0
    over: bool = False

    async def client(self, name: str) -> None:
        """Ask one question after another, of a world at least as new as one that somebody was told of."""
        stub = decision_pb2_grpc.DecisionServiceStub(self.pdp.channel())
        metadata, newest = self.pdp.metadata(GATE), 0
        while not self.over:
            at_least = self.order.choice((0, newest, max(self.published, default=0)))
            request = decision_pb2.EvaluateBatchRequest(questions=[_ASKED] * 2, at_least=at_least)
            started_s = time.monotonic()
            try:
                response = await stub.EvaluateBatch(request, metadata=metadata, timeout=PATIENCE_S)
            except grpc.aio.AioRpcError:
                self.unanswered += 1
                await asyncio.sleep(0.02)
                continue
            ended_s = time.monotonic()
            self.calls += [_call(name, item, at_least, started_s, ended_s) for item in response.decisions]
            newest = response.decisions[0].world_seq

    async def publish(self, changes: int) -> None:
        """Lock and unlock in turn, `changes` times acknowledged, whatever happens in between."""
        stub = lock_pb2_grpc.LockServiceStub(self.pdp.channel())
        metadata = self.pdp.metadata(ADA)
        while len(self.published) < changes:
            try:
                held = (await stub.List(lock_pb2.ListLocksRequest(), metadata=metadata, timeout=PATIENCE_S)).locks
                if held:
                    gone = lock_pb2.UnlockRequest(id=held[0].id)
                    seq = (await stub.Unlock(gone, metadata=metadata, timeout=PATIENCE_S)).world_seq
                else:
                    made = lock_pb2.LockRequest(target=self.order.choice(TARGETS), reason="history")
                    seq = (await stub.Lock(made, metadata=metadata, timeout=PATIENCE_S)).lock.world_seq
                self.published[seq] = time.monotonic()
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)

    async def acknowledged(self, changes: int) -> None:
        """Return once so many changes were acknowledged."""
        while len(self.published) < changes:  # noqa: ASYNC110 - the publisher tells nobody
            await asyncio.sleep(0.005)

    async def stopped(self) -> None:
        """Let the process hang while clients and publisher go on asking, then let it go on."""
        self.pdp.signal(signal.SIGSTOP)
        asked = self.unanswered + len(self.calls)
        await asyncio.wait((asyncio.create_task(asyncio.sleep(0.3)),))
        self.pdp.signal(signal.SIGCONT)
        while self.unanswered + len(self.calls) == asked:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)

    async def killed(self) -> None:
        """Kill the process in the middle of everything, and start it again where it was."""
        await self.pdp.kill()
        await self.pdp.start()


def _call(name: str, item: decision_pb2.Decision, at_least: int, t0: float, t1: float) -> Call:
    return Call(
        client=name,
        question=QUESTION,
        allowed=item.effect == types_pb2.EFFECT_ALLOW,
        reason=Reason(item.reason),
        world_seq=item.world_seq,
        decision_id=item.decision_id,
        at_least=at_least,
        t0=t0,
        t1=t1,
    )


async def history(drive: Drive) -> History:
    """Return what happened: the calls, the worlds of the log, and what the decision log holds of them."""
    state = drive.pdp.directory / "state"
    verified, durable = recorded(state / "audit")
    known = await worlds(state)
    answers = {seq: judged(world) for seq, world in known.items() if world.asset(QUESTION.resource)}
    return History(
        calls=drive.calls,
        worlds=known,
        published=drive.published,
        durable=dict.fromkeys(durable, 0.0),
        chains_verify=verified,
        reference=lambda world, _question: answers[world.seq],
    )


async def worlds(state: Path) -> dict[int, World]:
    """Return every world that the log in `state` makes, each entry verified."""
    root = load_root(state)
    assert root is not None
    replica = Replica(verifier=TrustVerifier(root, "main"), world=empty_world("main"))
    log = SqliteWorldLog(state / WORLD_FILE)
    found = {}
    for entry in await log.read(after=0, limit=100_000):
        prepared = replica.prepare(entry, now_ms=time.time_ns() // 1_000_000)
        assert isinstance(prepared, Prepared), prepared
        replica.commit(prepared)
        found[replica.world.seq] = replica.world
    await log.close()
    return found


def recorded(directory: Path) -> tuple[bool, set[str]]:
    """Return whether every chain verifies, and the ids of the decisions in them."""
    found = read_segments(directory)
    whole = all(verify(items).verdict is Verdict.OK for items in found.values())
    return whole, {record["decision_id"] for record in _records(found) if "decision_id" in record}


def _records(found: dict[str, list[tuple[str, bytes]]]) -> Iterator[dict[str, str]]:
    for items in found.values():
        for _, data in items:
            yield from (json.loads(content) for _, content in chains.frames(data))


def judged(world: World) -> bool:
    """Return the answer by the executable specification and a look at every lock: nothing of the engine or of `decide`."""
    named = {SUBJECT, RESOURCE}
    locked = any(named & {str(value) for value in lock.target.to_json().values()} for lock in world.locks)
    return not locked and _granted(world)


def _granted(world: World) -> bool:
    snapshot, asset = world.snapshot, world.asset(QUESTION.resource)
    assert snapshot is not None
    assert asset is not None
    names = (SUBJECT, ACTION, RESOURCE, asset.environment)
    request = EngineRequest(context="", values=names, memberships={}, attributes={})
    effect, _ = reference.evaluate(snapshot.model, snapshot.vocabulary, snapshot.rows, request, world.signed_ms)
    return effect is Effect.ALLOW
