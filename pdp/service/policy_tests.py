"""Runs a pack's own tests through `decide`: the world is the pack, what the test gives on top, and nothing else.

A question without a `workload` is about grants: the test lets it pass segmentation. `workload: none` asks as a caller that
has no workload identity, and any other as that workload. Time stands still at `at`, or at the start of 2026.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Final

from pdp.decide import SEGMENTATION, decide
from pdp.engine.casbin_text import Context, Row
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.pack import Pack, PackTest
from pdp.errors import PortcullisError, Reason
from pdp.inventory import Asset
from pdp.model.attributes import instant_ms
from pdp.model.decision import Decision
from pdp.model.names import NO_SEGMENT, Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.world import Policy, World, empty_world, make_asset

_START: Final = "2026-01-01T00:00:00Z"
_NO_WORKLOAD: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """What became of one test of a pack."""

    __test__: ClassVar[bool] = False  # not a test class, whatever pytest takes its name for

    name: str
    passed: bool
    expected: str
    actual: str
    file: str
    line: int
    determining: tuple[str, ...] = ()
    """Ids of the rows that decided, whether as wanted or not."""


def uncovered(snapshot: Snapshot, results: Iterable[TestResult]) -> tuple[Row, ...]:
    """Return the rules of `snapshot` that decided in no passing test, in the order of their places."""
    decided = {rule for result in results if result.passed for rule in result.determining}
    rules = (rule.row for context in snapshot.contexts.values() for rule in context.rules)
    return tuple(sorted((row for row in rules if row.id not in decided), key=lambda row: (row.file, row.line)))


def run_tests(pack: Pack, snapshot: Snapshot) -> tuple[TestResult, ...]:
    """Return the result of each test of `pack` under the compiled policy `snapshot`."""
    world = pack_world(pack, snapshot)
    return tuple(_run(world, test) for test in pack.tests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a test asks, of which world, and when."""

    test: PackTest
    world: World
    question: Question
    now_ms: int


def questions_of(pack: Pack, snapshot: Snapshot) -> Iterator[Asked]:
    """Yield what each test of `pack` asks; a test whose rows do not compile asks nothing."""
    base = pack_world(pack, snapshot)
    for test in pack.tests:
        try:
            yield Asked(
                test=test,
                world=_given(base, test),
                question=_question(test.ask),
                now_ms=instant_ms(test.ask.get("at", _START)),
            )
        except PortcullisError:
            continue  # `run_tests` tells why


def pack_world(pack: Pack, snapshot: Snapshot) -> World:
    """Return a world of the pack's policy and the assets that it seeds."""
    return _with_assets(_world(pack, snapshot), [(seed.name, seed.attributes) for seed in pack.assets])


def _run(world: World, test: PackTest) -> TestResult:
    want = test.want
    expected = " ".join(
        (
            want["effect"],
            *((want["reason"],) if "reason" in want else ()),
            *((f"by {want['by']}",) if "by" in want else ()),
        )
    )
    try:
        decision = decide(_given(world, test), _question(test.ask), instant_ms(test.ask.get("at", _START)))
    except PortcullisError as error:
        return _result(test, expected, actual=error.message, passed=False)
    actual = f"{decision.effect.name.lower()} {decision.reason.value}"
    if decision.determining:
        actual += f" by {', '.join(decision.determining)}"
    result = _result(test, expected, actual=actual, passed=_as_wanted(decision, want))
    return replace(result, determining=decision.determining)


def _result(test: PackTest, expected: str, *, actual: str, passed: bool) -> TestResult:
    return TestResult(name=test.name, passed=passed, expected=expected, actual=actual, file=test.file, line=test.line)


def _as_wanted(decision: Decision, want: Mapping[str, Any]) -> bool:
    duties = tuple(str(duty) for duty in decision.obligations)
    return (
        decision.effect.name.lower() == want["effect"]
        and want.get("reason", decision.reason.value) == decision.reason.value
        and ("by" not in want or want["by"] in decision.determining)
        and tuple(sorted(want.get("obligations", duties))) == tuple(sorted(duties))
    )


def _question(ask: Mapping[str, Any]) -> Question:
    workload = ask.get("workload", _NO_WORKLOAD)
    return Question(
        subject=Party(principal=Principal.parse(ask["subject"]), groups=frozenset(ask.get("groups", ()))),
        actors=tuple(Party(principal=Principal.parse(actor)) for actor in ask.get("actors", ())),
        action=Action.parse(ask["action"]),
        resource=Resource.parse(ask["resource"]),
        workload=None if workload == _NO_WORKLOAD else Principal.parse(workload),
        serves=Resource.parse(ask["serves"]) if "serves" in ask else None,
        attributes={_attribute(name): value for name, value in ask.get("attributes", {}).items()},
        supports=frozenset(ask["supports"]) if "supports" in ask else None,
    )


def _world(pack: Pack, snapshot: Snapshot) -> World:
    policy = Policy(
        model_text=pack.model_text, vocabulary_text=pack.vocabulary_text, snapshot=snapshot, revision="test"
    )
    return replace(empty_world("test"), policy=policy)


def _with_assets(world: World, assets: list[tuple[str, Mapping[str, Any]]]) -> World:
    known: dict[str, Asset] = dict(world.assets)
    for name, attributes in assets:
        asset = make_asset(world, name, attributes)
        known[str(asset.resource)] = asset
    return replace(world, assets=MappingProxyType(known))


def _given(world: World, test: PackTest) -> World:
    """Return the pack's world with the rows and assets that the test gives.

    Raises:
        PortcullisError: they make no valid world; the message is the first finding.
    """
    world = _with_assets(world, list(test.assets.items()))
    policy = world.policy
    if policy is None:
        return world
    old = policy.snapshot
    given = [Row(section, tuple(fields), test.file, test.line) for section, *fields in test.rows]
    compiled = compile_policy(old.model, old.vocabulary, [*old.rows, *given, *_passage(world, test)])
    if not isinstance(compiled, Snapshot):
        raise _refused(compiled[0].message)
    return replace(world, policy=replace(policy, snapshot=compiled))


def _refused(message: str) -> PortcullisError:
    return PortcullisError(Reason.POLICY_REFUSED, f"the given rows do not compile: {message}")


def _passage(world: World, test: PackTest) -> list[Row]:
    """Return a row that lets a question without a workload pass segmentation, which it is not about."""
    snapshot = world.snapshot
    context = snapshot.model.contexts.get(SEGMENTATION) if snapshot else None
    asset = world.asset(Resource.parse(test.ask["resource"]))
    if context is None or asset is None or "workload" in test.ask:
        return []
    placed = snapshot.groups_of("g3", str(asset.resource), instant_ms(_START)) if snapshot else frozenset()
    target = asset.segment or next(iter(sorted(placed)), NO_SEGMENT)
    return [Row(context.section, _passing(context, target), "(test)", test.line)]


def _passing(context: Context, target: str) -> tuple[str, ...]:
    written = {"src": NO_SEGMENT, "act": "*", "dst": target, "eft": "allow"}
    return tuple(written.get(name, "") for name in context.policy)


def _attribute(name: str) -> str:
    """Return the attribute that a test means: what a change touches by its full name, else one of the request."""
    return name if name.startswith("change.") else f"request.{name}"
