"""From an accepted change to the last of 100 subscribers enforcing it; deciding while changes arrive; a cold start; workers.

The PDP is the real log, publisher and gRPC service in this process; subscribers run in processes of 25. Each verifies,
swaps and acknowledges for itself; those of one process share equal worlds. The time is taken where the change is accepted
and where the last acknowledgement arrives.
"""

import asyncio
import contextlib
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc

from pdp import replica as cell
from pdp.adapters.clock import SystemClock
from pdp.adapters.follow_grpc import GrpcFeedSource
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.adapters.replica_store import FILE_NAME, SqliteReplicaStore
from pdp.decide import decide
from pdp.engine.casbin_text import Row
from pdp.engine.digests import rows_digest
from pdp.limits import COMPACT_SPREAD_S, SWITCH_INTERVAL_S
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.replica import Replica
from pdp.server.grpc.replication import ReplicationServicer
from pdp.service import compact
from pdp.service.follow import Follower, restore
from pdp.service.replicate import Replication
from pdp.trust import verifier
from pdp.trust.feed import Hello
from pdp.trust.keys import RootFile
from pdp.trust.verifier import TrustVerifier
from pdp.v1.replication_pb2_grpc import add_ReplicationServiceServicer_to_server
from pdp.world import empty_world, fold, from_state, spell_state
from tests.bench.report import Figure
from tests.bench.watches import measure as watches
from tests.bench.workers import measure as workers
from tests.support.logs import TENANT, Authority, MemoryStore, lock_payload
from tests.support.worlds import MODEL, VOCABULARY, rows

SUBSCRIBERS = 100
PER_PROCESS = 25
ROWS = 100_000
LOCKS = 200
EDITS = 100
CHANGES_PER_S = 10
DECIDING_S = 1.5
ROUNDS = 3
READY_S = 300.0


class _Anyone:
    """Whoever follows in a benchmark."""

    class party:  # noqa: N801 - stands for an attribute
        """Its name."""

        principal = "workload:bench"


async def _admitted(_context: object, _action: str, _resource: str) -> Any:
    return _Anyone()


async def _unchanged(_authorization: str) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pdp:
    replication: Replication
    replica: Replica
    log: SqliteWorldLog
    address: str
    directory: Path
    authority: Authority


