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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp.engine.casbin_text import EffectRule
from pdp.engine.compiler import CompiledContext, Rule, Snapshot
from pdp.engine.functions import ANY
from pdp.engine.index import look_up, look_up_set, split_version
from pdp.engine.obligations import merge
from pdp.engine.plan import ROLE, Column, Term
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
    return (
        _NO_GRANT
        if case.until is None
        else Outcome(effect=Effect.DENY, reason=Reason.NO_GRANT, valid_until_ms=case.until)
    )


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
        found: list[Any] = [self._compiled.root]
        for column in self._compiled.plan.columns:
            found = self._step(column, found)
            if not found:
                return found
        rules = found[0] if len(found) == 1 else [rule for some in found for rule in some]
        return rules if len(rules) == 1 else list(dict.fromkeys(rules))

    def _step(self, column: Column, tables: list[Any]) -> list[Any]:
        """Carry the tables through one step of the index."""
        terms = column.terms
        if len(terms) == 1:
            term = terms[0]
            if term.kind == ROLE:
                return look_up_set(tables, self._standing(term))
            value = self._request.values[term.field]
            return look_up(tables, _KEYS[term.kind](value), value if term.kind == "resourceMatch" else None)
        keys: set[str] = set()
        name = None
        for term in terms:
            if term.kind == ROLE:
                keys |= self._standing(term)
                continue
            value = self._request.values[term.field]
            keys.update(_KEYS[term.kind](value))
            if term.kind == "resourceMatch":
                name = value
        return look_up(tables, keys, name)

    def _names(self, term: Term) -> tuple[str, ...]:
        value = self._request.values[term.field]
        further = self._request.memberships.get(self._compiled.context.request[term.field])
        return (value, *further) if further else (value,)

    def _standing(self, term: Term) -> set[str]:
        domain = ANY if term.domain is None else self._request.values[term.domain]
        standing, until = self._snapshot.graphs[term.section].standing(self._names(term), domain, self._now_ms)
        if until is not None and (self.until is None or until < self.until):
            self.until = until
        return standing

    # --- what they decide --------------------------------------------------------------------------------------------

    def judge(self, rules: Iterable[Rule]) -> Outcome:
        """Return the outcome that the candidates determine."""
        if self._compiled.context.effect is EffectRule.ALLOW_AND_DENY:
            held, erred = self._holding(rules, allow=False)
            if held:
                return self._refuse(Reason.DENIED_BY_RULE, held)
            if erred:
                return self._refuse(Reason.CONDITION_ERROR, erred)
        held, erred = self._holding(rules, allow=True)
        if held:
            return self._grant(held)
        return self._refuse(Reason.CONDITION_ERROR if erred else Reason.NO_GRANT, erred)

    def _holding(self, rules: Iterable[Rule], *, allow: bool) -> tuple[list[Rule], list[Rule]]:
        """Return the rules of one effect whose condition holds, and those whose condition cannot be said to."""
        held: list[Rule] = []
        erred: list[Rule] = []
        for rule in rules:
            if rule.allow is not allow:
                continue
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
        obligations = merge(duty for rule in held for duty in rule.obligations)
        if obligations is None:
            return self._refuse(Reason.OBLIGATION_UNSUPPORTED, held)
        return self._outcome(Effect.ALLOW, Reason.GRANTED, held, obligations)

    def _refuse(self, reason: Reason, because: list[Rule]) -> Outcome:
        return self._outcome(Effect.DENY, reason, because, ())

    def _outcome(
        self, effect: Effect, reason: Reason, because: list[Rule], obligations: tuple[Obligation, ...]
    ) -> Outcome:
        if len(because) > 1:
            because.sort(key=_place)
        return Outcome(
            effect=effect,
            reason=reason,
            obligations=obligations,
            determining=tuple([rule.row.id for rule in because]),
            role_path=self._path(because[0]) if because else (),
            valid_until_ms=self.until,
            reads_now=self.reads_now,
        )

    def _path(self, rule: Rule) -> tuple[str, ...]:
        """Return the links from the subject to the role that `rule` names."""
        for column in self._compiled.plan.columns:
            term = column.terms[0]
            if term.kind == ROLE and len(column.terms) == 1:
                domain = ANY if term.domain is None else self._request.values[term.domain]
                graph = self._snapshot.graphs[term.section]
                return graph.path(self._names(term), rule.row.fields[column.position], domain, self._now_ms)
        return ()


def _place(rule: Rule) -> tuple[str, int]:
    return rule.row.file, rule.row.line


def _action_keys(action: str) -> tuple[str, ...]:
    return (action, f"{action.partition('.')[0]}.*", ANY)


def _resource_keys(resource: str) -> tuple[str, ...]:
    base, version = split_version(resource)
    return (resource, base) if version else (resource,)


_KEYS: Final = {
    "==": lambda value: (value,),
    "actionMatch": _action_keys,
    "envMatch": lambda value: (value, ANY),
    "resourceMatch": _resource_keys,
}
"""For each function, every text of a row that it accepts for a value; patterns of resources are found in tries."""
