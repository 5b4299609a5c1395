"""What is known of each rule of any matcher while some attributes are not: every truth that it could yet have.

In the model we ship a rule matches or not, and only its own condition waits for attributes (`possible.py`). Elsewhere a
condition may stand anywhere within the matcher. Such a matcher is evaluated once for each truth that its open conditions
could have; a rule in which two different conditions are open may have any truth. That never claims too much: a truth that
is left out cannot come about.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pdp.engine.casbin_text import EffectRule
from pdp.engine.compiler import Rule, Snapshot
from pdp.engine.conditions import Condition
from pdp.engine.evaluate import EngineRequest, in_order, truths
from pdp.engine.functions import Truth, kleene_and
from pdp.engine.question import refusal
from pdp.model.listed import Access

Open = Callable[[str], bool]
"""Tells whether an attribute is one that only the question will bring."""
_ANY: frozenset[Truth] = frozenset({True, False, None})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRule:
    """A rule, the truths that it could have, and the open conditions on which that depends.

    `matches` is what the matcher says of it for each truth of its one open condition, empty if there are more.
    """

    rule: Rule
    truths: frozenset[Truth]
    waits_for: tuple[Condition, ...]
    matches: tuple[Truth, ...]

    @property
    def held(self) -> bool:
        """Whether it counts, whatever comes: an allow that holds, a deny that holds or cannot be ruled out."""
        return self.truths == {True} if self.rule.allow else False not in self.truths

    @property
    def open(self) -> bool:
        """Whether it may count."""
        return not self.held and (True in self.truths or (not self.rule.allow and None in self.truths))


def is_open(condition: Condition, request: EngineRequest, open_: Open, now_ms: int) -> bool:
    """Tell whether a condition cannot be said to hold or not, because it reads what only the question will bring."""
    if not any(open_(name) and name not in request.attributes for name, _ in condition.reads):
        return False
    return condition.holds(request.attributes, now_ms) is None


def open_rules(
    snapshot: Snapshot, request: EngineRequest, open_: Open, now_ms: int, *, at_any_time: bool = False
) -> tuple[OpenRule, ...] | None:
    """Return what could match, in the order in which rules decide; None if no rule is asked: the question is refused.

    With `at_any_time` a condition that reads the clock is open too.
    """
    compiled = snapshot.contexts.get(request.context)
    if compiled is None or len(request.values) != len(compiled.context.request):
        return None
    if refusal(snapshot.model, snapshot.role_names, request) is not None:
        return None

    def waiting(condition: Condition) -> bool:
        return (at_any_time and condition.reads_now) or is_open(condition, request, open_, now_ms)

    def assumed(guess: Truth) -> dict[Rule, Truth] | None:
        return truths(
            snapshot,
            request,
            now_ms,
            lambda condition: guess if waiting(condition) else condition.holds(request.attributes, now_ms),
        )

    guesses = (True, False, None) if any(map(waiting, _within(compiled.rules))) else (True,)
    worlds = [world for guess in guesses if (world := assumed(guess)) is not None]
    if len(worlds) < len(guesses):
        return None  # it takes more steps than a decision may, which denies
    rules = sorted(dict.fromkeys(rule for world in worlds for rule in world), key=in_order)
    seen = (_seen(rule, [world.get(rule, False) for world in worlds], waiting, request, now_ms) for rule in rules)
    return tuple(each for each in seen if each.truths != {False})


def _within(rules: Iterable[Rule]) -> Iterator[Condition]:
    """Yield the conditions that stand within the matcher, beside each rule's own."""
    for rule in rules:
        for condition in rule.compiled.conditions.values() if rule.compiled else ():
            if isinstance(condition, Condition):
                yield condition


def _seen(
    rule: Rule, matched: list[Truth], waiting: Callable[[Condition], bool], request: EngineRequest, now_ms: int
) -> OpenRule:
    within = [condition for condition in _within((rule,)) if waiting(condition)]
    entangled = len({condition.text for condition in within}) > 1
    matches = _ANY if entangled else frozenset(matched)
    own: frozenset[Truth] = frozenset({True})
    if rule.condition is not None:
        own = _ANY if waiting(rule.condition) else frozenset({rule.condition.holds(request.attributes, now_ms)})
        within.extend([rule.condition] if own == _ANY else [])
    found = frozenset(kleene_and(pair) for pair in ((match, verdict) for match in matches for verdict in own))
    return OpenRule(
        rule=rule,
        truths=found,
        waits_for=tuple(within) if len(found) > 1 else (),
        matches=() if entangled else tuple(matched) if len(set(matched)) > 1 else (matched[0],),
    )


def first_that_decides(rules: Iterable[OpenRule]) -> tuple[Access, tuple[OpenRule, ...]]:
    """Return what an ordered effect could answer, and the rules that could decide."""
    answers: set[Access] = set()
    deciding: list[OpenRule] = []
    for each in rules:
        if each.held or each.open:
            answers.add(Access.ALLOW if each.rule.allow else Access.DENY)
            deciding.append(each)
        if each.held:
            break
    else:
        answers.add(Access.DENY)
    access = answers.pop() if len(answers) == 1 else Access.CONDITIONAL
    return access, tuple(deciding)


def weighed(rules: Iterable[OpenRule], effect: EffectRule) -> tuple[Access, tuple[OpenRule, ...]]:
    """Return what an effect without an order could answer, and the rules that could decide."""
    found = tuple(rules)
    allowing = [each for each in found if each.rule.allow]
    denying = [each for each in found if not each.rule.allow and effect is not EffectRule.ALLOW_OVERRIDE]
    if any(each.held for each in denying):
        return Access.DENY, ()
    held = [each for each in allowing if each.held]
    doubts = [each for each in denying if each.open]
    if held or effect is EffectRule.DENY_OVERRIDE:
        return Access.CONDITIONAL if doubts else Access.ALLOW, (*held, *doubts)
    hopes = [each for each in allowing if each.open]
    return Access.CONDITIONAL if hopes else Access.DENY, (*hopes, *doubts)
