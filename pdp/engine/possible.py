"""What a policy could answer while some attributes are not known: always allow, never allow, or it depends.

`evaluate` takes a whole question. A list ("who can …") is asked before there is one: nobody knows yet for which purpose, or
from which address. So each condition has four values here: it holds, it does not, it errs, or it is *open*, because it
reads an attribute that only the question will bring. A condition that can be decided without that attribute is decided
(CEL's `&&` and `||` need only one side), and nothing else is guessed:

    ALLOW        every completion of the question is allowed
    DENY         no completion is
    CONDITIONAL  it depends on the open conditions, which are named

Law (tests/spec/test_search.py): `evaluate` agrees with the first two for whatever values the open attributes take.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pdp.engine.casbin_text import EffectRule
from pdp.engine.compiler import CompiledContext, Rule, Snapshot
from pdp.engine.evaluate import EngineRequest
from pdp.engine.functions import ANY
from pdp.engine.obligations import merge
from pdp.engine.open_rules import Open, first_that_decides, open_rules, weighed
from pdp.engine.plan import Term
from pdp.model.decision import Obligation
from pdp.model.listed import Access

__all__ = ["NEVER", "Open", "Possible", "matching", "possible"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Possible:
    """What a context could answer: on which conditions it depends, by which rows, with which obligations at least."""

    access: Access
    depends_on: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    role_path: tuple[str, ...] = ()
    obligations: tuple[Obligation, ...] = ()


NEVER: Final = Possible(access=Access.DENY)


def matching(snapshot: Snapshot, request: EngineRequest, now_ms: int) -> tuple[Rule, ...]:
    """Return the rules whose every conjunct but the condition holds for `request`, in the order of their places."""
    compiled = snapshot.contexts.get(request.context)
    if compiled is None or len(request.values) != len(compiled.context.request):
        return ()

    def standing(term: Term) -> set[str]:
        domain = ANY if term.domain is None else request.values[term.domain]
        return snapshot.graphs[term.section].standing(_names(compiled, request, term), domain, now_ms)[0]

    rules: list[Rule] = compiled.branches[0].search.rules(request.values, standing)
    return tuple(sorted(rules, key=lambda rule: (rule.row.file, rule.row.line)))


def _names(compiled: CompiledContext, request: EngineRequest, term: Term) -> tuple[str, ...]:
    field = compiled.context.request[term.field]
    return (request.values[term.field], *request.memberships.get(field, ()))


def possible(snapshot: Snapshot, request: EngineRequest, open_: Open, now_ms: int) -> Possible:
    """Return what the policy could answer to `request`, whose attributes for which `open_` is true are yet to come."""
    compiled = snapshot.contexts.get(request.context)
    if compiled is not None and not compiled.direct:
        return _possible_in_general(snapshot, compiled, request, open_, now_ms)
    rules = matching(snapshot, request, now_ms)
    if not rules:
        return NEVER
    allowing = _sorted([rule for rule in rules if rule.allow], request, open_, now_ms)
    if not allowing.held and not allowing.open:
        return NEVER
    denying = _Sorted()
    if snapshot.contexts[request.context].context.effect is EffectRule.ALLOW_AND_DENY:
        denying = _sorted([rule for rule in rules if not rule.allow], request, open_, now_ms)
    if denying.held or denying.erred:
        return NEVER
    obligations = merge(_duties(allowing.held)) if allowing.held else ()
    if obligations is None:
        return NEVER
    because = allowing.held or allowing.open
    return Possible(
        access=_access(allowing, denying),
        depends_on=tuple(sorted({rule.condition.text for rule in _deciding(allowing, denying) if rule.condition})),
        rules=tuple(rule.row.id for rule in (*because, *denying.open)),
        role_path=_path(snapshot, request, because[0], now_ms),
        obligations=obligations,
    )


def _possible_in_general(
    snapshot: Snapshot, compiled: CompiledContext, request: EngineRequest, open_: Open, now_ms: int
) -> Possible:
    """Return the same for any matcher and effect: what each rule could yet be, combined as the effect says."""
    found, effect = open_rules(snapshot, request, open_, now_ms), compiled.context.effect
    if found is None:
        return NEVER
    access, deciding = first_that_decides(found) if effect.ordered else weighed(found, effect)
    held = [each.rule for each in deciding if each.rule.allow and each.held][: 1 if effect.ordered else None]
    obligations = merge(_duties(held))
    if access is Access.DENY or obligations is None:
        return NEVER
    hoped = [each for each in found if each.rule.allow and each.open]
    if not effect.ordered and held and merge(_duties((*held, *(each.rule for each in hoped)))) is None:
        access, deciding = Access.CONDITIONAL, (*deciding, *hoped)
    because = held or [each.rule for each in deciding]
    waits_for = {condition.text for each in deciding for condition in each.waits_for}
    return Possible(
        access=access,
        depends_on=tuple(sorted(waits_for)) if access is Access.CONDITIONAL else (),
        rules=tuple(each.rule.row.id for each in deciding),
        role_path=_path(snapshot, request, because[0], now_ms) if because else (),
        obligations=obligations,
    )


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Rules by what is known of their conditions; those that do not hold are left out."""

    held: tuple[Rule, ...] = ()
    erred: tuple[Rule, ...] = ()
    open: tuple[Rule, ...] = ()


def _sorted(rules: Iterable[Rule], request: EngineRequest, open_: Open, now_ms: int) -> _Sorted:
    held: list[Rule] = []
    erred: list[Rule] = []
    waiting: list[Rule] = []
    for rule in rules:
        verdict = rule.condition.holds(request.attributes, now_ms) if rule.condition else True
        if verdict:
            held.append(rule)
        elif verdict is None and rule.condition:
            reads_open = any(open_(name) and name not in request.attributes for name, _ in rule.condition.reads)
            (waiting if reads_open else erred).append(rule)
    return _Sorted(tuple(held), tuple(erred), tuple(waiting))


def _access(allowing: _Sorted, denying: _Sorted) -> Access:
    return Access.CONDITIONAL if _deciding(allowing, denying) else Access.ALLOW


def _deciding(allowing: _Sorted, denying: _Sorted) -> tuple[Rule, ...]:
    """Return the open rules on which the effect depends; with a grant that holds, further grants change only its duties."""
    if not allowing.held:
        return (*allowing.open, *denying.open)
    # A further grant whose duty contradicts those that hold turns the allow into a refusal.
    clashing = () if merge(_duties((*allowing.held, *allowing.open))) is not None else allowing.open
    return (*clashing, *denying.open)


def _duties(rules: Iterable[Rule]) -> Iterable[Obligation]:
    return (duty for rule in rules for duty in rule.obligations)


def _path(snapshot: Snapshot, request: EngineRequest, rule: Rule, now_ms: int) -> tuple[str, ...]:
    compiled = snapshot.contexts[request.context]
    column = compiled.plan.subject
    if column is None:
        return ()
    term = column.terms[0]
    domain = ANY if term.domain is None else request.values[term.domain]
    if type(domain) is not str or type(request.values[term.field]) is not str:
        return ()
    graph = snapshot.graphs[term.section]
    return graph.path(_names(compiled, request, term), rule.row.fields[column.position], domain, now_ms)
