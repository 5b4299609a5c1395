"""`evaluate(snapshot, request, now)`: one question to one context of the policy. Pure, total, and flat in the number of rules.

Theory of operation. The steps of the plan (`index.py`) narrow the index to the rules whose every indexed conjunct holds;
only their conditions are then evaluated. The effect follows from what is left, never from the order of rows:

    a deny row that holds            -> deny, denied_by_rule
    else a deny row that errs        -> deny, condition_error   (a deny that cannot be ruled out counts)
    else allow rows that hold        -> allow, granted, their obligations merged to the stricter
    else an allow row that errs      -> deny, condition_error   (it grants nothing, and the reason says why)
    else                             -> deny, no_grant

The executable specification of all this is `reference.py`.

INVARIANT: nothing here raises for a well-typed request; a name that matches nothing is a deny.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp.engine.casbin_text import EffectRule
from pdp.engine.compiler import CompiledContext, Rule, Snapshot
from pdp.engine.functions import ANY
from pdp.engine.obligations import merge
from pdp.engine.plan import Term
from pdp.errors import Reason
from pdp.model.attributes import Attributes
from pdp.model.decision import Effect, Obligation


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One question to one context of the policy.

    `context` is the suffix of the set that answers: "" is r/p/e/m, "2" is r2/p2/e2/m2. `values` are canonical names in the
    order of the request definition. `memberships` gives, for a field of the request, further names that stand for it in
    role graphs: the groups of a subject, the segment of an asset. A missing attribute is a condition error.
    """

    context: str
    values: tuple[str, ...]
    memberships: Mapping[str, tuple[str, ...]]
    attributes: Attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one context answers.

    `determining` are ids of the rows that decided, `role_path` leads from the subject to the first one's role.
    `valid_until_ms` is the next instant at which a link with a start or an end may change the answer; `reads_now` tells
    whether a condition that was evaluated reads the clock.
    """

    effect: Effect
    reason: Reason
    obligations: tuple[Obligation, ...] = ()
    determining: tuple[str, ...] = ()
    role_path: tuple[str, ...] = ()
    valid_until_ms: int | None = None
    reads_now: bool = False


_NO_GRANT: Final = Outcome(effect=Effect.DENY, reason=Reason.NO_GRANT)


def evaluate(snapshot: Snapshot, request: EngineRequest, now_ms: int) -> Outcome:
    """Return what the policy answers to `request` at wall-clock time `now_ms` (milliseconds since the epoch)."""
    compiled = snapshot.contexts.get(request.context)
    if compiled is None or len(request.values) != len(compiled.context.request):
        return _NO_GRANT
    case = _Case(snapshot, compiled, request, now_ms)
    rules = case.candidates()
    if rules:
        return case.judge(rules)
    if case.until is None:
        return _NO_GRANT
    return Outcome(effect=Effect.DENY, reason=Reason.NO_GRANT, valid_until_ms=case.until)


class _Case:
    """One evaluation; lives no longer than the call."""

    __slots__ = ("_compiled", "_now_ms", "_request", "_snapshot", "reads_now", "until")

    def __init__(self, snapshot: Snapshot, compiled: CompiledContext, request: EngineRequest, now_ms: int) -> None:
        self._snapshot = snapshot
        self._compiled = compiled
        self._request = request
        self._now_ms = now_ms
        self.until: int | None = None
        self.reads_now = False

    # --- which rules -------------------------------------------------------------------------------------------------

    def candidates(self) -> list[Rule]:
        """Return the rules whose every indexed conjunct holds, each once."""
        values, standing = self._request.values, self.standing
        found: list[Any] = [self._compiled.root]
        for step in self._compiled.steps:
            found = step.advance(found, values, standing)
            if not found:
                return found
        if len(found) == 1:
            return list(found[0])
        # A row may be found by two of its keys (`dataset.read|*`): once is enough.
        return list(dict.fromkeys(rule for rules in found for rule in rules))

    def standing(self, term: Term) -> set[str]:
        """Return all that the request's name in a role test stands for, and note when that may change."""
        domain = ANY if term.domain is None else self._request.values[term.domain]
        standing, until = self._snapshot.graphs[term.section].standing(self._names(term), domain, self._now_ms)
        if until is not None and (self.until is None or until < self.until):
            self.until = until
        return standing

    def _names(self, term: Term) -> tuple[str, ...]:
        value = self._request.values[term.field]
        further = self._request.memberships.get(self._compiled.context.request[term.field])
        return (value, *further) if further else (value,)

    # --- what they decide --------------------------------------------------------------------------------------------

    def judge(self, rules: list[Rule]) -> Outcome:
        """Return the outcome that the candidates determine."""
        if self._compiled.context.effect is EffectRule.ALLOW_AND_DENY:
            held, erred = self._holding([rule for rule in rules if not rule.allow])
            if held:
                return self._outcome(Reason.DENIED_BY_RULE, held)
            if erred:
                return self._outcome(Reason.CONDITION_ERROR, erred)
        held, erred = self._holding([rule for rule in rules if rule.allow])
        if held:
            return self._grant(held)
        return self._outcome(Reason.CONDITION_ERROR if erred else Reason.NO_GRANT, erred)

    def _holding(self, rules: list[Rule]) -> tuple[list[Rule], list[Rule]]:
        """Return the rules whose condition holds, and those whose condition cannot be said to."""
        held: list[Rule] = []
        erred: list[Rule] = []
        for rule in rules:
            condition = rule.condition
            if condition is None:
                held.append(rule)
                continue
            self.reads_now = self.reads_now or condition.reads_now
            verdict = condition.holds(self._request.attributes, self._now_ms)
            if verdict is None:
                erred.append(rule)
            elif verdict:
                held.append(rule)
        return held, erred

    def _grant(self, held: list[Rule]) -> Outcome:
        # What one rule obliges to is merged with itself when it is parsed.
        obligations = held[0].obligations
        if len(held) > 1:
            merged = merge(duty for rule in held for duty in rule.obligations)
            if merged is None:
                return self._outcome(Reason.OBLIGATION_UNSUPPORTED, held)
            obligations = merged
        return self._outcome(Reason.GRANTED, held, obligations)

    def _outcome(self, reason: Reason, because: list[Rule], obligations: tuple[Obligation, ...] = ()) -> Outcome:
        if len(because) > 1:
            because.sort(key=_place)
        return Outcome(
            effect=Effect.ALLOW if reason is Reason.GRANTED else Effect.DENY,
            reason=reason,
            obligations=obligations,
            determining=tuple([rule.row.id for rule in because]),
            role_path=self._path(because[0]) if because else (),
            valid_until_ms=self.until,
            reads_now=self.reads_now,
        )

    def _path(self, rule: Rule) -> tuple[str, ...]:
        """Return the links from the subject to the role that `rule` names."""
        column = self._compiled.plan.subject
        if column is None:
            return ()
        term = column.terms[0]
        domain = ANY if term.domain is None else self._request.values[term.domain]
        graph = self._snapshot.graphs[term.section]
        return graph.path(self._names(term), rule.row.fields[column.position], domain, self._now_ms)


def _place(rule: Rule) -> tuple[str, int]:
    return rule.row.file, rule.row.line
