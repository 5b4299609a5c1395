"""In-process decisions at 10 to 100,000 rules, the same rules for every engine, and ours at 1,000,000.

Rule i lets role i read everything below area i; user i holds role i. 256 questions are asked in turn, each of another resource
and, where there are so many, another user: allowed on the user's own area, denied on another's. The users are spread
evenly over the rules, so that an engine which walks them to the first that allows pays half of them on average; a deny is
what it pays in full.
"""

import gc
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import casbin
import cedarpy

from pdp.decide import decide
from pdp.engine.casbin_text import Row
from pdp.engine.compiler import Snapshot, compile_texts
from pdp.engine.evaluate import EngineRequest, evaluate
from pdp.model.decision import Effect
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.world import World
from tests.bench.plot import draw
from tests.bench.report import Figure, per_question_us
from tests.support.worlds import START_MS, make_world

QUESTIONS = 256
GOLDEN = 0.618033988749895
PICTURE = Path(__file__).parents[2] / "docs/performance-engine.svg"
SIZES = (10, 1_000, 10_000, 100_000)
LARGEST = 1_000_000
FULL_COMPILE = 100_000
PACK = Path(__file__).parents[2] / "policies"
NO_ATTRIBUTES: MappingProxyType[str, bool] = MappingProxyType({})
NO_TEXTS: MappingProxyType[str, str] = MappingProxyType({})

CASBIN_MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && r.act == p.act
"""


def measure() -> list[Figure]:
    """Return the time of one decision for each engine and size, allow and deny, and how ours compares; draw it, too."""
    figures: list[Figure] = []
    for size in SIZES:
        ours = _portcullis(size)
        peers = {"pycasbin": _pycasbin(size), "cedarpy": _cedarpy(size)}
        for kind in ("allow", "deny"):
            mine = _timed(ours, kind, size)
            figures.append(Figure(name=f"portcullis {kind}, {size:,}", value=mine, unit="us"))
            for peer, engine in peers.items():
                theirs = _timed(engine, kind, size)
                figures.append(
                    Figure(
                        name=f"{peer} {kind}, {size:,}",
                        value=theirs,
                        unit="us",
                        versus=f"portcullis {kind}, {size:,}",
                        ratio=theirs / mine,
                    )
                )
    figures += _flatness(figures)
    draw(figures, PICTURE)
    figures += _harder()
    figures += _whole()
    return figures


def _flatness(figures: list[Figure]) -> list[Figure]:
    """Return compile time and memory of 100,000 rules and assignments, and a decision at 1,000,000 beside one at 10."""
    rows = _rows(FULL_COMPILE)
    start = time.process_time()
    _compiled(rows)
    elapsed = time.process_time() - start
    del rows
    found = [
        Figure(name=f"compile, {FULL_COMPILE:,} rules and as many assignments", value=elapsed, unit="s"),
        Figure(name="memory of a compiled row", value=_row_bytes(), unit="bytes"),
    ]
    base = {figure.name: figure.value for figure in figures}
    largest = _portcullis(LARGEST)
    for kind in ("allow", "deny"):
        value = _timed(largest, kind, LARGEST)
        versus = f"portcullis {kind}, 10"
        name = f"portcullis {kind}, {LARGEST:,}"
        found.append(Figure(name=name, value=value, unit="us", versus=versus, ratio=value / base[versus]))
    return found


def _harder() -> list[Figure]:
    """Return the worst deny we know (20 roles, 8 segments, overlapping patterns), and what one condition costs."""
    deep = "a/b/c/d/e/f/g"
    patterns = [f"dataset/{'/'.join(deep.split('/')[:n])}/**" for n in range(1, 7)] + [
        "dataset/*/b/**",
        "dataset/a/*/**",
    ]
    grants = [
        _grant(number, f"role:r{number % 20}", pattern) for number, pattern in enumerate(patterns * 1_000, start=1)
    ]
    others = [_grant(len(grants) + n, f"role:other{n}", f"dataset/{deep}") for n in range(2_000)]
    links = [Row("g", ("user:u0", f"role:held{n}", "prod"), "assignments.csv", n) for n in range(20)]
    worst = _asking(_compiled([*grants, *others, *links]), "user:u0", f"dataset/{deep}")
    plain = _asking(_compiled([_grant(1, "user:u0", "dataset/**")]), "user:u0", "dataset/a")
    when = _grant(1, "user:u0", "dataset/**", "resource.sensitivity != 'high'")
    conditional = _asking(_compiled([when]), "user:u0", "dataset/a", {"resource.sensitivity": "low"})
    if worst() or not plain() or not conditional():
        sys.exit("bench: a hard question is answered wrongly; a figure for it would mean nothing")
    figures = {
        name: per_question_us(lambda ask: ask(), (ask,))
        for name, ask in (("worst", worst), ("plain", plain), ("cel", conditional))
    }
    ratio = figures["worst"] / figures["plain"]
    return [
        Figure(name="portcullis one grant", value=figures["plain"], unit="us"),
        Figure(
            name="portcullis worst deny", value=figures["worst"], unit="us", versus="portcullis one grant", ratio=ratio
        ),
        Figure(name="portcullis one CEL condition, extra", value=figures["cel"] - figures["plain"], unit="us"),
    ]


def _grant(line: int, role: str, pattern: str, when: str = "") -> Row:
    return Row("p", (role, "dataset.read", pattern, "prod", when, "", "allow"), "grants.csv", line)


def _asking(snapshot: Snapshot, user: str, name: str, attributes: Mapping[str, str] = NO_TEXTS) -> Callable[[], bool]:
    question = EngineRequest(
        context="", values=(user, "dataset.read", name, "prod"), memberships={}, attributes=attributes
    )
    return lambda: evaluate(snapshot, question, 0).effect is Effect.ALLOW


def _row_bytes() -> float:
    """Return what a row takes in all, itself included: what is allocated and not freed, whatever the process holds beside."""
    gc.collect()
    tracemalloc.start()
    try:
        snapshot = _compiled(_rows(FULL_COMPILE))
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / len(snapshot.rows)
    finally:
        tracemalloc.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine with its policy: how it makes a question of a user, an area and a table, and how it answers one."""

    make: Callable[[int, int, int], Any]
    answer: Callable[[Any], bool]


