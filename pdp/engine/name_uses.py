"""How a policy looks at each field of a question: which names it writes there, and whether names fall into classes at all.

Lists and comparisons are exact because a policy can tell apart only finitely many sorts of name (`classes.py`). That holds
where a field is compared for equality with what rows or the matcher write, looked up in a role graph, or given to a
function of our own names. It does not where it is compared with another field, ordered, matched by a pattern of Casbin's
functions, or looked into for attributes: such a field has an `obstacle`, which is said and never passed over.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pdp.engine.compiler import CompiledContext, Snapshot
from pdp.engine.expression import Call, Compare, Expression, Field, In, Literal, describe, parse, walk
from pdp.engine.functions import OWN_FUNCTIONS
from pdp.engine.plan import EQUAL, ROLE


@dataclass(slots=True)
class FieldUses:
    """What is done with one field of the request: `kinds` of tests, `names` and `domains` that are written, any obstacle."""

    kinds: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)
    is_domain: bool = False
    obstacle: str = ""


def field_uses(snapshot: Snapshot, compiled: CompiledContext) -> Mapping[str, FieldUses]:
    """Return for each field of the request how a context looks at it."""
    reader = _Reader(snapshot, compiled)
    for tree in _trees(compiled):
        reader.read(tree)
    return reader.found


def _trees(compiled: CompiledContext) -> Iterator[Expression]:
    """Yield the matcher, and every expression that a row brings."""
    yield compiled.context.matcher
    columns = [compiled.context.policy.index(name) for name in compiled.context.eval_columns]
    yield from map(parse, sorted({rule.row.fields[column] for rule in compiled.rules for column in columns}))


class _Reader:
    def __init__(self, snapshot: Snapshot, compiled: CompiledContext) -> None:
        self._snapshot = snapshot
        self._compiled = compiled
        self.found = {name: FieldUses() for name in compiled.context.request}

    def read(self, tree: Expression) -> None:
        """Note every use of a field in an expression."""
        understood: set[int] = set()
        for node in walk(tree):
            match node:
                case Compare(operator="==" | "!=", left=left, right=right):
                    understood |= self._equality(left, (right,)) | self._equality(right, (left,))
                case In(left=left, items=items, source=None):
                    understood |= self._equality(left, items)
                case Call():
                    understood |= self._call(node)
                case Field() if node.scope.startswith("r") and id(node) not in understood:
                    self._obstruct(node, f"{describe(node)} is compared in a way that tells endlessly many names apart")
                case _:
                    pass

    def _obstruct(self, node: Field, why: str) -> None:
        self.found[node.name].obstacle = self.found[node.name].obstacle or why

    def _equality(self, asked: Expression, others: Iterable[Expression]) -> set[int]:
        if not _bare(asked) or not isinstance(asked, Field):
            return set()
        uses = self.found[asked.name]
        for other in others:
            if isinstance(other, Literal):
                uses.names.update([other.value] if isinstance(other.value, str) else [])
            elif isinstance(other, Field) and other.scope.startswith("p"):
                uses.names |= self._column(other.name)
            else:
                return set()
        uses.kinds.add(EQUAL)
        return {id(asked)}

    def _call(self, node: Call) -> set[int]:
        if node.function in {"when", "eval"}:
            return set()
        if node.function in self._snapshot.model.roles:
            return self._role(node)
        asked = node.arguments[0]
        if node.function in OWN_FUNCTIONS and _bare(asked) and isinstance(asked, Field):
            self.found[asked.name].kinds.add(node.function)
            for argument in node.arguments[1:]:
                self.found[asked.name].names |= self._written(argument)
            return {id(asked)}
        for argument in node.arguments:
            if isinstance(argument, Field) and argument.scope.startswith("r"):
                self._obstruct(argument, f"`{node.function}` matches it by patterns")
        return set()

    def _role(self, node: Call) -> set[int]:
        role = self._snapshot.model.roles[node.function]
        name, target, *domain = node.arguments
        understood: set[int] = set()
        for argument, pattern in ((name, role.matches), *((each, role.domain_matches) for each in domain)):
            if not _bare(argument) or not isinstance(argument, Field):
                continue
            uses = self.found[argument.name]
            if pattern:
                self._obstruct(argument, f"`{node.function}` matches it by `{pattern}`")
            uses.is_domain = uses.is_domain or argument is not name
            if argument is name:
                uses.kinds.add(ROLE)
                uses.names |= self._graph_names(node.function) | self._written(target)
            else:
                uses.domains.update(self._snapshot.graphs[node.function].reaches)
            understood.add(id(argument))
        return understood

    def _graph_names(self, section: str) -> set[str]:
        links = self._snapshot.graphs[section].links
        return set(links) | {link.target for each in links.values() for link in each}

    def _written(self, tree: Expression) -> set[str]:
        if isinstance(tree, Literal):
            return {str(tree.value)}
        return self._column(tree.name) if isinstance(tree, Field) and tree.scope.startswith("p") else set()

    def _column(self, name: str) -> set[str]:
        position = self._compiled.context.policy.index(name)
        return {rule.row.fields[position] for rule in self._compiled.rules}


def _bare(tree: Expression) -> bool:
    return isinstance(tree, Field) and tree.scope.startswith("r") and not tree.rest
