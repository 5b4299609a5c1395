"""The executable specification: what a policy answers, written to be read. Slow, obvious, and the judge of `evaluate.py`.

It walks every row, evaluates the whole matcher on it, and combines the effects. It shares the parser's tree, the matching
functions and the conditions with the engine, and nothing of compiler, plan, role closure or index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pdp.engine import functions
from pdp.engine.casbin_text import OPEN, Context, EffectRule, Model, Row
from pdp.engine.conditions import Conditions
from pdp.engine.expression import And, Call, Compare, Expression, Field, In, Literal, Not, Or, parse
from pdp.engine.functions import ANY, FUNCTIONS, Truth
from pdp.engine.patterns import within
from pdp.engine.question import EngineRequest, refusal
from pdp.errors import Reason
from pdp.model.decision import Effect
from pdp.model.vocabulary import Vocabulary


def evaluate(
    model: Model, vocabulary: Vocabulary, rows: Sequence[Row], request: EngineRequest, now_ms: int
) -> tuple[Effect, Reason]:
    """Return effect and reason of the answer to `request` at `now_ms`."""
    context = model.contexts[request.context]
    case = _Case(model, Conditions(vocabulary), rows, request, now_ms, context)
    refused = refusal(model, {row.fields[1] for row in rows if row.section == "g"}, request)
    if refused is not None:
        return Effect.DENY, refused
    ordered = sorted((row for row in rows if row.section == context.section), key=case.rank)
    verdicts = [(case.column(row, "eft", "allow"), case.truth(context.matcher, row)) for row in ordered]
    reason = _combined(context.effect, verdicts)
    return Effect.ALLOW if reason is Reason.GRANTED else Effect.DENY, reason


def _combined(effect: EffectRule, verdicts: list[tuple[str, Truth]]) -> Reason:
    """Combine effect and truth of each row; a deny that cannot be ruled out counts, an allow that may not hold does not."""
    answers = {
        ("deny", True): Reason.DENIED_BY_RULE, ("deny", None): Reason.CONDITION_ERROR,
        ("allow", True): Reason.GRANTED, ("allow", None): Reason.CONDITION_ERROR,
    }  # fmt: skip
    if effect.ordered:
        deciding = [answers[verdict] for verdict in verdicts if verdict[1] is not False and verdict != ("allow", None)]
        return (deciding or [Reason.CONDITION_ERROR if ("allow", None) in verdicts else Reason.NO_GRANT])[0]
    found = verdicts + [("allow", True)] * (effect is EffectRule.DENY_OVERRIDE)
    weighed = answers if effect is not EffectRule.ALLOW_OVERRIDE else (("allow", True), ("allow", None))
    return next((answers[verdict] for verdict in weighed if verdict in found), Reason.NO_GRANT)


@dataclass(frozen=True, slots=True)
class _Case:
    model: Model
    conditions: Conditions
    rows: Sequence[Row]
    request: EngineRequest
    now_ms: int
    context: Context

    def column(self, row: Row, name: str, default: str) -> str:
        return row.fields[self.context.policy.index(name)] if name in self.context.policy else default

    def rank(self, row: Row) -> tuple[int, str, int]:
        """Return the place of a row where the first that matches decides; elsewhere order means nothing."""
        if self.context.effect is EffectRule.SUBJECT_PRIORITY:
            return self.level(self.column(row, "dom", ""), self.column(row, "sub", "")), row.file, row.line
        number = self.column(row, "priority", "0") if self.context.effect is EffectRule.PRIORITY else "0"
        return int(number), row.file, row.line

    def level(self, domain: str, name: str) -> int:
        """Return the height of a subject above the leaves of the role graph."""
        section = self.context.hierarchy
        links = [row.fields for row in self.rows if row.section == section and row.fields[1] == name]
        here = [link for link in links if "".join(link[2 : self.model.roles[section].places]) == domain]
        return max((1 + self.level(domain, link[0]) for link in here), default=0)

    def truth(self, tree: Expression, row: Row) -> Truth:  # noqa: PLR0911 - one line for each kind of node
        """Return whether `tree` holds for `row`; None if it cannot be said. `&&`, `||` and `!` are three-valued."""
        match tree:
            case And():
                return functions.kleene_and(self.truth(each, row) for each in tree.operands)
            case Or():
                return functions.kleene_or(self.truth(each, row) for each in tree.operands)
            case Not():
                return functions.kleene_not(self.truth(tree.operand, row))
            case Compare():
                return functions.compare(tree.operator, self.value(tree.left, row), self.value(tree.right, row))
            case In():
                items = self.value(tree.source, row) if tree.source else [self.value(one, row) for one in tree.items]
                return functions.contains(items, self.value(tree.left, row))
            case Call():
                return self.called(tree, [self.value(each, row) for each in tree.arguments], row)
            case _:
                value = self.value(tree, row)
                return value if isinstance(value, bool) else None

    def value(self, tree: Expression, row: Row) -> Any:
        match tree:
            case Literal():
                return tree.value
            case Field() if tree.scope.startswith("r"):
                return functions.attribute(self.request.values[self.context.request.index(tree.name)], tree.rest)
            case Field():
                return row.fields[self.context.policy.index(tree.name)]
            case _:
                return self.truth(tree, row)

    def called(self, call: Call, arguments: list[Any], row: Row) -> Truth:
        if not all(isinstance(argument, str) for argument in arguments):
            return None
        match call.function:
            case "when":
                condition = arguments[0] and self.conditions.compiled(arguments[0])
                return condition.holds(self.request.attributes, self.now_ms) if condition else True
            case "eval":
                return self.truth(parse(arguments[0]), row)
            case "timeMatch":
                return within(arguments[0], arguments[1], self.now_ms)
            case section if section in self.model.roles:
                return self.linked(call, arguments)
            case function:
                return FUNCTIONS[function](arguments[0], arguments[1])

    def linked(self, call: Call, arguments: list[str]) -> bool:
        """Follow the role links from the request's names until nothing new is reached."""
        name, role, *domain = arguments
        reached = {name}
        match call.arguments[0]:
            case Field(scope=scope, name=field, rest=()) if scope.startswith("r"):
                reached |= {*self.request.memberships.get(field, ())}
        links = [row for row in self.rows if row.section == call.function and self.counts(row, domain)]
        for _ in links:
            reached |= {link.fields[1] for link in links if any(self.stands(link, one) for one in reached)}
        return role in reached

    def stands(self, link: Row, name: str) -> bool:
        """Tell whether the left side of a link is `name`, or a pattern of it."""
        role = self.model.roles[link.section]
        if not role.plain:
            return functions.member_match(name, link.fields[0])
        return name == link.fields[0] or (bool(role.matches) and FUNCTIONS[role.matches](name, link.fields[0]) is True)

    def counts(self, link: Row, domain: list[str]) -> bool:
        """Tell whether a link is of this domain, or of every one, and within its times (both bounds exclusive)."""
        role = self.model.roles[link.section]
        start, end = link.fields[role.places :] or (OPEN, OPEN)
        own = list(link.fields[2 : role.places])
        matched = FUNCTIONS[role.domain_matches](domain[0], own[0]) if role.domain_matches else own == domain
        return within(start, end, self.now_ms) is True and (matched is True or (not role.plain and own == [ANY]))
