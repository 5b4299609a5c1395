"""The plan: what a matcher asks of each column, read from its tree. The compiler builds the index by it, `explain` reads it.

The matcher is split at its `&&`. Each conjunct must constrain one column of the policy by the request: an equality, a
function of the closed list, a role graph, or several of these joined by `||`; or be `when(p.x)`. Any other construct is
a finding that names it: nothing is scanned in secret. A further kind of conjunct (a residual that is evaluated on the
candidates) is one more branch of `_conjunct` and one more field of `Plan`.
"""

from dataclasses import dataclass
from typing import Final

from pdp.engine.casbin_text import Context, Model
from pdp.engine.expression import And, Call, Compare, Expression, Field, In, Literal, Not, Or
from pdp.engine.findings import Finding, finding

EQUAL: Final = "=="
ROLE: Final = "g"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One test of a column: `==`, a function's name, or `g` with the section of the role graph.

    `field` is the position of the request's value, `domain` that of the role's domain, if there is one.
    """

    kind: str
    field: int
    section: str = ""
    domain: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the policy and its tests, any of which is enough."""

    name: str
    position: int
    terms: tuple[Term, ...]

    @property
    def rank(self) -> int:
        """The place of this column among the steps: few keys first, patterns later, the subject's many roles last."""
        kinds = {term.kind for term in self.terms}
        return 2 if kinds == {ROLE} else int("resourceMatch" in kinds or ROLE in kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The columns in the order of the index; `when`, `then` and `eft` are positions, or None where there is none."""

    columns: tuple[Column, ...]
    when: int | None
    then: int | None
    eft: int | None
    subject: Column | None
    """The column that a role graph alone tests, the first if there are several: where a role path leads."""


class _UnplannedError(Exception):
    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.message = message
        self.at = at


def make_plan(context: Context, model: Model) -> Plan | tuple[Finding, ...]:
    """Return the plan of a context, or a finding for each conjunct that cannot be planned."""
    planner = _Planner(context, model)
    matcher = context.matcher
    found = []
    for conjunct in matcher.operands if isinstance(matcher, And) else (matcher,):
        try:
            planner.conjunct(conjunct)
        except _UnplannedError as error:
            message = f"{error.message} (column {error.at + 1} of the matcher)"
            found.append(finding("PC202", message, file=model.file, line=context.line))
    if "when" in context.policy and "when" not in context.condition_columns:
        message = "the matcher never reads the column `when`: conditions in it would count for nothing"
        found.append(finding("PC202", message, file=model.file, line=context.line))
    return tuple(found) if found else planner.plan()


class _Planner:
    def __init__(self, context: Context, model: Model) -> None:
        self._context = context
        self._model = model
        self._columns: dict[str, Column] = {}
        self._when: int | None = None

    def plan(self) -> Plan:
        names = self._context.policy
        columns = tuple(sorted(self._columns.values(), key=lambda column: (column.rank, column.position)))
        return Plan(
            columns=columns,
            subject=next((column for column in columns if {term.kind for term in column.terms} == {ROLE}), None),
            when=self._when,
            then=names.index("then") if "then" in names else None,
            eft=names.index("eft") if "eft" in names else None,
        )

    def conjunct(self, tree: Expression) -> None:
        if isinstance(tree, Call) and tree.function == "when":
            self._condition(tree)
            return
        alternatives = tree.operands if isinstance(tree, Or) else (tree,)
        tests = [self._test(alternative) for alternative in alternatives]
        names = {name for name, _ in tests}
        if len(names) > 1:
            raise _UnplannedError(f"`||` over several columns ({', '.join(sorted(names))}) is not supported", tree.at)
        name = names.pop()
        if name in self._columns:
            raise _UnplannedError(f"a second test of the column `{name}` is not supported", tree.at)
        position = self._context.policy.index(name)
        self._columns[name] = Column(name=name, position=position, terms=tuple(term for _, term in tests))

    def _condition(self, tree: Call) -> None:
        (argument,) = tree.arguments
        if self._when is not None:
            raise _UnplannedError("a second `when` is not supported", tree.at)
        self._when = self._context.policy.index(self._field(argument, "p").name)

    def _test(self, tree: Expression) -> tuple[str, Term]:
        """Return the column that a single test constrains, and the test."""
        if isinstance(tree, Compare) and tree.operator == EQUAL:
            asked, written = self._pair(tree)
            return written.name, Term(kind=EQUAL, field=self._request(asked))
        if isinstance(tree, Call) and tree.function in self._model.roles:
            name, role, *domain = tree.arguments
            written = self._field(role, "p")
            return written.name, Term(
                kind=ROLE,
                field=self._request(self._field(name, "r")),
                section=tree.function,
                domain=self._request(self._field(domain[0], "r")) if domain else None,
            )
        if isinstance(tree, Call):
            asked, written = self._field(tree.arguments[0], "r"), self._field(tree.arguments[-1], "p")
            return written.name, Term(kind=tree.function, field=self._request(asked))
        raise _UnplannedError(f"{describe(tree)} is not supported", tree.at)

    def _pair(self, tree: Compare) -> tuple[Field, Field]:
        """Return the sides of an equality, the request's first."""
        left, right = tree.left, tree.right
        if isinstance(left, Field) and left.scope[0] == "p":
            left, right = right, left
        return self._field(left, "r"), self._field(right, "p")

    def _field(self, tree: Expression, letter: str) -> Field:
        if not isinstance(tree, Field) or tree.scope != letter + self._context.suffix:
            where = "request" if letter == "r" else "policy"
            raise _UnplannedError(
                f"{describe(tree)} where a field of the {where} is expected is not supported", tree.at
            )
        if tree.rest:
            raise _UnplannedError(f"the attribute path `{tree.name}.{'.'.join(tree.rest)}` is not supported", tree.at)
        return tree

    def _request(self, field: Field) -> int:
        return self._context.request.index(field.name)


def describe(tree: Expression) -> str:  # noqa: PLR0911 - one line for each kind of node
    """Return what kind of construct `tree` is, in words."""
    match tree:
        case Compare():
            return f"a comparison with `{tree.operator}`"
        case Call():
            return f"a call of `{tree.function}`"
        case Field():
            return f"the field `{tree.scope}.{tree.name}`"
        case Literal():
            return f"the value `{tree.value}`"
        case In():
            return "`in`"
        case Not():
            return "`!`"
        case And() | Or():
            return "a nested `&&` or `||`"
