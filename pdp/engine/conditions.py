"""Conditions: CEL over typed variables, compiled against the vocabulary, three-valued at run time.

Variables are declared as flat dotted names, never as maps, so that an unknown name or a wrong type is a compile error with
its column. `has()` is refused (PC213): over flat names it compiles and means nothing. The library *returns* errors, as
values that are truthy: only a value of type BOOL that `is True` holds. Everything that goes wrong (an attribute that is
missing or of another type, a division by zero) is None, and the caller denies.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from cel_expr_python import cel

from pdp.engine.findings import suggest
from pdp.errors import BadRequestError
from pdp.limits import MAX_CONDITION_BYTES, MAX_CONDITION_LOOPS
from pdp.model.attributes import Attributes, AttributeType, Value, parse_instant
from pdp.model.vocabulary import Vocabulary

NOW: Final = "now"

_CEL_TYPES: Final = MappingProxyType(
    {
        AttributeType.BOOL: cel.Type.BOOL,
        AttributeType.INT: cel.Type.INT,
        AttributeType.DOUBLE: cel.Type.DOUBLE,
        AttributeType.STRING: cel.Type.STRING,
        AttributeType.LIST: cel.Type.List(cel.Type.STRING),
        AttributeType.TIMESTAMP: cel.Type.TIMESTAMP,
    }
)
_EXACT: Final[Mapping[AttributeType, type]] = MappingProxyType(
    {
        AttributeType.BOOL: bool,
        AttributeType.INT: int,
        AttributeType.DOUBLE: float,
        AttributeType.STRING: str,
        AttributeType.LIST: tuple,
        AttributeType.TIMESTAMP: str,
    }
)
_STRING: Final = re.compile(r"""[rR][bB]?"[^"]*"|[rR][bB]?'[^']*'|[bB]?"(?:[^"\\]|\\.)*"|[bB]?'(?:[^'\\]|\\.)*'""")
_WORD: Final = re.compile(r"[A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*")
_LOOP: Final = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*$")
_CEL_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_FOREIGN: Final = (RuntimeError, TypeError, ValueError, OverflowError)
"""What the library raises; to us each means that the text does not compile, or that the condition does not hold."""


class ConditionError(Exception):
    """A text that is no condition: code, message and offset of each problem."""

    def __init__(self, *problems: tuple[str, str, int]) -> None:
        super().__init__(problems)
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A compiled condition: its text, the attributes it reads, and whether it reads the clock."""

    text: str
    reads: tuple[tuple[str, AttributeType], ...]
    reads_now: bool
    program: Any

    def holds(self, attributes: Attributes, now_ms: int) -> bool | None:
        """Return whether the condition holds, or None if that cannot be said."""
        data: dict[str, Any] = {}
        try:
            for name, kind in self.reads:
                value = attributes.get(name)
                if value is not None:
                    data[name] = _admit(value, kind)
            if self.reads_now:
                data[NOW] = datetime.fromtimestamp(now_ms / 1000, UTC)
            result = self.program.eval(data=data)
            value = result.value()
        except (*_FOREIGN, BadRequestError, OSError):
            return None
        # The library returns errors as truthy values: the type decides, then identity.
        return value if result.type() == cel.Type.BOOL and type(value) is bool else None


def _admit(value: Value, kind: AttributeType) -> Any:
    """Return `value` as the library takes it; nothing is converted that is not of exactly its type (D-25)."""
    if type(value) is not _EXACT[kind]:
        raise TypeError(kind)
    if isinstance(value, tuple):
        return list(value)
    return parse_instant(value) if kind is AttributeType.TIMESTAMP and isinstance(value, str) else value


class Conditions:
    """The conditions of one vocabulary: each text is compiled once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._types = {name: info.type for name, info in vocabulary.attributes.items()}
        variables = {name: _CEL_TYPES[kind] for name, kind in self._types.items()}
        self._environment = cel.NewEnv(variables={**variables, NOW: cel.Type.TIMESTAMP})
        self._known: dict[str, Condition] = {}

    def compiled(self, text: str) -> Condition:
        """Return the condition that `text` writes.

        Raises:
            ConditionError: it does not compile, is not boolean, says always the same, or could run long.
        """
        if text not in self._known:
            self._known[text] = self._compile(text)
        return self._known[text]

    def _compile(self, text: str) -> Condition:
        if len(text.encode(errors="surrogatepass")) > MAX_CONDITION_BYTES:
            raise ConditionError(("PC211", f"a condition has at most {MAX_CONDITION_BYTES} bytes", 0))
        if not text.isprintable():
            # A line feed ends a comment: what looks like a string here could be an expression there.
            raise ConditionError(("PC115", "a condition is one line of printable text", 0))
        bare = _STRING.sub(lambda match: " " * len(match[0]), text)
        _refuse_macros(bare)
        program = self._program(text)
        if program.return_type() != cel.Type.BOOL:
            raise ConditionError(("PC205", "a condition is true or false; this is neither", 0))
        reads = tuple(sorted((name, self._types[name]) for name in self._names_in(bare)))
        reads_now = any(word == NOW or word.startswith(f"{NOW}.") for word in _words(bare))
        if not reads and not reads_now:
            raise ConditionError(("PC210", "a condition that reads nothing is always true or always false", 0))
        return Condition(text=text, reads=reads, reads_now=reads_now, program=program)

    def _program(self, text: str) -> Any:
        try:
            return self._environment.compile(text)
        except _FOREIGN as error:
            problems = tuple(self._explain(str(error)))
            raise ConditionError(*problems or [("PC211", "not a condition", 0)]) from error

    def _explain(self, message: str) -> Iterator[tuple[str, str, int]]:
        for match in _CEL_ERROR.finditer(message):
            at, text = int(match[2]) - 1, match[3]
            undeclared = re.match(r"undeclared reference to '([^']*)'", text)
            if undeclared:
                hint = suggest(undeclared[1], [*self._types, NOW])
                yield "PC203", f"the vocabulary knows no attribute `{undeclared[1]}`{hint}", at
            elif "no matching overload" in text:
                yield "PC206", text.removeprefix("found "), at
            else:
                yield "PC211", text, at

    def _names_in(self, bare: str) -> Iterator[str]:
        """Return the declared names that stand in the text; one too many costs a lookup, one missed denies."""
        found: set[str] = set()
        for word in _words(bare):
            parts = word.split(".")
            found.update(name for end in range(1, len(parts) + 1) if (name := ".".join(parts[:end])) in self._types)
        return iter(found)


def _words(bare: str) -> Iterator[str]:
    for match in _WORD.finditer(bare):
        yield re.sub(r"\s", "", match[0])


def _refuse_macros(bare: str) -> None:
    """Refuse `has()`, and comprehensions nested so deep that a list could hold up a decision."""
    has = re.search(r"(?<![\w.])has\s*\(", bare)
    if has:
        raise ConditionError(("PC213", "`has()` is refused; a missing attribute never grants anyway", has.start()))
    loops: list[bool] = []
    for at, character in enumerate(bare):
        if character == "(":
            loops.append(_LOOP.search(bare, 0, at) is not None)
            if sum(loops) > MAX_CONDITION_LOOPS:
                raise ConditionError(("PC211", f"more than {MAX_CONDITION_LOOPS} loops inside each other", at))
        elif character == ")" and loops:
            loops.pop()
