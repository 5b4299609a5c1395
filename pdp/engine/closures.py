"""From a tree to a function: what the index does not answer, compiled once and called for each candidate.

Nothing is evaluated as code. Truth has three values: None is *cannot be said* (an absent attribute, values of unlike
kinds, a text that is no address), and `&&`, `||` and `!` are Kleene's, so that neither the order of a matcher nor that of
rows changes an answer (CASBIN.md D-21, D-24).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pdp.engine.casbin_text import Context, Model
from pdp.engine.expression import And, Call, Compare, Expression, Field, In, Literal, Not, Or
from pdp.engine.functions import ANY, FUNCTIONS, Truth, attribute, compare, contains, kleene_and, kleene_not, kleene_or
from pdp.engine.patterns import PATTERN_FUNCTIONS, Pattern, read_pattern, within


class Case(Protocol):
    """The question, as closures read it."""

    @property
    def now_ms(self) -> int: ...  # noqa: D102 - wall clock in milliseconds
    @property
    def values(self) -> Sequence[object]: ...  # noqa: D102 - the request's values
    def linked(self, section: str, asked: tuple[int | None, object], role: str, domain: str) -> bool: ...  # noqa: D102
    def condition(self, condition: object) -> Truth: ...  # noqa: D102 - the truth of a compiled `when`


class Judged(Protocol):
    """A rule, as closures read it: its fields, and by position what was compiled of them."""

    @property
    def fields(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def compiled(self) -> "Compiled | None": ...  # noqa: D102


Test = Callable[[Case, Judged], Truth]
Worth = Callable[[Case, Judged], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What was compiled of the texts of one row: `eval` columns to tests, other `when` columns to conditions."""

    tests: dict[int, Test]
    conditions: dict[int, object]


class ClosureMaker:
    """Makes the closures of one context."""

    def __init__(self, context: Context, model: Model) -> None:
        self._context = context
        self._model = model

    def test(self, tree: Expression) -> Test:  # noqa: PLR0911 - one line for each kind of node
        """Return the function that says whether `tree` holds for a rule."""
        match tree:
            case And():
                operands = tuple(self.test(each) for each in tree.operands)
                return lambda case, rule: kleene_and(one(case, rule) for one in operands)
            case Or():
                operands = tuple(self.test(each) for each in tree.operands)
                return lambda case, rule: kleene_or(one(case, rule) for one in operands)
            case Not():
                operand = self.test(tree.operand)
                return lambda case, rule: kleene_not(operand(case, rule))
            case Compare():
                sign, left, right = tree.operator, self.worth(tree.left), self.worth(tree.right)
                return lambda case, rule: compare(sign, left(case, rule), right(case, rule))
            case In():
                return self._membership(tree)
            case Call():
                return self._call(tree)
            case _:
                value = self.worth(tree)
                return lambda case, rule: truth if type(truth := value(case, rule)) is bool else None

    def worth(self, tree: Expression) -> Worth:
        """Return the function that gives the value of `tree`; None is an absent one."""
        if isinstance(tree, Literal):
            value = tree.value
            return lambda _case, _rule: value
        if isinstance(tree, Field):
            return self._field(tree)
        return self.test(tree)

    def _field(self, tree: Field) -> Worth:
        if tree.scope.startswith("p"):
            position = self._context.policy.index(tree.name)
            return lambda _case, rule: rule.fields[position]
        position, path = self._context.request.index(tree.name), tree.rest
        if path:
            return lambda case, _rule: attribute(case.values[position], path)
        return lambda case, _rule: case.values[position]

    def _membership(self, tree: In) -> Test:
        left = self.worth(tree.left)
        if tree.source is not None:
            source = self._field(tree.source)
            return lambda case, rule: contains(source(case, rule), left(case, rule))
        items = tuple(self.worth(item) for item in tree.items)
        return lambda case, rule: contains([item(case, rule) for item in items], left(case, rule))

    def _call(self, tree: Call) -> Test:
        if tree.function in self._model.local:
            return self._local(tree)
        if tree.function in self._model.roles:
            return self._linked(tree)
        if tree.function in {"when", "eval"}:
            return self._column_text(tree)
        first, second = (self.worth(argument) for argument in tree.arguments)
        if tree.function == "timeMatch":
            return lambda case, rule: within(str(first(case, rule)), str(second(case, rule)), case.now_ms)
        if tree.function in PATTERN_FUNCTIONS and isinstance(tree.arguments[1], Literal):
            return _covered(first, read_pattern(tree.function, str(tree.arguments[1].value)))
        function = FUNCTIONS[tree.function]

        def matched(case: Case, rule: Judged) -> Truth:
            value, written = first(case, rule), second(case, rule)
            return function(value, written) if type(value) is str and type(written) is str else None

        return matched

    def _column_text(self, tree: Call) -> Test:
        (argument,) = tree.arguments
        position = self._context.policy.index(argument.name) if isinstance(argument, Field) else -1
        if tree.function == "eval":
            return lambda case, rule: rule.compiled.tests[position](case, rule) if rule.compiled else None
        return lambda case, rule: case.condition(rule.compiled.conditions.get(position) if rule.compiled else None)

    def _linked(self, tree: Call) -> Test:
        name, role, *rest = tree.arguments
        asked, wanted = self.worth(name), self.worth(role)
        domain = self.worth(rest[0]) if rest else _any
        # Only a bare field of the request has memberships: groups of a subject, the segment of an asset.
        bare = isinstance(name, Field) and name.scope.startswith("r") and not name.rest
        position = self._context.request.index(name.name) if bare and isinstance(name, Field) else None
        section = tree.function

        def linked(case: Case, rule: Judged) -> Truth:
            value, target, where = asked(case, rule), wanted(case, rule), domain(case, rule)
            if type(value) is not str or type(target) is not str or type(where) is not str:
                return None
            return case.linked(section, (position, value), target, where)

        return linked

    def _local(self, tree: Call) -> Test:
        function = self._model.local[tree.function]
        arguments = tuple(self.worth(argument) for argument in tree.arguments)

        def called(case: Case, rule: Judged) -> Truth:
            try:
                result = function(*(argument(case, rule) for argument in arguments))
            except Exception:  # noqa: BLE001 - a function of the caller's may raise anything; that cannot grant (D-37)
                return None
            return result if type(result) is bool else None

        return called


def _covered(value: Worth, pattern: Pattern) -> Test:
    def covered(case: Case, rule: Judged) -> Truth:
        text = value(case, rule)
        return pattern.covers(text) if type(text) is str else None

    return covered


def _any(_case: Case, _rule: Judged) -> object:
    return ANY
