"""The plan: what a matcher asks of each column, read from its tree. The compiler builds the index by it, `explain` reads it.

The matcher is brought into alternatives (*branches*), any of which is enough, each a conjunction:

    r.sub == "root" || g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && r.act == p.act && r.sub.age > 18
    branch 1   guards   r.sub == "root"
    branch 2   columns  act (==), obj (keyMatch), sub (g)            guards  r.sub.age > 18

A conjunct that constrains one column by the request (an equality, a function of the closed list, a role graph, or several
of these joined by `||`) is a *column* and becomes a step of the index. One that reads only the request is a *guard*, seen
once per question. Anything else is a *residual*, evaluated on the candidates that the steps leave. A `||` is only split
where each side has something to be found by; else it is a residual itself. A branch that has a residual and no column
visits every row, and is pointed out (PC320).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

from pdp.engine.casbin_text import Context, Model
from pdp.engine.expression import (
    And,
    Call,
    Compare,
    Expression,
    Field,
    In,
    Literal,
    Or,
    conjuncts,
    describe,
    reads,
    walk,
)
from pdp.engine.findings import Finding, finding
from pdp.engine.functions import FUNCTIONS
from pdp.engine.patterns import PATTERN_FUNCTIONS
from pdp.limits import MAX_BRANCHES

EQUAL: Final = "=="
ROLE: Final = "g"
LITERAL: Final = "literal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One test of a column: `==`, a function's name, `g` with the section of the role graph, or one text that it may hold.

    `field` is the position of the request's value (-1 for a literal), `path` the attribute of it that is meant, `domain`
    the position of the role's domain, if there is one.
    """

    kind: str
    field: int
    section: str = ""
    domain: int | None = None
    path: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the policy and its tests, any of which is enough; `tree` is what the matcher says."""

    name: str
    position: int
    terms: tuple[Term, ...]
    tree: Expression

    @property
    def rank(self) -> int:
        """The place of this column among the steps: few keys first, patterns later, the subject's many roles last."""
        kinds = {term.kind for term in self.terms}
        if kinds == {ROLE}:
            return 2
        return int(bool(kinds & {"resourceMatch", ROLE, *PATTERN_FUNCTIONS}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One alternative of the matcher: the columns of the index, what only reads the request, and what is left."""

    columns: tuple[Column, ...]
    guards: tuple[Expression, ...] = ()
    residual: tuple[Expression, ...] = ()

    @property
    def scans(self) -> bool:
        """Whether every row must be visited for this branch."""
        return bool(self.residual) and not self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The branches; `when`, `then`, `eft` and `priority` are positions, or None where there is none."""

    branches: tuple[Branch, ...]
    when: int | None
    then: int | None
    eft: int | None
    priority: int | None
    subject: Column | None
    """The column that a role graph alone tests, the first if there are several: where a role path leads."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the first branch: of the only one, in the model we ship."""
        return self.branches[0].columns

    @property
    def simple(self) -> bool:
        """Whether the index alone says which rules match, their conditions apart."""
        return len(self.branches) == 1 and not self.branches[0].guards and not self.branches[0].residual


def make_plan(context: Context, model: Model) -> Plan | tuple[Finding, ...]:
    """Return the plan of a context, or a finding for each construct that cannot be planned."""
    if "when" in context.policy and "when" not in context.condition_columns and not model.plain:
        message = "the matcher never reads the column `when`: conditions in it would count for nothing"
        return (finding("PC202", message, file=model.file, line=context.line),)
    return _Planner(context, model).plan()


def scanned(context: Context, plan: Plan, file: str) -> Iterator[Finding]:
    """Yield a warning if some question must visit every row, naming what could not be indexed."""
    for branch in plan.branches:
        if branch.scans:
            names = ", ".join(describe(tree) for tree in branch.residual)
            message = f"no column is found by an index: every row is visited for {names}"
            yield finding("PC320", message, file=file, line=context.line)
            return


class _Planner:
    def __init__(self, context: Context, model: Model) -> None:
        self._context = context
        self._model = model
        self._when: int | None = None

    def plan(self) -> Plan:
        names = self._context.policy
        rest = []
        for tree in conjuncts(self._context.matcher):
            if self._when is None and isinstance(tree, Call) and tree.function == "when":
                (argument,) = tree.arguments
                self._when = names.index(argument.name) if isinstance(argument, Field) else None
            else:
                rest.append(tree)
        branches = tuple(self._branch(trees) for trees in self._alternatives(tuple(rest)))
        roles = (column for branch in branches for column in branch.columns)
        return Plan(
            branches=branches,
            subject=next((column for column in roles if {term.kind for term in column.terms} == {ROLE}), None),
            when=self._when,
            then=names.index("then") if "then" in names and not self._model.plain else None,
            eft=names.index("eft") if "eft" in names else None,
            priority=names.index("priority") if "priority" in names else None,
        )

    def _alternatives(self, trees: tuple[Expression, ...]) -> list[tuple[Expression, ...]]:
        """Return the conjunctions, any of which is enough; a `||` stays whole if splitting it finds nothing."""
        split = [self._split(tree) for tree in trees]
        count = 1
        for number, tree in enumerate(trees):
            if count * len(split[number]) > MAX_BRANCHES:
                split[number] = [(tree,)]
            count *= len(split[number])
        return [tuple(one for part in parts for one in part) for parts in product(*split)]

    def _split(self, tree: Expression) -> list[tuple[Expression, ...]]:
        if isinstance(tree, And):
            return self._alternatives(tree.operands)
        if not isinstance(tree, Or) or self._column(tree) is not None:
            return [(tree,)]
        found = [alternative for operand in tree.operands for alternative in self._split(operand)]
        useful = all(any(self._finds(one) for one in alternative) for alternative in found)
        return found if useful and len(found) <= MAX_BRANCHES else [(tree,)]

    def _finds(self, tree: Expression) -> bool:
        return not reads(tree, "p") or self._column(tree) is not None

    def _branch(self, trees: tuple[Expression, ...]) -> Branch:
        columns: dict[str, Column] = {}
        guards: list[Expression] = []
        residual: list[Expression] = []
        for tree in trees:
            column = self._column(tree)
            if column is not None and column.name not in columns:
                columns[column.name] = column
            elif reads(tree, "p") or not _is_pure(tree):
                residual.append(tree)
            else:
                guards.append(tree)
        ordered = tuple(sorted(columns.values(), key=lambda column: (column.rank, column.position)))
        return Branch(columns=ordered, guards=tuple(guards), residual=tuple(residual))

    def _column(self, tree: Expression) -> Column | None:
        """Return the column that `tree` constrains by the request, if it is one that an index can search."""
        alternatives = tree.operands if isinstance(tree, Or) else (tree,)
        tests = [test for alternative in alternatives for test in self._tests(alternative)]
        names = {name for name, _ in tests}
        if len(names) != 1 or None in names:
            return None
        (name,) = names
        terms = tuple(term for _, term in tests)
        if all(term.kind == LITERAL for term in terms):
            return None
        return Column(name=str(name), position=self._context.policy.index(str(name)), terms=terms, tree=tree)

    def _tests(self, tree: Expression) -> list[tuple[str | None, Term]]:
        """Return the column that a single test constrains, and the test; `[(None, …)]` if it is none."""
        nothing: list[tuple[str | None, Term]] = [(None, Term(kind="", field=-1))]
        if isinstance(tree, Compare) and tree.operator == EQUAL:
            return self._equality(tree) or nothing
        if isinstance(tree, In) and self._policy(tree.left) and tree.items:
            texts = [item.value for item in tree.items if isinstance(item, Literal) and isinstance(item.value, str)]
            if len(texts) == len(tree.items) and isinstance(tree.left, Field):
                return [(tree.left.name, Term(kind=LITERAL, field=-1, text=text)) for text in texts]
        if isinstance(tree, Call):
            return self._call(tree) or nothing
        return nothing

    def _equality(self, tree: Compare) -> list[tuple[str | None, Term]]:
        left, right = (tree.right, tree.left) if self._policy(tree.right) else (tree.left, tree.right)
        if not isinstance(left, Field) or not self._policy(left):
            return []
        if isinstance(right, Literal) and isinstance(right.value, str):
            return [(left.name, Term(kind=LITERAL, field=-1, text=right.value))]
        if isinstance(right, Field) and self._request(right) is not None:
            return [(left.name, Term(kind=EQUAL, field=self._position(right), path=right.rest))]
        return []

    def _call(self, tree: Call) -> list[tuple[str | None, Term]]:
        role = tree.function in self._model.roles
        if tree.function in self._model.local or not (role or tree.function in FUNCTIONS):
            return []
        name, written, *domain = tree.arguments
        asked = self._request(name)
        if asked is None or not isinstance(written, Field) or not self._policy(written):
            return []
        if not role:
            return [(written.name, Term(kind=tree.function, field=self._position(asked), path=asked.rest))]
        where = self._request(domain[0]) if domain else None
        if asked.rest or (domain and (where is None or where.rest)):
            return []
        place = self._position(where) if where is not None else None
        return [(written.name, Term(kind=ROLE, field=self._position(asked), section=tree.function, domain=place))]

    def _policy(self, tree: Expression) -> bool:
        return isinstance(tree, Field) and tree.scope.startswith("p") and not tree.rest

    def _request(self, tree: Expression) -> Field | None:
        return tree if isinstance(tree, Field) and tree.scope.startswith("r") else None

    def _position(self, field: Field) -> int:
        return self._context.request.index(field.name)


def _is_pure(tree: Expression) -> bool:
    """Tell whether a tree says the same of every row: `when` and `eval` read one."""
    return not any(isinstance(node, Call) and node.function in {"when", "eval"} for node in walk(tree))
