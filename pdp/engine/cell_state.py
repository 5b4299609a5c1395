"""What the rules that match a cell of a comparison say together: equal states answer equally, whatever a question brings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pdp.engine.casbin_text import EffectRule
from pdp.engine.compiler import Rule, Snapshot
from pdp.engine.conditions import Condition
from pdp.engine.evaluate import EngineRequest, evaluate
from pdp.engine.obligations import merge
from pdp.engine.open_rules import OpenRule, open_rules
from pdp.model.decision import Obligation


@dataclass(frozen=True, slots=True)
class State:
    """What a cell's rules say, without those that cannot matter.

    `allows` are condition and obligations of the grants, None where those that always hold contradict each other.
    """

    denied: bool
    allows: frozenset[tuple[str, tuple[Obligation, ...] | None]]
    denies: frozenset[str]
    conditions: tuple[Condition, ...] = field(compare=False)
    told: tuple[object, ...] = ()
    """Under any other matcher: the answer, or what each rule could yet be, in the order in which they decide."""


NOTHING: Final = State(denied=False, allows=frozenset(), denies=frozenset(), conditions=())


def state_of(rules: Sequence[Rule], effect: EffectRule) -> State:
    """Return the state of a cell that `rules` match, where a rule waits for its own condition alone."""
    denying = [rule for rule in rules if not rule.allow] if effect is EffectRule.ALLOW_AND_DENY else []
    allowing = [rule for rule in rules if rule.allow]
    if any(rule.condition is None for rule in denying):
        return State(denied=True, allows=frozenset(), denies=frozenset(), conditions=())
    held = merge(duty for rule in allowing if rule.condition is None for duty in rule.obligations)
    always = any(rule.condition is None for rule in allowing)
    kept = [rule for rule in allowing if rule.condition is not None and not (always and _adds_nothing(rule, held))]
    allows: set[tuple[str, tuple[Obligation, ...] | None]] = {(_text(rule), rule.obligations) for rule in kept}
    if always:
        allows.add(("", held))
    return State(
        denied=False,
        allows=frozenset(allows),
        denies=frozenset(_text(rule) for rule in denying),
        conditions=tuple(rule.condition for rule in (*kept, *denying) if rule.condition),
    )


def general_state(snapshot: Snapshot, request: EngineRequest, now_ms: int) -> State:
    """Return the state of a cell under a matcher of branches, residuals or an ordered effect."""
    compiled = snapshot.contexts[request.context]
    conditional = bool(compiled.context.condition_columns)
    found = open_rules(snapshot, request, lambda _: True, now_ms, at_any_time=True) if conditional else None
    rules = found or ()
    waits_for = tuple(condition for each in rules for condition in each.waits_for)
    outcome = evaluate(snapshot, request, now_ms)
    told: tuple[object, ...] = (outcome.effect, outcome.reason, outcome.obligations)
    if waits_for:
        context = compiled.context
        each_told = tuple(_told(each, snapshot.digest) for each in rules)
        told = (context.effect, context.matcher, each_told if context.effect.ordered else frozenset(each_told))
    return State(denied=False, allows=frozenset(), denies=frozenset(), conditions=waits_for, told=told)


def _told(each: OpenRule, policy: bytes) -> tuple[object, ...]:
    """Return all that decides what a rule could yet be; where conditions are entangled, only the same policy is the same."""
    waits_for = tuple(sorted(condition.text for condition in each.waits_for))
    known = each.matches or (policy,)
    return each.rule.allow, each.truths, waits_for, known, each.rule.condition in each.waits_for, each.rule.obligations


def _text(rule: Rule) -> str:
    return rule.condition.text if rule.condition else ""


def _adds_nothing(rule: Rule, held: tuple[Obligation, ...] | None) -> bool:
    """Tell whether a conditional grant changes nothing beside grants that always hold."""
    return held is None or merge((*held, *rule.obligations)) == held