def _timed(engine: Engine, kind: str, size: int) -> float:
    """Return the time of one question of `kind`, asked in turn with others."""
    questions = [engine.make(user, area, table) for user, area, table in _asked(kind, size)]
    for question in questions[:10]:
        if engine.answer(question) is not (kind == "allow"):
            sys.exit(f"bench: an engine answers `{kind}` wrongly; a figure for it would mean nothing")
    return per_question_us(engine.answer, questions)


def _asked(kind: str, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield user, area and table of each question; users in steps of the golden section, so that every few are spread evenly."""
    for number in range(QUESTIONS):
        user = int(number * GOLDEN % 1 * size)
        yield user, user if kind == "allow" else (user + size // 2) % size, number


def _rows(size: int) -> list[Row]:
    """Return the rows of both kinds as the log brings them: equal texts are one."""
    grants = (
        ["p", [f"role:r{i}", "dataset.read", f"dataset/area{i}/**", "prod", "", "", "allow"], "grants.csv", i + 1]
        for i in range(size)
    )
    links = (["g", [f"user:u{i}", f"role:r{i}", "prod"], "assignments.csv", i + 1] for i in range(size))
    return [Row.from_json(row) for row in (*grants, *links)]


def _portcullis(size: int) -> Engine:
    snapshot = _compiled(_rows(size))
    return Engine(make=_question, answer=lambda question: evaluate(snapshot, question, 0).effect is Effect.ALLOW)


def _compiled(rows: list[Row]) -> Snapshot:
    texts = (PACK / "model.conf").read_text(), (PACK / "vocabulary.yaml").read_text()
    snapshot = compile_texts(*texts, rows)
    if not isinstance(snapshot, Snapshot):
        sys.exit("bench: " + "; ".join(str(finding) for finding in snapshot[:3]))
    return snapshot


def _question(user: int, area: int, table: int) -> EngineRequest:
    return EngineRequest(
        context="",
        values=(f"user:u{user}", "dataset.read", f"dataset/area{area}/table{table}", "prod"),
        memberships=MappingProxyType({}),
        attributes=NO_ATTRIBUTES,
    )


def _pycasbin(size: int) -> Engine:
    enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=CASBIN_MODEL))
    enforcer.add_policies([[f"role:r{i}", f"dataset/area{i}/*", "dataset.read"] for i in range(size)])
    for i in range(size):
        enforcer.get_role_manager().add_link(f"user:u{i}", f"role:r{i}")
    return Engine(
        make=lambda user, area, table: (f"user:u{user}", f"dataset/area{area}/table{table}", "dataset.read"),
        answer=lambda question: bool(enforcer.enforce(*question)),
    )


def _cedarpy(size: int) -> Engine:
    text = "\n".join(
        f'permit(principal in Role::"r{i}", action == Action::"read", resource in Area::"area{i}");'
        for i in range(size)
    )
    policies = cedarpy.PolicySet.from_str(text)
    return Engine(
        make=_cedar_question,
        answer=lambda question: bool(cedarpy.is_authorized(question[0], policies, question[1]).allowed),
    )


def _cedar_question(user: int, area: int, table: int) -> tuple[dict[str, Any], cedarpy.Entities]:
    """Return a question with the entities that it touches, parsed, and no others: the kindest case for the peer."""
    entities = [
        {"uid": {"type": kind, "id": name}, "attrs": {}, "parents": [{"type": above, "id": parent}]}
        for kind, name, above, parent in (
            ("User", f"u{user}", "Role", f"r{user}"),
            ("Table", f"t{table}", "Area", f"area{area}"),
        )
    ]
    request = {
        "principal": f'User::"u{user}"',
        "action": 'Action::"read"',
        "resource": f'Table::"t{table}"',
        "context": {},
    }
    return request, cedarpy.Entities.from_json_str(json.dumps(entities))


def _whole() -> list[Figure]:
    """Return the time of a whole `decide`: vocabulary, locks, inventory, segmentation, grants, obligations.

    "New" is a question that this policy has not been asked; "again" is one like it, which it remembers (`engine/recall.py`);
    "met again" the very same one, beside which lies what this world said to it (`Question.settled`).
    """
    areas = range(QUESTIONS)
    rows = "".join(
        f"g, user:u{i}, role:r{i}, prod\np, role:r{i}, dataset.read, dataset/area{i}/**, prod, , , allow\n"
        for i in areas
    )
    segments = (
        "g3, workload:spiffe://t/ns/apps/**, segment:apps\np2, segment:apps, dataset.read, segment:data, , allow\n"
    )
    place = {"environment": "prod", "segment": "segment:data"}
    world = make_world(rows + segments, {f"dataset/area{i}/table": place for i in areas})
    figures = []
    for kind, step in (("allow", 0), ("deny", 1)):
        questions = [_whole_question(i, (i + step) % QUESTIONS) for i in areas]
        if decide(world, questions[0], START_MS).allowed is not (kind == "allow"):
            sys.exit(f"bench: `decide` answers `{kind}` wrongly; a figure for it would mean nothing")
        new = statistics.median(_pass_us(_forgetful(world), questions) for _ in range(9))
        for question in questions:
            decide(world, question, START_MS)
        again = statistics.median(_pass_us(world, [replace(question) for question in questions]) for _ in range(9))
        met = per_question_us(lambda question: decide(world, question, START_MS), questions)
        for name, value in (("new", new), ("again", again), ("met again", met)):
            figures.append(Figure(name=f"portcullis whole decide, {kind}, {name}", value=value, unit="us"))
    return figures


def _whole_question(user: int, area: int) -> Question:
    return Question(
        subject=Party(principal=Principal.parse(f"user:u{user}")),
        action=Action.parse("dataset.read"),
        resource=Resource.parse(f"dataset/area{area}/table"),
        workload=Principal.parse(f"workload:spiffe://t/ns/apps/sa/w{user}"),
    )


def _forgetful(world: World) -> World:
    """Return the same world with a policy that remembers no answer yet."""
    if world.policy is None:
        sys.exit("bench: a world without a policy")
    return replace(world, policy=replace(world.policy, snapshot=replace(world.policy.snapshot)))


def _pass_us(world: World, questions: Sequence[Question]) -> float:
    start = time.process_time()
    for question in questions:
        decide(world, question, START_MS)
    return (time.process_time() - start) / len(questions) * 1e6


with suppress(AttributeError):  # pycasbin logs every decision unless told not to
    casbin.util.log.disable_log()
