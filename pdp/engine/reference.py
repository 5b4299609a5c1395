"""The executable specification: what a policy answers, written to be read. Slow, obvious, and the judge of `evaluate.py`.

It walks every row, evaluates the whole matcher on it, and combines the effects. It shares the parser's tree, the matching
functions and the conditions with the engine, and nothing of compiler, plan, role closure or index.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pdp.engine.casbin_text import OPEN, Context, EffectRule, Model, Row
from pdp.engine.conditions import Conditions
from pdp.engine.expression import And, Call, Compare, Expression, Field, In, Literal, Not, Or
from pdp.engine.functions import ANY, FUNCTIONS, member_match
from pdp.errors import Reason
from pdp.model.attributes import Attributes, instant_ms
from pdp.model.decision import Effect
from pdp.model.vocabulary import Vocabulary


class Request(Protocol):
    """What is asked; `evaluate.EngineRequest` is one."""

    @property
    def context(self) -> str: ...  # noqa: D102 - the fields of `EngineRequest`
    @property
    def values(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def memberships(self) -> Mapping[str, tuple[str, ...]]: ...  # noqa: D102
    @property
    def attributes(self) -> Attributes: ...  # noqa: D102


def evaluate(
    model: Model, vocabulary: Vocabulary, rows: Sequence[Row], request: Request, now_ms: int
) -> tuple[Effect, Reason]:
    """Return effect and reason of the answer to `request` at `now_ms`."""
    context = model.contexts[request.context]
    case = _Case(model, Conditions(vocabulary), rows, request, now_ms, context)
    verdicts = [
        (_effect(row, context), case.truth(context.matcher, row)) for row in rows if row.section == context.section
    ]
    if context.effect is EffectRule.ALLOW_AND_DENY:
        if ("deny", True) in verdicts:
            return Effect.DENY, Reason.DENIED_BY_RULE
        if ("deny", None) in verdicts:
            return Effect.DENY, Reason.CONDITION_ERROR
    if ("allow", True) in verdicts:
        return Effect.ALLOW, Reason.GRANTED
    if ("allow", None) in verdicts:
        return Effect.DENY, Reason.CONDITION_ERROR
    return Effect.DENY, Reason.NO_GRANT


def _effect(row: Row, context: Context) -> str:
    return row.fields[context.policy.index("eft")] if "eft" in context.policy else "allow"


@dataclass(frozen=True, slots=True)
class _Case:
    model: Model
    conditions: Conditions
    rows: Sequence[Row]
    request: Request
    now_ms: int
    context: Context

    def truth(self, tree: Expression, row: Row) -> bool | None:  # noqa: PLR0911 - one line for each kind of node
        """Return whether `tree` holds for `row`; None if it cannot be said. `&&`, `||` and `!` are three-valued."""
        match tree:
            case And():
                return _all(self.truth(each, row) for each in tree.operands)
            case Or():
                return _not(_all(_not(self.truth(each, row)) for each in tree.operands))
            case Not():
                return _not(self.truth(tree.operand, row))
            case Compare():
                equal = self.value(tree.left, row) == self.value(tree.right, row)
                return {"==": equal, "!=": not equal}.get(tree.operator)
            case In():
                return self.value(tree.left, row) in [self.value(item, row) for item in tree.items]
            case Call(function="when"):
                return self.condition(str(self.value(tree.arguments[0], row)))
            case Call() if tree.function in self.model.roles:
                return self.linked(tree, row)
            case Call():
                first, second = (str(self.value(each, row)) for each in tree.arguments)
                return FUNCTIONS[tree.function](first, second)
            case _:
                return self.value(tree, row) is True

    def value(self, tree: Expression, row: Row) -> object:
        match tree:
            case Literal():
                return tree.value
            case Field() if tree.scope.startswith("r"):
                return self.request.values[self.context.request.index(tree.name)]
            case Field():
                return row.fields[self.context.policy.index(tree.name)]
            case _:
                return self.truth(tree, row)

    def condition(self, text: str) -> bool | None:
        return self.conditions.compiled(text).holds(self.request.attributes, self.now_ms) if text else True

    def linked(self, call: Call, row: Row) -> bool:
        """Follow the role links from the request's names until nothing new is reached."""
        name, role, *domain = (str(self.value(each, row)) for each in call.arguments)
        field = call.arguments[0]
        further = self.request.memberships.get(field.name, ()) if isinstance(field, Field) else ()
        reached = {name, *further}
        size = 0
        while len(reached) > size:
            size = len(reached)
            links = [link for link in self.rows if link.section == call.function and self.counts(link, domain)]
            reached |= {link.fields[1] for link in links if any(member_match(one, link.fields[0]) for one in reached)}
        return role in reached

    def counts(self, link: Row, domain: list[str]) -> bool:
        """Tell whether a link is of this domain, or of every one, and within its times (both bounds exclusive)."""
        places = self.model.roles[link.section].places
        start, end = link.fields[places:] or (OPEN, OPEN)
        begun = start == OPEN or instant_ms(start) < self.now_ms
        ended = end != OPEN and self.now_ms >= instant_ms(end)
        return begun and not ended and link.fields[2:places] in ((ANY,), tuple(domain))


def _all(truths: Iterable[bool | None]) -> bool | None:
    seen = set(truths)
    return False if False in seen else None if None in seen else True


def _not(truth: bool | None) -> bool | None:  # noqa: FBT001 - a truth value is what it negates
    return None if truth is None else not truth
