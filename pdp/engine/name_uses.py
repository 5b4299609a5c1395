"""How a policy looks at each field of a question: which names and patterns it writes there, and whether names fall into classes.

Lists and comparisons are exact because a policy can tell apart only finitely many sorts of name (`classes.py`). That holds
where a field is compared with what rows or the matcher write (for equality, or in order), matched by the patterns that they
write, looked up in a role graph, or given to a function of our own names. Where a field is compared with another one
(`beside`), it holds once the other's value is known. It does not hold where a value need not be a text (`untold`: its
attributes are looked into, it is compared with a number), nor where a function is not looked into (`obstacle`). What stands in
the way is said and never passed over.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pdp.engine.compiler import CompiledContext, Snapshot
from pdp.engine.expression import Call, Compare, Expression, Field, In, Literal, describe, parse, walk
from pdp.engine.functions import OWN_FUNCTIONS
from pdp.engine.name_languages import BELOW
from pdp.engine.patterns import OPEN_TIME, PATTERN_FUNCTIONS, parse_time
from pdp.engine.plan import EQUAL, ROLE

Written = tuple[str, str]
"""A pattern: the function that reads it (or `<`: every text before it), and its text."""


@dataclass(slots=True)
class FieldUses:
    """What is done with one field of the request: `kinds` of tests, names, domains and patterns that are written.

    `beside` are the fields that it is compared with for equality, `ordered` those that it is compared with in order.
    `is_path` tells whether a value that is no canonical path is refused. `untold` and `obstacle` say what stands in the way
    of classes, the first only where values may be anything but texts.
    """

    kinds: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)
    patterns: set[Written] = field(default_factory=set)
    beside: set[str] = field(default_factory=set)
    ordered: set[str] = field(default_factory=set)
    is_domain: bool = False
    is_path: bool = False
    untold: str = ""
    obstacle: str = ""

    def compared_with(self, texts: Mapping[str, str]) -> "FieldUses":
        """Return the same, where the other fields have the values `texts`: what it is compared with is known."""
        names = {texts[name] for name in self.beside | self.ordered if name in texts}
        below = {(BELOW, texts[name]) for name in self.ordered if name in texts}
        return FieldUses(
            kinds=self.kinds,
            names=self.names | names,
            domains=self.domains,
            patterns=self.patterns | below,
            beside=self.beside - set(texts),
            ordered=self.ordered - set(texts),
            is_domain=self.is_domain,
            is_path=self.is_path,
            untold=self.untold,
            obstacle=self.obstacle,
        )


def field_uses(snapshot: Snapshot, compiled: CompiledContext) -> Mapping[str, FieldUses]:
    """Return for each field of the request how a context looks at it."""
    reader = _Reader(snapshot, compiled)
    for tree in (compiled.context.matcher, *row_trees(compiled)):
        reader.read(tree)
    if snapshot.model.plain:
        for at in compiled.context.paths:
            reader.found[compiled.context.request[at]].is_path = True
    return reader.found


def row_trees(compiled: CompiledContext) -> Iterator[Expression]:
    """Yield every expression that a row brings."""
    columns = [compiled.context.policy.index(name) for name in compiled.context.eval_columns]
    yield from map(parse, sorted({rule.row.fields[column] for rule in compiled.rules for column in columns}))


def clock_bounds(compiled: CompiledContext) -> set[int]:
    """Return the instants, in milliseconds, that `timeMatch` compares with the clock."""
    found: set[int] = set()
    for tree in (compiled.context.matcher, *row_trees(compiled)) if compiled.reads_now else ():
        for node in walk(tree):
            if isinstance(node, Call) and node.function == "timeMatch":
                texts = set().union(*(written_in(compiled, argument) for argument in node.arguments))
                found.update(parse_time(text) for text in texts if text != OPEN_TIME)
    return found


def written_in(compiled: CompiledContext, tree: Expression) -> set[str]:
    """Return the texts that stand for a part of an expression: its own, or those of a column; none for anything else."""
    if isinstance(tree, Literal):
        return {str(tree.value)}
    if not isinstance(tree, Field) or not tree.scope.startswith("p"):
        return set()
    position = compiled.context.policy.index(tree.name)
    return {rule.row.fields[position] for rule in compiled.rules}


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
                case Compare(left=left, right=right):
                    understood |= self._order(left, right) | self._order(right, left)
                case In(left=left, items=items, source=None):
                    understood |= self._equality(left, items)
                    understood |= {each for item in items for each in self._equality(item, (left,))}
                case Call():
                    understood |= self._call(node)
                case Field() if node.scope.startswith("r") and id(node) not in understood:
                    self._read_into(node)
                case _:
                    pass

    def _read_into(self, node: Field) -> None:
        uses = self.found[node.name]
        uses.untold = uses.untold or f"{describe(node)} is looked into, which no name shows"

    def _equality(self, asked: Expression, others: Iterable[Expression]) -> set[int]:
        if not isinstance(asked, Field) or not _bare(asked):
            return set()
        uses = self.found[asked.name]
        uses.kinds.add(EQUAL)
        for other in others:
            if self._is_known(other):
                uses.names |= self._written(other)
            elif isinstance(other, Field) and _bare(other):
                uses.beside.add(other.name)
            else:
                self._read_beside(asked, other)
        return {id(asked)}

    def _order(self, asked: Expression, other: Expression) -> set[int]:
        if not isinstance(asked, Field) or not _bare(asked):
            return set()
        uses = self.found[asked.name]
        uses.kinds.add(BELOW)
        if self._is_known(other):
            written = self._written(other)
            uses.names |= written
            uses.patterns |= {(BELOW, each) for each in written}
        elif isinstance(other, Field) and _bare(other):
            uses.ordered.add(other.name)
        else:
            self._read_beside(asked, other)
        return {id(asked)}

    def _read_beside(self, asked: Field, other: Expression) -> None:
        """Note that a field is compared with what no text equals: it is asked with numbers, or with attributes."""
        uses = self.found[asked.name]
        uses.untold = uses.untold or f"{describe(asked)} is compared with {describe(other)}, which is no text"

    def _is_known(self, tree: Expression) -> bool:
        if isinstance(tree, Literal):
            return isinstance(tree.value, str)
        return isinstance(tree, Field) and tree.scope.startswith("p")

    def _call(self, node: Call) -> set[int]:
        if node.function in {"when", "eval"}:
            return set()
        if node.function in self._snapshot.model.roles:
            return self._role(node)
        asked = node.arguments[0]
        if node.function in self._snapshot.model.local or node.function == "timeMatch" or not isinstance(asked, Field):
            return self._obstruct(node)
        if not _bare(asked):
            return set()
        uses = self.found[asked.name]
        uses.kinds.add(node.function)
        written = set().union(*map(self._written, node.arguments[1:]))
        if node.function in OWN_FUNCTIONS:
            uses.names |= written
        elif node.function in PATTERN_FUNCTIONS:
            uses.patterns |= {(node.function, text) for text in written}
        return {id(asked)}

    def _obstruct(self, node: Call) -> set[int]:
        """Note that fields are given to a function that is not looked into."""
        mine = [each for argument in node.arguments for each in walk(argument) if isinstance(each, Field)]
        for each in mine:
            if each.scope.startswith("r"):
                uses = self.found[each.name]
                uses.obstacle = uses.obstacle or f"`{node.function}` is not looked into"
        return {id(each) for each in mine}

    def _role(self, node: Call) -> set[int]:
        name, target, *domain = node.arguments
        role = self._snapshot.model.roles[node.function]
        links = self._snapshot.graphs[node.function].links
        understood: set[int] = set()
        if isinstance(name, Field) and _bare(name):
            uses = self.found[name.name]
            uses.kinds.add(ROLE)
            uses.names |= self._graph_names(node.function) | self._written(target)
            if role.matches:
                uses.patterns |= {(role.matches, each) for each in links}
            understood.add(id(name))
        if isinstance(target, Field) and _bare(target):
            understood |= self._wanted(node.function, name, target)
        for argument in domain:
            if isinstance(argument, Field) and _bare(argument):
                uses = self.found[argument.name]
                uses.is_domain = True
                uses.domains |= set(self._snapshot.graphs[node.function].reaches)
                uses.domains |= {link.domain for each in links.values() for link in each}
                if role.domain_matches:
                    uses.patterns |= {(role.domain_matches, each) for each in uses.domains}
                understood.add(id(argument))
        return understood

    def _wanted(self, section: str, name: Expression, target: Field) -> set[int]:
        """Note a role that the request asks for: it is compared with all that a name stands for, and with the name itself."""
        uses = self.found[target.name]
        uses.kinds.add(EQUAL)
        uses.names |= self._graph_names(section) | self._written(name)
        if isinstance(name, Field) and _bare(name):
            uses.beside.add(name.name)
            self.found[name.name].beside.add(target.name)
        elif not self._is_known(name):
            self._read_beside(target, name)
        return {id(target)}

    def _graph_names(self, section: str) -> set[str]:
        links = self._snapshot.graphs[section].links
        return set(links) | {link.target for each in links.values() for link in each}

    def _written(self, tree: Expression) -> set[str]:
        return written_in(self._compiled, tree)


def _bare(tree: Expression) -> bool:
    return isinstance(tree, Field) and tree.scope.startswith("r") and not tree.rest
