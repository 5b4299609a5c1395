"""The index of watches: it wakes all whose answer a change can alter (held against the engine), and few others."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.decide import decide
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.replica import Listener
from pdp.service.watch_index import Watches
from pdp.world import World
from tests.support.worlds import START_MS, Scribe

USERS = ("user:ada@x", "user:bob@x", "workload:spiffe://demo.portcullis/ns/a/sa/b")
GROUPS = ("group:ds@x",)
RESOURCES = ("dataset/finance/q1", "dataset/finance/q2", "dataset/hr/pay", "model/fraud@3")
BASE = """
p, role:reader, dataset.read|list, dataset/finance/**, *, , , allow
p2, segment:none, *, segment:data, , allow
g3, dataset/finance/q1, segment:data
"""
ROWS = (
    "p, role:reader, dataset.read, dataset/hr/pay, *, , , allow",
    "p, role:writer, dataset.write, dataset/**, *, , , allow",
    "p, role:reader, dataset.read, dataset/finance/q2, *, , , deny",
    "p, role:reader, dataset.*, collection:books, *, , , allow",
    "p, role:reader, model.download, model/fraud, *, , , allow",
    "g, user:ada@x, role:reader, *",
    "g, user:bob@x, role:writer, dev",
    "g, group:ds@x, role:reader, dev",
    "g, role:writer, role:reader, *",
    "g2, dataset/hr/pay, collection:books",
    "g2, dataset/finance/*, collection:books",
    "g3, dataset/finance/q2, segment:data",
    "p2, segment:none, dataset.read, segment:data, , deny",
)
TARGETS = (
    {"kind": "principal", "principal": "user:ada@x"},
    {"kind": "principal", "principal": "workload:spiffe://demo.portcullis/ns/**"},
    {"kind": "resource", "resource": "dataset/finance/q1"},
    {"kind": "resource", "resource": "dataset/finance/*"},
    {"kind": "resource", "resource": "model/fraud"},
)


@dataclass
class Cell:
    """A replica whose worlds a test sets."""

    world: World
    listeners: list[Listener] = field(default_factory=list)

    def on_change(self, listener: Listener) -> None:
        self.listeners.append(listener)

    def become(self, world: World) -> None:
        self.world = world
        for listener in self.listeners:
            listener(world)


def question(subject: str, resource: str, verb: str, *, groups: frozenset[str] = frozenset()) -> Question:
    kind = resource.partition("/")[0]
    return Question(
        subject=Party(principal=Principal.parse(subject), groups=groups),
        action=Action.parse(f"{kind}.{verb}" if kind == "dataset" else "model.download"),
        resource=Resource.parse(resource),
    )


QUESTIONS = [
    question(subject, resource, verb, groups=groups)
    for subject in USERS
    for resource in RESOURCES
    for verb in ("read", "write")
    for groups in (frozenset(), frozenset(GROUPS))
]
_change = st.one_of(
    st.tuples(st.just("rows"), st.frozensets(st.sampled_from(ROWS))),
    st.tuples(st.just("lock"), st.sampled_from(TARGETS)),
    st.tuples(st.just("asset"), st.tuples(st.sampled_from(RESOURCES), st.sampled_from(("dev", "prod")))),
    st.tuples(st.just("retire"), st.sampled_from(RESOURCES)),
)


def apply(scribe: Scribe, kind: str, what: object, number: int) -> World:
    if kind == "rows":
        return scribe.policy(BASE + "\n".join(sorted(what)))  # type: ignore[call-overload]
    if kind == "lock":
        return scribe.lock(f"lock-{number}", what)  # type: ignore[arg-type]
    if kind == "retire":
        return (
            scribe.write("retire", {"names": [what], "reason": "old"}) if what in scribe.world.assets else scribe.world
        )
    name, environment = what  # type: ignore[misc]
    return scribe.assets(**{name: {"environment": environment}})


@settings(max_examples=25, deadline=None)
@given(st.lists(_change, min_size=1, max_size=6))
def test_every_watch_whose_answer_changes_is_woken(changes: list[tuple[str, object]]) -> None:
    scribe = Scribe()
    scribe.policy(BASE)
    cell = Cell(scribe.assets(**{name: {"environment": "dev"} for name in RESOURCES}))
    watches = Watches(cell)  # type: ignore[arg-type]
    with ExitStack() as stack:
        events = [stack.enter_context(watches.watching(item)) for item in QUESTIONS]
        for number, (kind, what) in enumerate(changes):
            before = [outcome(cell.world, item) for item in QUESTIONS]
            cell.become(apply(scribe, kind, what, number))
            for item, event, was in zip(QUESTIONS, events, before, strict=True):
                assert event.is_set() or outcome(cell.world, item) == was, (kind, what, item)
                event.clear()


def outcome(world: World, item: Question) -> object:
    decision = decide(world, item, START_MS)
    return decision.effect, decision.reason, decision.obligations


def many(watches: Watches, stack: ExitStack, number: int) -> list[asyncio.Event]:
    return [
        stack.enter_context(watches.watching(question(f"user:u{place}@x", f"dataset/finance/d{place % 100}", "read")))
        for place in range(number)
    ]


@pytest.mark.holds("L8")
def test_a_canary_that_begins_or_ends_wakes_every_watch() -> None:
    scribe = Scribe()
    live = scribe.policy(BASE)
    tried = replace(live, candidate=live.policy)
    watches = Watches(Cell(live))  # type: ignore[arg-type]
    with ExitStack() as stack:
        for item in QUESTIONS:
            stack.enter_context(watches.watching(item))
        for old, new in ((live, tried), (tried, live)):
            assert len(watches.affected(old, new)) == len(QUESTIONS)
        assert watches.affected(tried, tried) == set()


def test_of_five_thousand_watches_only_those_concerned_are_woken() -> None:
    scribe = Scribe()
    scribe.policy(BASE)
    cell = Cell(scribe.world)
    watches = Watches(cell)  # type: ignore[arg-type]
    with ExitStack() as stack:
        events = many(watches, stack, 5_000)

        def woken(world: World) -> int:
            cell.become(world)
            number = sum(event.is_set() for event in events)
            for event in events:
                event.clear()
            return number

        assert woken(scribe.lock("one", {"kind": "principal", "principal": "user:u7@x"})) == 1
        assert woken(scribe.lock("two", {"kind": "resource", "resource": "dataset/finance/d7"})) == 50
        assert woken(scribe.lock("three", {"kind": "principal", "principal": "user:stranger@x"})) == 0
        assert woken(scribe.assets(**{"dataset/finance/d3": {"environment": "dev"}})) == 50
        rows = BASE + "g, user:u9@x, role:reader, *\n"
        assert woken(scribe.policy(rows)) == 1
        rows += "p, role:reader, dataset.read, dataset/finance/d5, *, , , deny\n"
        assert woken(scribe.policy(rows)) == 50
        assert woken(replace(scribe.world, policy=None)) == 5_000
    assert len(watches) == 0
    assert not watches._by_name
    assert not watches._by_resource