def measure() -> list[Figure]:
    """Return the figures of propagation, of deciding meanwhile, of cold start and of growth."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)  # as a PDP sets it
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="pdp-bench-") as directory:
        async with _serving(Path(directory)) as pdp:
            figures = await _big_world(pdp)
            figures += await _deciding(pdp)
            async with _followers(pdp):
                figures += _quantiles("lock -> last of 100 enforcing", await _changes(pdp, _lock, LOCKS))
                figures += _quantiles(
                    f"1-row edit on {ROWS:,} rows -> last of 100 enforcing", await _changes(pdp, _edit, EDITS)
                )
                figures += await _growth(pdp)
        return [
            *figures,
            await _cold_start(Path(directory)),
            *await asyncio.to_thread(workers),
            *await asyncio.to_thread(watches),
        ]


@contextlib.asynccontextmanager
async def _serving(directory: Path) -> AsyncIterator[_Pdp]:
    authority, clock = Authority(), SystemClock()
    (directory / "root.json").write_bytes(authority.root().raw)
    log, store = SqliteWorldLog(directory / "world.db"), SqliteReplicaStore(directory / "replica")
    replica = authority.replica()
    replication = Replication(log=log, replica=replica, keys=authority.keys, clock=clock, store=store)
    server = grpc.aio.server()
    servicer = ReplicationServicer(
        subscribers=replication.subscribers, replica=replica, authorise=_admitted, renew=_unchanged
    )
    add_ReplicationServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await replication.start()
    await _publish_rows(replication, replica, _common())
    try:
        yield _Pdp(
            replication=replication, replica=replica, log=log, address=f"127.0.0.1:{port}", directory=directory,
            authority=authority,
        )  # fmt: skip
    finally:
        await replication.stop()
        await server.stop(None)
        await store.close()
        await log.close()


def _common() -> tuple[Row, ...]:
    return rows(
        "p, role:reader, dataset.read, dataset/finance, *, , , allow\ng, user:ada@x, role:reader, *\n"
        "p2, segment:none, *, segment:data, , allow\ng3, dataset/finance, segment:data\n"
    )


async def _publish_rows(replication: Replication, replica: Replica, added: Sequence[Row]) -> int:
    held = replica.world.snapshot
    digest = rows_digest(added) if held is None else held.buckets.changed(added, ()).digest
    payload = {
        "model": None if held else MODEL,
        "vocabulary": None if held else VOCABULARY,
        "added": [row.to_json() for row in added],
        "removed": [],
        "rows_digest": digest.hex(),
        "message": "bench",
    }
    return await replication.publisher.publish("policy", payload, author="user:bench")


async def _big_world(pdp: _Pdp) -> list[Figure]:
    text = "".join(f"g, user:u{number}@x, role:reader, dev\n" for number in range(ROWS))
    start = time.perf_counter()
    await _publish_rows(pdp.replication, pdp.replica, rows(text, file="many.csv"))
    took_s = time.perf_counter() - start
    await pdp.replication.compactor.snapshot()
    return [Figure(name=f"publishing {ROWS:,} rows at once", value=took_s, unit="s")]


@contextlib.asynccontextmanager
async def _followers(pdp: _Pdp) -> AsyncIterator[None]:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.replication", pdp.address, str(pdp.directory), str(number)
        )
        for number in range(SUBSCRIBERS // PER_PROCESS)
    ]
    try:
        async with asyncio.timeout(READY_S):
            while pdp.replication.subscribers.receipt(pdp.replica.world.seq).holding < SUBSCRIBERS:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _lock(pdp: _Pdp, number: int) -> int:
    return await pdp.replication.publisher.publish("lock", lock_payload(10_000 + number), author="user:bench")


async def _edit(pdp: _Pdp, number: int) -> int:
    added = rows(f"g, user:new{number}@x, role:reader, dev\n", file=f"n{number}.csv")
    return await _publish_rows(pdp.replication, pdp.replica, added)


async def _changes(pdp: _Pdp, change: Any, times: int) -> list[float]:
    took_ms = []
    for number in range(times):
        seq = await change(pdp, number)
        receipt = await pdp.replication.subscribers.wait_all(seq, timeout_s=60)
        if receipt.missing:
            sys.exit(f"bench: {len(receipt.missing)} subscribers never acknowledged {seq}")
        took_ms.append(receipt.slowest_ms)
    return took_ms


def _quantiles(name: str, took_ms: list[float]) -> list[Figure]:
    ordered = sorted(took_ms)
    return [
        Figure(name=f"{name}, p50", value=statistics.median(ordered), unit="ms"),
        Figure(name=f"{name}, p99 of {len(ordered)}", value=ordered[int(0.99 * len(ordered))], unit="ms"),
    ]


async def _deciding(pdp: _Pdp) -> list[Figure]:
    """Return decisions per second of one thread: idle, and with locks or edits arriving, by turns on one machine's noise."""
    kinds = {"idle": None, "locks": _lock, "1-row edits": _edit}
    done: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(ROUNDS):
        for name, change in kinds.items():
            done[name].append(await _decisions_per_s(pdp, change, 100_000 + 1_000 * turn))
    idle = statistics.median(done["idle"])
    figures = [Figure(name=f"decisions in process, idle, {ROWS:,} rows", value=idle, unit="decisions/s")]
    for name in ("locks", "1-row edits"):
        value = statistics.median(done[name])
        told = f"decisions in process, {CHANGES_PER_S} {name}/s arriving"
        figures.append(Figure(name=told, value=value, unit="decisions/s", versus=figures[0].name, ratio=value / idle))
    return figures


async def _decisions_per_s(pdp: _Pdp, change: Any, first: int) -> float:
    question = Question(
        subject=Party(principal=Principal.parse("user:ada@x")),
        action=Action.parse("dataset.read"),
        resource=Resource.parse("dataset/finance"),
    )
    changing = asyncio.create_task(_arriving(pdp, change, first))
    done, start = 0, time.perf_counter()
    while time.perf_counter() < start + DECIDING_S:
        for _ in range(200):
            decide(pdp.replica.world, question, 1)
        done += 200
        await asyncio.sleep(0)
    took_s = time.perf_counter() - start
    changing.cancel()
    await asyncio.gather(changing, return_exceptions=True)
    return done / took_s


async def _arriving(pdp: _Pdp, change: Any, first: int) -> None:
    number = first
    while change is not None:
        number += 1
        _, _ = await asyncio.gather(change(pdp, number), asyncio.sleep(1 / CHANGES_PER_S))


