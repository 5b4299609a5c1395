"""`evaluate(snapshot, request, now)`: one question to one context of the policy. Pure, total, and flat in the number of rules.

Theory of operation. The steps of the plan (`index.py`) narrow the index to the rules whose every indexed conjunct holds;
only their conditions are then evaluated. The effect follows from what is left, never from the order of rows:

    a deny row that holds            -> deny, denied_by_rule
    else a deny row that errs        -> deny, condition_error   (a deny that cannot be ruled out counts)
    else allow rows that hold        -> allow, granted, their obligations merged to the stricter
    else an allow row that errs      -> deny, condition_error   (it grants nothing, and the reason says why)
    else                             -> deny, no_grant

Under an ordered effect (`priority`, `subjectPriority`) rows are looked at in their order, and the first that decides does:
an allow row that holds allows, a deny row that holds or errs denies, an allow row that errs is passed over.

A model that is not the one we ship may have several branches, each with what only reads the request (guards) and what
must be evaluated on the candidates (residual). A value that cannot be looked up, because it is not of the kind that the
matcher compares, is an error of that comparison, and not a miss: then the whole matcher is evaluated on every rule. How
many evaluations one decision may make is bounded.

The executable specification of all this is `reference.py`.

INVARIANT: nothing here raises for a well-typed request; a name that matches nothing is a deny.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from pdp.engine.casbin_text import EffectRule, Row
from pdp.engine.closures import Test
from pdp.engine.compiler import CompiledBranch, CompiledContext, Rule, Snapshot
from pdp.engine.conditions import Condition
from pdp.engine.functions import ANY, Truth, kleene_and, kleene_or
from pdp.engine.index import asked
from pdp.engine.obligations import merge
from pdp.engine.patterns import parse_address
from pdp.engine.plan import Term
from pdp.engine.question import EngineRequest, refusal
from pdp.errors import Reason
from pdp.limits import MAX_DECISION_STEPS
from pdp.model.decision import Effect, Obligation

__all__ = ["EngineRequest", "Outcome", "evaluate"]


class Outcome(NamedTuple):
    """What one context answers. A named tuple: it is made in a third of the time of a frozen dataclass (0.3 of 0.9 us).

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


NO_RULE: Final = Rule(Row("", (), "", 0), allow=False, condition=None, obligations=())
"""What guards are given: they read the request alone."""
_ALLOW: Final = Effect.ALLOW  # a member of an enumeration takes 50 ns to look up
_GRANTED: Final = Reason.GRANTED
_NO_GRANT: Final = Outcome(effect=Effect.DENY, reason=Reason.NO_GRANT)


def evaluate(snapshot: Snapshot, request: EngineRequest, now_ms: int) -> Outcome:
    """Return what the policy answers to `request` at wall-clock time `now_ms` (milliseconds since the epoch)."""
    compiled = snapshot.contexts.get(request.context)
    if compiled is None or len(request.values) != len(compiled.context.request):
        return _NO_GRANT
    if snapshot.model.plain:
        refused = refusal(snapshot.model, snapshot.role_names, request)
        if refused is not None:
            return Outcome(effect=Effect.DENY, reason=refused)
    case = _Case(snapshot, compiled, request, now_ms)
    if not compiled.direct:
        return case.general()
    rules: list[Rule] = compiled.branches[0].search.rules(request.values, case.standing)
    if len(rules) == 1 and rules[0].condition is None and rules[0].allow:
        return case.granted(rules[0])
    return case.judge(rules) if rules else case.nothing()


