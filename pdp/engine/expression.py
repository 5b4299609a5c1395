"""The matcher's grammar: our own tokenizer and a Pratt parser, from text to a tree. Nothing is ever evaluated as code.

One boolean expression (CASBIN.md section 1): literals, `r.x` and `p.x`, comparisons, `in` over a list or tuple, `&&`, `||`
and `!` with their word forms, and calls of a closed list of functions. What the grammar does not know is a finding at its
column, never a guess.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pdp.limits import MAX_EXPRESSION_DEPTH, MAX_LINE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """A string, number or truth value."""

    value: str | int | float | bool
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of the request or of the row: `r.sub`, `p2.act`; `rest` is an attribute path behind it."""

    scope: str
    name: str
    rest: tuple[str, ...]
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a named function."""

    function: str
    arguments: tuple["Expression", ...]
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """`==`, `!=`, `<`, `<=`, `>` or `>=`."""

    operator: str
    left: "Expression"
    right: "Expression"
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class In:
    """Membership in a list or tuple; a string is no list (CASBIN.md D-22).

    The list is written out (`items`), or is an attribute of the request (`source`; `items` is then empty).
    """

    left: "Expression"
    items: tuple["Expression", ...]
    at: int
    source: Field | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Not:
    """Negation."""

    operand: "Expression"
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class And:
    """All of the operands; nested conjunctions are flattened."""

    operands: tuple["Expression", ...]
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Or:
    """Any of the operands; nested disjunctions are flattened."""

    operands: tuple["Expression", ...]
    at: int


Expression = Literal | Field | Call | Compare | In | Not | And | Or


class ExpressionError(Exception):
    """A text outside the grammar: code, message and offset; `parse` callers turn it into a finding."""

    def __init__(self, code: str, message: str, at: int) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.at = at


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str
    text: str
    at: int


_TOKEN: Final = re.compile(
    r"""(?P<blank>[ \t\n]+)
      | (?P<string>"[^"\\\n]*"|'[^'\\\n]*')
      | (?P<number>[0-9]+(?:\.[0-9]+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<operator>&&|\|\||==|!=|<=|>=|[!<>(),.\[\]])""",
    re.VERBOSE,
)
_WORDS: Final = {"and": "&&", "or": "||", "not": "!"}
_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">="})
_OR, _AND, _COMPARISON = 1, 2, 3


def parse(text: str) -> Expression:
    """Return the tree of exactly one expression.

    Raises:
        ExpressionError: the text is outside the grammar; the first place where it leaves it is named.
    """
    if len(text) > MAX_LINE_BYTES:
        raise ExpressionError("PC506", f"an expression has at most {MAX_LINE_BYTES} characters", MAX_LINE_BYTES)
    parser = _Parser(_tokens(text))
    tree = parser.expression(0)
    parser.finish()
    return tree


def walk(tree: Expression) -> Iterator[Expression]:
    """Yield every node, parents first."""
    yield tree
    for child in _children(tree):
        yield from walk(child)


def conjuncts(tree: Expression) -> tuple[Expression, ...]:
    """Return the operands of a conjunction; any other tree is its only one."""
    return tree.operands if isinstance(tree, And) else (tree,)


def reads(tree: Expression, letter: str) -> bool:
    """Tell whether a tree reads the request (`r`) or the row (`p`)."""
    return any(isinstance(node, Field) and node.scope.startswith(letter) for node in walk(tree))


def describe(tree: Expression) -> str:  # noqa: PLR0911 - one line for each kind of node
    """Return what kind of construct `tree` is, in words."""
    match tree:
        case Compare():
            return f"a comparison with `{tree.operator}`"
        case Call():
            return f"a call of `{tree.function}`"
        case Field():
            return f"the field `{'.'.join((tree.scope, tree.name, *tree.rest))}`"
        case Literal():
            return f"the value `{tree.value}`"
        case In():
            return "`in`"
        case Not():
            return "`!`"
        case And() | Or():
            return "a nested `&&` or `||`"


def _children(tree: Expression) -> tuple[Expression, ...]:
    match tree:
        case And() | Or():
            return tree.operands
        case Not():
            return (tree.operand,)
        case Compare():
            return (tree.left, tree.right)
        case In():
            return (tree.left, *tree.items, *((tree.source,) if tree.source else ()))
        case Call():
            return tree.arguments
        case _:
            return ()


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _unreadable(text, at)
        kind = str(match.lastgroup)
        if kind != "blank":
            spelling = _WORDS.get(match[0], match[0])
            tokens.append(_Token(kind="operator" if spelling != match[0] else kind, text=spelling, at=at))
        at = match.end()
    tokens.append(_Token(kind="end", text="the end", at=len(text)))
    return tokens


def _unreadable(text: str, at: int) -> ExpressionError:
    if text[at] == ";":
        # `True; r.sub == p.sub` allows everyone in pycasbin (D-18).
        return ExpressionError("PC204", "exactly one expression; nothing may follow `;`", at)
    if text[at] in "\"'":
        return ExpressionError("PC201", "a string that does not end on its line, or holds a backslash", at)
    if text[at] in "+-*/%":
        return ExpressionError("PC202", f"arithmetic (`{text[at]}`) is not supported", at)
    return ExpressionError("PC201", f"`{text[at]!a}` is not part of an expression", at)


class _Parser:
    """Precedence climbing: `||` binds loosest, then `&&`, then `!`, then comparisons and `in`."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def expression(self, floor: int) -> Expression:
        self._depth += 1
        if self._depth > MAX_EXPRESSION_DEPTH:
            raise ExpressionError("PC201", f"nested deeper than {MAX_EXPRESSION_DEPTH}", self._peek().at)
        left = self._prefix()
        while (strength := self._strength()) > floor:
            left = self._infix(left, strength)
        self._depth -= 1
        return left

    def finish(self) -> None:
        token = self._peek()
        if token.kind != "end":
            raise ExpressionError("PC201", f"`{token.text}` after the end of the expression", token.at)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def _accept(self, text: str) -> bool:
        token = self._peek()
        if token.kind == "operator" and token.text == text:
            self._next += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        token = self._peek()
        if not self._accept(text):
            raise ExpressionError("PC201", f"`{text}` expected, found `{token.text}`", token.at)

    def _strength(self) -> int:
        token = self._peek()
        if token.kind == "operator":
            if token.text in _COMPARISONS:
                return _COMPARISON
            following = self._tokens[self._next + 1] if token.text == "!" else token
            if token.text == "!" and following.text == "in":
                return _COMPARISON
            return {"||": _OR, "&&": _AND}.get(token.text, 0)
        return _COMPARISON if token.kind == "name" and token.text == "in" else 0

    def _prefix(self) -> Expression:
        token = self._take()
        if token.kind == "string":
            return Literal(value=token.text[1:-1], at=token.at)
        if token.kind == "number":
            return Literal(value=_number(token), at=token.at)
        if token.kind == "name":
            return self._named(token)
        if token.text == "!" and token.kind == "operator":
            # As in pycasbin, where `!` becomes Python's `not`: it binds looser than a comparison.
            return Not(operand=self.expression(_AND), at=token.at)
        if token.text == "(" and token.kind == "operator":
            inner = self.expression(0)
            self._expect(")")
            return inner
        raise ExpressionError("PC201", f"a value expected, found `{token.text}`", token.at)

    def _named(self, token: _Token) -> Expression:
        if self._accept("("):
            return Call(function=token.text, arguments=tuple(self._items(")")), at=token.at)
        if token.text in {"true", "True", "false", "False"}:
            return Literal(value=token.text.lower() == "true", at=token.at)
        path = []
        while self._accept("."):
            name = self._take()
            if name.kind != "name":
                raise ExpressionError("PC201", f"a name expected after `.`, found `{name.text}`", name.at)
            path.append(name.text)
        if not path:
            raise ExpressionError("PC203", f"`{token.text}` is neither a field, such as `r.sub`, nor a value", token.at)
        return Field(scope=token.text, name=path[0], rest=tuple(path[1:]), at=token.at)

    def _items(self, closer: str) -> Iterator[Expression]:
        if self._accept(closer):
            return
        while True:
            yield self.expression(0)
            if self._accept(closer):
                return
            self._expect(",")
            if self._accept(closer):
                return

    def _infix(self, left: Expression, strength: int) -> Expression:
        token = self._take()
        if strength == _COMPARISON:
            return self._comparison(left, token)
        kind = And if token.text == "&&" else Or
        operands = [*_flat(kind, left), *_flat(kind, self.expression(strength))]
        while self._accept(token.text):
            operands.extend(_flat(kind, self.expression(strength)))
        return kind(operands=tuple(operands), at=left.at)

    def _comparison(self, left: Expression, token: _Token) -> Expression:
        if token.text in _COMPARISONS:
            if isinstance(left, Compare | In):
                raise ExpressionError("PC201", "comparisons do not chain; join them with `&&`", token.at)
            return Compare(operator=token.text, left=left, right=self.expression(_COMPARISON), at=token.at)
        negated = token.text == "!"
        if negated:
            self._take()
        opener = self._take()
        if opener.kind == "name":
            return self._in_attribute(left, token, opener, negated=negated)
        if opener.text not in {"(", "["} or opener.kind != "operator":
            raise ExpressionError("PC207", "`in` needs a list or a tuple", opener.at)
        inside = In(left=left, items=tuple(self._items(")" if opener.text == "(" else "]")), at=token.at)
        self._check_tuple(inside, opener)
        return Not(operand=inside, at=token.at) if negated else inside

    def _in_attribute(self, left: Expression, token: _Token, name: _Token, *, negated: bool) -> Expression:
        source = self._named(name)
        if not isinstance(source, Field) or not source.scope.startswith("r"):
            raise ExpressionError("PC207", "`in` needs a list or a tuple, written out or of the request", name.at)
        inside = In(left=left, items=(), source=source, at=token.at)
        return Not(operand=inside, at=token.at) if negated else inside

    def _check_tuple(self, inside: In, opener: _Token) -> None:
        """Refuse `in ("x")`: that is no tuple but a string, and `in` a substring test (D-22)."""
        last = self._tokens[self._next - 2]
        if opener.text == "(" and len(inside.items) == 1 and last.text != ",":
            raise ExpressionError("PC207", 'a tuple of one item is written `("x",)`', opener.at)


def _flat(kind: type[And | Or], tree: Expression) -> tuple[Expression, ...]:
    return tree.operands if isinstance(tree, And | Or) and type(tree) is kind else (tree,)


def _number(token: _Token) -> int | float:
    if len(token.text) > len(str(2**53)):
        raise ExpressionError("PC201", "a number with more than 16 digits", token.at)
    return float(token.text) if "." in token.text else int(token.text)