async def _growth(pdp: _Pdp) -> list[Figure]:
    """Return what a lock and a row add to the log, what the log takes, and what a follower's disk keeps of it."""
    await asyncio.sleep(COMPACT_SPREAD_S)  # by then followers have compacted to the newest seal
    figures = []
    with contextlib.closing(sqlite3.connect(pdp.directory / "world.db")) as log:
        sizes = log.execute("SELECT seq, length(header) + length(payload) + length(signatures) FROM entries").fetchall()
    for name, size in (("lock", sizes[-EDITS - 1][1]), ("1-row edit", sizes[-1][1])):
        figures.append(Figure(name=f"log growth by one {name}", value=size, unit="bytes"))
    edge = pdp.directory / "edge-0-0" / FILE_NAME
    with contextlib.closing(sqlite3.connect(edge)) as disk:
        (kept,) = disk.execute("SELECT count(*) FROM entries").fetchone()
        (snapshot,) = disk.execute("SELECT length(state) FROM snapshot").fetchone()
    changes = pdp.replica.world.seq
    figures.append(
        Figure(name=f"log of {changes} changes, {ROWS:,} rows", value=sum(n for _, n in sizes) / 1e6, unit="MB")
    )
    figures.append(Figure(name="of these on a follower's disk, after its snapshot", value=kept, unit="changes"))
    figures.append(Figure(name="the snapshot on a follower's disk", value=snapshot / 1e6, unit="MB"))
    return figures


async def _cold_start(directory: Path) -> Figure:
    verifier = TrustVerifier(RootFile.parse((directory / "root.json").read_bytes()), TENANT)
    replica = Replica(verifier=verifier, world=empty_world(TENANT))
    store = SqliteReplicaStore(directory / "edge-0-0")
    start = time.perf_counter()
    await restore(replica, store, SystemClock())
    took_s = time.perf_counter() - start
    await store.close()
    held = len(replica.world.snapshot.rows) if replica.world.snapshot else 0
    return Figure(name=f"cold start of a replica from its disk, {held:,} rows", value=took_s, unit="s")


def _instances(number: int) -> Iterator[str]:
    return (f"edge-{number}-{place}" for place in range(PER_PROCESS))


def _share() -> None:
    """Let the subscribers of this process share equal immutable worlds: a hundred copies would not fit the machine.

    Signatures, digests, chain and position are checked by each; only the value that then follows is made once.
    """
    parse = verifier._content
    folded, loaded, spelled, parsed = _once(), _once(), _once(), _once()
    cell.fold = lambda world, entry: folded((world.head, entry.digest), lambda: fold(world, entry))
    cell.from_state = lambda state: loaded((state["seq"], state["head"]), lambda: from_state(state))
    compact.spell_state = lambda world: spelled(world.head, lambda: spell_state(world))
    verifier._content = lambda raw: parsed(sha256(raw).digest(), lambda: parse(raw))


def _once() -> Callable[[object, Callable[[], Any]], Any]:
    """Return what makes the value of a key once, and forgets it when a process full of others was asked for."""
    made: dict[object, Any] = {}
    lock = threading.Lock()

    def once(key: object, make: Callable[[], Any]) -> Any:
        with lock:
            if key not in made:
                if len(made) > PER_PROCESS:
                    made.pop(next(iter(made)))
                made[key] = make()
            return made[key]

    return once


async def _follow(address: str, directory: Path, number: int) -> None:
    """Run one process of subscribers."""
    root = RootFile.parse((directory / "root.json").read_bytes())
    _share()
    followers = []
    for name in _instances(number):
        hello = Hello(seq=0, head=b"", version="bench", role="sidecar", tenant=TENANT, instance=name)
        replica = Replica(verifier=TrustVerifier(root, TENANT), world=empty_world(TENANT))
        source = GrpcFeedSource(address, clock=SystemClock(), idle_s=READY_S)
        # One of them keeps its disk for the cold start; a hundred disks of one machine would measure that disk.
        store = SqliteReplicaStore(directory / name) if name == "edge-0-0" else MemoryStore()
        followers.append(Follower(replica, store, source, clock=SystemClock(), hello=hello).run())
    await asyncio.gather(*followers)


if __name__ == "__main__":
    asyncio.run(_follow(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