class _Case:
    """One evaluation; lives no longer than the call."""

    __slots__ = ("_compiled", "_known", "_request", "_snapshot", "_steps", "now_ms", "reads_now", "until", "values")

    def __init__(self, snapshot: Snapshot, compiled: CompiledContext, request: EngineRequest, now_ms: int) -> None:
        self._snapshot = snapshot
        self._compiled = compiled
        self._request = request
        self.now_ms = now_ms
        self.values = request.values
        self.until: int | None = None
        self.reads_now = False

    # --- which rules -------------------------------------------------------------------------------------------------

    def general(self) -> Outcome:
        """Return the outcome of a matcher of several branches, of residuals, or of an ordered effect."""
        self.reads_now = self._compiled.reads_now
        truths = self.truths()
        if truths is None:
            return self._outcome(Reason.BUDGET_EXCEEDED, [])
        matched = [rule for rule, truth in truths.items() if truth is not False]
        unsure = frozenset(rule for rule in matched if truths[rule] is None)
        if self._compiled.context.effect.ordered:
            return self._first(sorted(matched, key=in_order), unsure)
        return self.judge(matched, unsure)

    def forget(self) -> None:
        """Begin with no step taken and no name followed: only a general matcher needs either."""
        self._known: dict[tuple[str, tuple[int | None, object], str], set[str]] = {}
        self._steps = 0

    def truths(self) -> dict[Rule, Truth] | None:
        """Return what the matcher says of each rule that some branch finds; None if that would take too many steps."""
        self.forget()
        truths: dict[Rule, Truth] = {}
        for branch in self._compiled.branches:
            guard = kleene_and(test(self, NO_RULE) for test in branch.guards)
            if guard is False:
                continue
            rules: Sequence[Rule]
            if self.typed(branch):
                rules, tests = branch.search.rules(self.values, self.standing), branch.residual
            else:
                rules, tests = self._compiled.rules, branch.whole
            if not self._visit(rules, tests, guard, truths):
                return None
        return truths

    def typed(self, branch: CompiledBranch) -> bool:
        """Tell whether every value that the index looks up is of the kind that it holds."""
        for term in branch.terms:
            value = asked(term, self.values)
            if type(value) is not str or (term.kind == "ipMatch" and parse_address(value) is None):
                return False
            if term.domain is not None and type(self.values[term.domain]) is not str:
                return False
        return True

    def _visit(self, rules: Iterable[Rule], tests: tuple[Test, ...], guard: Truth, truths: dict[Rule, Truth]) -> bool:
        """Add what a branch says of each rule; False if that would take too many steps."""
        for rule in rules:
            known = truths.get(rule, False)
            if known is True:
                continue
            if tests:
                self._steps += 1
                if self._steps > MAX_DECISION_STEPS:
                    return False
            truth = kleene_and((guard, *(test(self, rule) for test in tests)))
            truths[rule] = kleene_or((known, truth))
        return True

    def linked(self, section: str, name: tuple[int | None, object], role: str, domain: str) -> bool:
        """Tell whether a name stands for `role`; groups and segments count where it is a field of the request."""
        key = (section, name, domain)
        if key not in self._known:
            position, value = name
            field = "" if position is None else self._compiled.context.request[position]
            names = (str(value), *self._request.memberships.get(field, ()))
            self._known[key], until = self._snapshot.graphs[section].standing(names, domain, self.now_ms)
            self._note(until)
        return role in self._known[key]

    def condition(self, condition: object) -> Truth:
        """Return the truth of a condition that stands within a residual; a blank one holds."""
        if not isinstance(condition, Condition):
            return True
        self.reads_now = self.reads_now or condition.reads_now
        return condition.holds(self._request.attributes, self.now_ms)

    def _note(self, until: int | None) -> None:
        if until is not None and (self.until is None or until < self.until):
            self.until = until

    def standing(self, term: Term) -> set[str]:
        """Return all that the request's name in a role test stands for, and note when that may change."""
        domain = ANY if term.domain is None else self.values[term.domain]
        standing, until = self._snapshot.graphs[term.section].standing(self._names(term), domain, self.now_ms)
        self._note(until)
        return standing

    def _names(self, term: Term) -> tuple[str, ...]:
        value = self.values[term.field]
        if not self._request.memberships:
            return (value,)
        further = self._request.memberships.get(self._compiled.context.request[term.field])
        return (value, *further) if further else (value,)

    # --- what they decide --------------------------------------------------------------------------------------------

    def nothing(self) -> Outcome:
        """Return the outcome where no rule matches."""
        return _NO_GRANT if self.until is None else _NO_GRANT._replace(valid_until_ms=self.until)

    def granted(self, rule: Rule) -> Outcome:
        """Return the outcome of one grant without a condition: the usual allow, and half of the cost of `judge`."""
        path = self._path(rule)
        return Outcome(_ALLOW, _GRANTED, rule.obligations, (rule.row.id,), path, self.until)

    def judge(self, rules: list[Rule], unsure: frozenset[Rule] = frozenset()) -> Outcome:
        """Return the outcome that the candidates determine; of those in `unsure` it cannot be said that they match."""
        effect = self._compiled.context.effect
        if effect is not EffectRule.ALLOW_OVERRIDE:
            held, erred = self._holding([rule for rule in rules if not rule.allow], unsure)
            if held:
                return self._outcome(Reason.DENIED_BY_RULE, held)
            if erred:
                return self._outcome(Reason.CONDITION_ERROR, erred)
        held, erred = self._holding([rule for rule in rules if rule.allow], unsure)
        if held or effect is EffectRule.DENY_OVERRIDE:
            return self._grant(held)
        return self._outcome(Reason.CONDITION_ERROR if erred else Reason.NO_GRANT, erred)

    def _first(self, rules: list[Rule], unsure: frozenset[Rule]) -> Outcome:
        """Return the outcome of the first rule that decides (CASBIN.md section 1)."""
        passed: list[Rule] = []
        for rule in rules:
            held, erred = self._holding([rule], unsure)
            if held:
                return self._grant(held) if rule.allow else self._outcome(Reason.DENIED_BY_RULE, held)
            if erred and not rule.allow:
                return self._outcome(Reason.CONDITION_ERROR, erred)
            passed.extend(erred)
        return self._outcome(Reason.CONDITION_ERROR if passed else Reason.NO_GRANT, passed)

    def _holding(self, rules: list[Rule], unsure: frozenset[Rule] = frozenset()) -> tuple[list[Rule], list[Rule]]:
        """Return the rules whose condition holds, and those whose condition cannot be said to."""
        held: list[Rule] = []
        erred: list[Rule] = []
        for rule in rules:
            condition = rule.condition
            if condition is None:
                (erred if unsure and rule in unsure else held).append(rule)
                continue
            self.reads_now = self.reads_now or condition.reads_now
            verdict = condition.holds(self._request.attributes, self.now_ms)
            if verdict is None or (verdict and rule in unsure):
                erred.append(rule)
            elif verdict:
                held.append(rule)
        return held, erred

    def _grant(self, held: list[Rule]) -> Outcome:
        # What one rule obliges to is merged with itself when it is parsed.
        obligations = held[0].obligations if held else ()
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
            Effect.ALLOW if reason is Reason.GRANTED else Effect.DENY,
            reason,
            obligations,
            tuple([rule.row.id for rule in because]),
            self._path(because[0]) if because else (),
            self.until,
            self.reads_now,
        )

    def _path(self, rule: Rule) -> tuple[str, ...]:
        """Return the links from the subject to the role that `rule` names."""
        column = self._compiled.plan.subject
        if column is None:
            return ()
        term = column.terms[0]
        domain = ANY if term.domain is None else self.values[term.domain]
        if type(domain) is not str or type(self.values[term.field]) is not str:
            return ()
        graph = self._snapshot.graphs[term.section]
        return graph.path(self._names(term), rule.row.fields[column.position], domain, self.now_ms)


