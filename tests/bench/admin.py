"""Administration and forensics: logged decisions decided again, found, verified and appended; two large worlds compared.

The log is made of real records of real decisions of one world, in segments of the size that a PDP makes. `BENCH_RECORDS` and
`BENCH_ROWS` in the environment set other sizes.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pdp.adapters.audit_index import AuditIndex
from pdp.adapters.audit_reader import acknowledged, read_segments
from pdp.audit.chain import START, Link, Verdict, frame, seal
from pdp.audit.query import Wanted
from pdp.audit.record import Circumstances, DecisionRecord, opened_record
from pdp.audit.replay import Logged, logged
from pdp.audit.verify import verify
from pdp.change.trial import Mode, Trial
from pdp.decide import decide
from pdp.engine.casbin_text import Row
from pdp.engine.compiler import Snapshot, compile_texts
from pdp.engine.diff import diff
from pdp.limits import AUDIT_SEGMENT_BYTES
from pdp.model.canonical import loads
from pdp.model.decision import Decision
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.service.compare import Comparison
from pdp.service.redecide import again
from pdp.world import World
from tests.bench import audit
from tests.bench.report import Figure
from tests.support.worlds import MODEL, START_MS, VOCABULARY, make_world

RECORDS = int(os.environ.get("BENCH_RECORDS", "1000000"))
ROWS = int(os.environ.get("BENCH_ROWS", "100000"))
PEOPLE = 1_000
TABLES = 500
QUESTIONS = 50_000
REPLAYED = 200_000
CHANGED = 10


def measure() -> list[Figure]:
    """Return the figures of issue 8: replay, append, query, verify, diff."""
    with TemporaryDirectory(prefix="portcullis-bench-") as name:
        directory, world = Path(name), _world()
        _write(directory, world)
        return [*_over_the_log(directory, world), *audit.measure(), _diff()]


def _over_the_log(directory: Path, world: World) -> list[Figure]:
    start = time.perf_counter()
    index = AuditIndex.open(directory)
    built = time.perf_counter() - start
    with index:
        slowest = max(_elapsed_ms(lambda person=person: _find(index, person)) for person in range(0, PEOPLE, 50))
    named = f"{RECORDS:,} records"
    return [
        Figure(name="replay of logged decisions, one core", value=_replay(directory, world), unit="decisions/s"),
        Figure(name="compared with a shadow, one core", value=_compared(directory, world), unit="decisions/s"),
        Figure(name="verify a chain, one core", value=_verify(directory), unit="MB/s"),
        Figure(name=f"index made anew, {named}", value=RECORDS / built, unit="records/s"),
        Figure(name=f"query by subject, newest 100 of {named}, slowest of 20", value=slowest, unit="ms"),
    ]


def _find(index: AuditIndex, person: int) -> None:
    wanted = Wanted(subject=f"user:person{person}@example.com")
    if len(index.find(wanted, limit=100)) != min(100, RECORDS // PEOPLE):
        sys.exit("bench: a query finds what it should not; a figure for it would mean nothing")


def _elapsed_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def _world() -> World:
    rows = "g, group:people, role:reader, prod\np, role:reader, dataset.read, dataset/**, prod, , , allow\n"
    reach = "p2, segment:none, dataset.read, segment:none, , allow\n"
    return make_world(rows + reach, {f"dataset/area/t{n}": {"environment": "prod"} for n in range(TABLES)})


def _questions() -> Iterator[Question]:
    """Every third question is of somebody outside the group, and so a deny."""
    for number in range(QUESTIONS):
        groups = frozenset({"group:people"}) if number % 3 else frozenset()
        yield Question(
            subject=Party(principal=Principal.parse(f"user:person{number % PEOPLE}@example.com"), groups=groups),
            action=Action.parse("dataset.read"),
            resource=Resource.parse(f"dataset/area/t{number % TABLES}"),
        )


def _write(directory: Path, world: World) -> None:
    """Write `RECORDS` decisions as a PDP would: segments of the usual size, each opened by a record of its own."""
    decided = [(question, decide(world, question, START_MS)) for question in _questions()]
    link, number = START, 0
    while number < RECORDS:
        content, link = seal(opened_record(chain="pdp-1", reason="size", time_ms=START_MS + number, who={}), link)
        path = directory / f"pdp-1.{link.n:012d}.log"
        with path.open("wb") as file:
            size = file.write(frame(content))
            while number < RECORDS and size < AUDIT_SEGMENT_BYTES:
                content, link = _sealed(decided, number, link)
                size += file.write(frame(content))
                number += 1


def _sealed(decided: Sequence[tuple[Question, Decision]], number: int, link: Link) -> tuple[bytes, Link]:
    question, decision = decided[number % len(decided)]
    around = Circumstances(
        now_ms=START_MS, staleness_ms=5, clock_off=False, door="grpc", caller="user:gate@x", time_ms=START_MS + number
    )
    record = DecisionRecord(
        decision_id=f"{number:032x}", decision=decision, question=question, digest="", around=around
    )
    return seal(record, link)


def _replay(directory: Path, world: World) -> float:
    """Return decisions replayed in a second of processor time, from the bytes of a record to the comparison."""
    ((_, held),) = read_segments(directory).items()
    contents = [content for content, _ in zip(acknowledged(held), range(REPLAYED), strict=False)]
    start = time.process_time()
    found = [one for one in map(_replayed(world), contents) if one is not None]
    elapsed = time.process_time() - start
    if not all(found):
        sys.exit("bench: a decision replays to another answer")
    return len(found) / elapsed


def _replayed(world: World) -> Callable[[bytes], bool | None]:
    def one(content: bytes) -> bool | None:
        read = logged(loads(content))
        return again(world, read) == read.said if isinstance(read, Logged) else None

    return one


class _StandingClock:
    """No time passes: neither does a slice end, nor is the log old."""

    def now_ms(self) -> int:
        return START_MS

    def mono_s(self) -> float:
        return 0.0


def _compared(directory: Path, world: World) -> float:
    """Return decisions compared with a candidate in a second of processor time, from the log to the count."""
    if world.policy is None:
        sys.exit("bench: a world without a policy")
    trial = Trial(
        seq=0,
        mode=Mode.SHADOW,
        proposal="p0",
        digest="",
        by=("user:bench@example.com",),
        start_ms=START_MS,
        end_ms=START_MS + 1,
    )
    comparison = Comparison(trial, (directory,), _StandingClock())
    start = time.process_time()
    while comparison.step(world, world.policy):
        pass
    elapsed = time.process_time() - start
    if comparison.tally.changes or comparison.tally.unreadable or not comparison.tally.compared:
        sys.exit(f"bench: a policy differs from itself, or the log is not read: {comparison.tally}")
    return comparison.tally.compared / elapsed


def _verify(directory: Path) -> float:
    """Return megabytes verified in a second of processor time."""
    ((_, held),) = read_segments(directory).items()
    start = time.process_time()
    report = verify(held)
    elapsed = time.process_time() - start
    if report.verdict is not Verdict.OK:
        sys.exit(f"bench: the chain does not verify: {report}")
    return sum(len(data) for _, data in held) / elapsed / 1e6


def _diff() -> Figure:
    """Return the time to name every cell that changes between two large worlds that differ in a few rows."""
    before = _compiled(0)
    after = _compiled(CHANGED)
    start = time.process_time()
    cells = diff(before, after, START_MS)
    elapsed = time.process_time() - start
    if len(cells) < CHANGED:
        sys.exit("bench: the comparison misses a change")
    return Figure(name=f"diff of two worlds of {ROWS:,} rows, {CHANGED} of them other", value=elapsed, unit="s")


def _compiled(changed: int) -> Snapshot:
    rows = []
    for n in range(ROWS // 2):
        action = "dataset.write" if n < changed else "dataset.read"
        rows.append(
            Row("p", (f"role:r{n}", action, f"dataset/area{n}/**", "prod", "", "", "allow"), "grants.csv", n + 1)
        )
        rows.append(Row("g", (f"user:u{n}", f"role:r{n}", "prod"), "assignments.csv", n + 1))
    compiled = compile_texts(MODEL, VOCABULARY, tuple(rows))
    if not isinstance(compiled, Snapshot):
        sys.exit(f"bench: the world does not compile: {compiled[:2]}")
    return compiled