class _Assuming(_Case):
    """An evaluation in which somebody else says whether a condition within the matcher holds."""

    __slots__ = ("_assume",)

    def __init__(
        self,
        snapshot: Snapshot,
        compiled: CompiledContext,
        request: EngineRequest,
        now_ms: int,
        assume: Callable[[Condition], Truth],
    ) -> None:
        super().__init__(snapshot, compiled, request, now_ms)
        self._assume = assume

    def condition(self, condition: object) -> Truth:
        return self._assume(condition) if isinstance(condition, Condition) else True


def truths(
    snapshot: Snapshot, request: EngineRequest, now_ms: int, assume: Callable[[Condition], Truth]
) -> dict[Rule, Truth] | None:
    """Return what the matcher of a context says of its rules, the condition of a rule apart; a rule left out does not match.

    `assume` answers for the conditions within the matcher. None if that takes more steps than a decision may.
    """
    return _Assuming(snapshot, snapshot.contexts[request.context], request, now_ms, assume).truths()


def asker(snapshot: Snapshot, request: EngineRequest, now_ms: int) -> Callable[[Test, Rule], Truth]:
    """Return what answers a single test of the matcher about a rule: for explanations."""
    case = _Case(snapshot, snapshot.contexts[request.context], request, now_ms)
    case.forget()
    return lambda test, rule: test(case, rule)


def in_order(rule: Rule) -> tuple[int, str, int]:
    """Return the place of a rule where the first that decides does."""
    return rule.priority, rule.row.file, rule.row.line


def _place(rule: Rule) -> tuple[str, int]:
    return rule.row.file, rule.row.line
