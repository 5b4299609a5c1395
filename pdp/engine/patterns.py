"""Patterns of Casbin's matching functions: read once, refused where they could mean two things, matched in linear time.

`read_pattern(kind, text)` is the one reader: the functions of a matcher, the checks of rows and the index all go through it.
What it returns says how far a name can be looked up (`steps`, segment by segment) and what is left to be checked
(`verify`). Regular expressions run on RE2; the literal parts of a pattern are literal (CASBIN.md D-26 to D-38).
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import re2

from pdp.errors import BadRequestError
from pdp.limits import MAX_NAME_BYTES
from pdp.model.attributes import instant_ms
from pdp.model.names import printable

Verify = Callable[[str], bool]

PATH_FUNCTIONS: Final = frozenset({"keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch"})
"""Functions whose first argument is a path: a name that is not canonical is refused before they see it (D-27)."""
OPEN_TIME: Final = "_"


class PatternError(Exception):
    """A text that is no pattern of its kind: code, message and offset."""

    def __init__(self, code: str, message: str, at: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.at = at


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """How a pattern is found and checked.

    `steps` are its leading segments, None for any one that is not empty; `whole` tells whether they are all of it. A
    pattern by characters has a `prefix` instead. `verify` checks what that leaves open, None if nothing.
    """

    verify: Verify | None = None
    steps: tuple[str | None, ...] = ()
    whole: bool = False
    prefix: str = ""
    network: Any = None
    literal: bool = False
    """It matches its own text and nothing else."""
    crosses: bool = False
    """A wildcard crosses slashes (PC306)."""
    skips_dots: bool = False
    """A wildcard skips names that begin with a dot (PC313)."""

    def covers(self, value: str) -> bool | None:
        """Tell whether the pattern matches the whole of `value`; None if that cannot be said of such a value."""
        if self.network is not None:
            address = parse_address(value)
            return None if address is None else address.version == self.network.version and address in self.network
        if self.steps and not self._walks(value):
            return False
        return value.startswith(self.prefix) and (self.verify is None or self.verify(value))

    def _walks(self, value: str) -> bool:
        segments = value.split("/")
        if len(segments) < len(self.steps) or (self.whole and len(segments) != len(self.steps)):
            return False
        return all(
            segment == step if step is not None else bool(segment)
            for step, segment in zip(self.steps, segments, strict=False)
        )


@lru_cache(maxsize=4_096)
def read_pattern(kind: str, text: str) -> Pattern:
    """Return the pattern that `text` writes for the function `kind`.

    Raises:
        PatternError: it is none, or means something else to pycasbin than it seems to.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        raise PatternError("PC307", f"a pattern has at most {MAX_NAME_BYTES} bytes")
    return _READERS[kind](text)


def is_canonical(name: str) -> bool:
    """Tell whether a path can be read in one way only: no `.`, `..` or empty segment but a leading one, no `?` (D-27, D-32)."""
    if "?" in name:
        return False
    first, *rest = name.split("/")
    return first not in {".", ".."} and {"", ".", ".."}.isdisjoint(rest)


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address, IPv4 if it is one mapped into IPv6 (D-36); None if the text is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version == 6:  # noqa: PLR2004 - IP version 6
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def parse_time(text: str) -> int:
    """Return an instant in milliseconds: `2026-11-20 08:00:00`, in UTC (D-38), or `2026-11-20T08:00:00Z`.

    Raises:
        PatternError: it is neither.
    """
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", text, re.ASCII):
            parsed = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
            return int(parsed.timestamp()) * 1000
        if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z", text, re.ASCII):
            return instant_ms(text)
    except (ValueError, BadRequestError):
        pass
    raise PatternError("PC212", f"`{printable(text)}` is not an instant, such as `2026-11-20T08:00:00Z`")


def within(start: str, end: str, now_ms: int) -> bool | None:
    """Tell whether `now_ms` is strictly between two instants, `_` being open; None if one is no instant."""
    try:
        return (start == OPEN_TIME or parse_time(start) < now_ms) and (end == OPEN_TIME or now_ms < parse_time(end))
    except PatternError:
        return None


# --- keyMatch, keyMatch2 to keyMatch5 --------------------------------------------------------------------------------

_PARAMETERS: Final = MappingProxyType(
    {
        "keyMatch2": re.compile(r":([^/]*)"),
        "keyMatch3": re.compile(r"\{([^/]*?)\}"),
        "keyMatch4": re.compile(r"\{([^/]*)\}"),
        "keyMatch5": re.compile(r"\{([^/]*)\}"),
    }
)
_PARAMETER_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]+")
_REGEX_CHARACTERS: Final = frozenset("()[]{}+?^$|\\*")


def _key_match(text: str) -> Pattern:
    star = text.find("*")
    if 0 <= star < len(text) - 1:
        raise PatternError("PC301", "`*` must be last: what follows it would count for nothing", star)
    _check_path(text)
    if star < 0:
        return Pattern(prefix=text, verify=lambda name: name == text, literal=True)
    return Pattern(prefix=text[:star], crosses=False)


def _check_path(text: str) -> None:
    """Refuse what no canonical name has: such a pattern would match nothing, or be meant for something else (D-27)."""
    first, *rest = text.split("/")
    if first in {".", ".."} or not {"", ".", ".."}.isdisjoint(rest):
        raise PatternError("PC302", f"`{printable(text)}` has a `.`, `..` or empty segment")


def _key_pattern(kind: str, text: str) -> Pattern:
    if text == "*" and kind == "keyMatch2":
        return Pattern(verify=lambda name: "\n" not in name)
    _check_path(text)
    steps: list[str | None] = []
    names: list[str] = []
    regex: list[str] = []
    plain = True
    for segment, parts in key_parts(kind, text):
        regex.append("".join(_regex(part) for part in parts))
        names.extend(part.parameter for part in parts if part.parameter)
        whole = len(parts) == 1 and not parts[0].star
        plain = plain and whole
        if plain:
            steps.append(None if parts[0].parameter else segment)
    repeated = kind == "keyMatch4" and len(set(names)) < len(names)
    verify = None if plain and not repeated else _verifier("/".join(regex), names if repeated else [])
    literal = plain and None not in steps
    return Pattern(steps=tuple(steps), whole=plain, verify=verify, literal=literal, crosses="/*" in text)


def key_parts(kind: str, text: str) -> Iterator[tuple[str, tuple["Part", ...]]]:
    """Yield each segment of a pattern of `keyMatch2` to `5`, and what it consists of.

    Raises:
        PatternError: the pattern could mean two things.
    """
    at = 0
    for number, segment in enumerate(text.split("/")):
        yield segment, tuple(_parts(kind, segment, number, at))
        at += len(segment) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a segment: literal text, a parameter, or the star that crosses slashes."""

    literal: str = ""
    parameter: str = ""
    star: bool = False


def _regex(part: Part) -> str:
    if part.star:
        return ".*"
    return "([^/]+)" if part.parameter else re2.escape(part.literal)


def _parts(kind: str, segment: str, number: int, at: int) -> Iterator[Part]:
    star = segment.startswith("*") and number > 0
    rest, offset = (segment[1:], at + 1) if star else (segment, at)
    if star:
        yield Part(star=True)
    found = list(_PARAMETERS[kind].finditer(rest))
    if kind == "keyMatch2" and found and (found[0].start() > 0 or number == 0 or star):
        message = "`:` is a parameter only after `/`; use `keyMatch3` with `{name}`, or leave the colon out"
        raise PatternError("PC304", message, offset + found[0].start())
    if kind in {"keyMatch4", "keyMatch5"} and (len(found) > 1 or rest.count("{") > 1):
        raise PatternError("PC305", "at most one parameter in a segment", offset + rest.find("{"))
    end = 0
    for match in found:
        yield from _literal(rest[end : match.start()], offset + end)
        if not _PARAMETER_NAME.fullmatch(match[1]):
            raise PatternError("PC307", "a parameter has a name of letters, digits and `_`", offset + match.start())
        yield Part(parameter=match[1])
        end = match.end()
    if rest[end:] or not (star or found):
        yield from _literal(rest[end:], offset + end, always=True)


def _literal(text: str, at: int, *, always: bool = False) -> Iterator[Part]:
    for offset, character in enumerate(text):
        if character in _REGEX_CHARACTERS:
            raise PatternError(
                "PC303", f"`{character}` is an operator of regular expressions, and refused", at + offset
            )
    if text or always:
        yield Part(literal=text)


def _verifier(regex: str, names: list[str]) -> Verify:
    """Return a test of the whole value; of equal names, the values must be equal too (keyMatch4)."""
    compiled = _compiled(regex)

    def verify(value: str) -> bool:
        match = compiled.fullmatch(value)
        if match is None or not names:
            return match is not None
        values: dict[str, str] = {}
        return all(values.setdefault(name, group) == group for name, group in zip(names, match.groups(), strict=True))

    return verify


def _compiled(regex: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(regex, options)
    except re2.error as error:
        raise PatternError("PC311", f"RE2 refuses the expression: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return printable(text.decode(errors="replace") if isinstance(text, bytes) else str(text))


# --- regexMatch ------------------------------------------------------------------------------------------------------

_UNEQUAL: Final = re.compile(r"\\[WDSbBQECpPzZA0-9]|\[\[:|\{,|\(\?[a-zA-Z]*[msUaLux]|\(\?P=")
"""What RE2 and Python's `re` read in two ways, or one of them not at all (D-34)."""
_LITERAL_PREFIX: Final = re.compile(r"\^?((?:[A-Za-z0-9/_:@ ,~%=-]|\\[.\-/])*)([*?{+]?)")


def _regex_match(text: str) -> Pattern:
    unequal = _UNEQUAL.search(_without_escaped_backslashes(text))
    if unequal:
        raise PatternError("PC311", f"`{unequal[0]}` is not the same in RE2 and Python", unequal.start())
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError("PC311", f"not a regular expression: {printable(str(error))}") from error
    compiled = _compiled(text)
    if not _anchored(text):
        raise PatternError("PC310", "every alternative must end in `$` or `.*`; it would match any longer text too")
    return Pattern(prefix=_literal_prefix(text), verify=lambda value: compiled.match(value) is not None)


def _without_escaped_backslashes(text: str) -> str:
    return text.replace("\\\\", "__")


def _literal_prefix(text: str) -> str:
    """Return the characters with which every match begins; none if there are alternatives."""
    if "|" in text or text.startswith("(?"):
        return ""
    match = _LITERAL_PREFIX.match(text)
    if match is None:
        return ""
    literal = match[1].replace("\\", "")
    return literal[:-1] if match[2] and match[2] != "+" else literal


def _anchored(text: str) -> bool:
    """Tell whether every alternative ends in `$` or `.*`, in the last group too."""
    return all(_ends(alternative) for alternative in _alternatives(text))


def _ends(text: str) -> bool:
    escaped = re.search(r"(\\*)\.?.?$", text)
    if text.endswith("$"):
        return not _odd_backslashes(text[:-1])
    if text.endswith(".*"):
        return not _odd_backslashes(text[:-2])
    if text.endswith(")") and escaped is not None and not _odd_backslashes(text[:-1]):
        inner = _last_group(text)
        return inner is not None and _anchored(inner)
    return False


def _odd_backslashes(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _scan(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield offset, character and depth of each character that is neither escaped nor in a class."""
    at, depth = 0, 0
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 2
            continue
        if character == "[":
            at = _class_end(text, at)
            continue
        depth -= character == ")"
        yield at, character, depth
        depth += character == "("
        at += 1


def _class_end(text: str, at: int) -> int:
    end = at + 1 + text.startswith("^", at + 1)
    end += text.startswith("]", end)
    while end < len(text) and text[end] != "]":
        end += 2 if text[end] == "\\" else 1
    return end + 1


def _alternatives(text: str) -> list[str]:
    cuts = [-1, *(at for at, character, depth in _scan(text) if character == "|" and depth == 0), len(text)]
    return [text[start + 1 : end] for start, end in pairwise(cuts)]


def _last_group(text: str) -> str | None:
    """Return the inside of the group that ends `text`, without what names it."""
    opens = [at for at, character, depth in _scan(text) if character == "(" and depth == 0]
    if not opens:
        return None
    inner = text[opens[-1] + 1 : -1]
    head = re.match(r"\?(?::|i:|P<\w+>)", inner)
    if inner.startswith("?") and head is None:
        return None
    return inner[head.end() :] if head else inner


# --- globMatch, ipMatch ----------------------------------------------------------------------------------------------


def _glob_match(text: str) -> Pattern:
    if text.startswith("*/"):
        raise PatternError("PC312", "a leading `*/` is read as `/`; say `**/` or name the segment")
    for at, character in enumerate(text):
        if character in "{}\\":
            raise PatternError("PC307", f"`{character}` is not supported in a glob pattern", at)
    if "**/**" in text:
        raise PatternError("PC307", "`**/**` is not supported; say `**`", text.find("**/**"))
    _check_path(text)
    segments = glob_segments(text)
    tests = tuple(_glob_segment(segment) for segment in segments)
    steps: list[str | None] = []
    for segment in segments:
        if is_wild(segment):
            break
        steps.append(segment)
    whole = len(steps) == len(segments)
    if len(steps) == len(segments) - 1 and segments[-1] == "**" and steps:
        # `a/**` is `a` too: the last literal segment alone may be all of the name.
        return Pattern(steps=tuple(steps), verify=lambda name: _below(name, len(steps)), skips_dots=True)
    verify = None if whole else lambda name: _glob(tests, tuple(name.split("/")))
    return Pattern(steps=tuple(steps), whole=whole, verify=verify, literal=whole, skips_dots=not whole)


def glob_segments(text: str) -> list[str]:
    """Return the segments of a glob pattern; within one, several stars are one."""
    return [segment if segment == "**" else re.sub(r"\*{2,}", "*", segment) for segment in text.split("/")]


def _below(name: str, count: int) -> bool:
    return not any(segment.startswith(".") for segment in name.split("/")[count:])


def is_wild(segment: str) -> bool:
    """Tell whether a segment of a glob pattern matches more than itself."""
    return not {"*", "?", "["}.isdisjoint(segment)


def _glob_segment(segment: str) -> Verify | None:
    """Return the test of one segment; None for `**`."""
    if segment == "**":
        return None
    if not is_wild(segment):
        return lambda text: text == segment
    compiled = _compiled(glob_regex(segment))
    dotted = segment[0] not in "*?["

    def test(text: str) -> bool:
        return bool(text) and (dotted or text[0] != ".") and compiled.fullmatch(text) is not None

    return test


def glob_regex(segment: str) -> str:
    """Return the expression, in RE2's syntax, of one segment of a glob pattern; whether dots may be first is not its matter.

    Raises:
        PatternError: a class of characters that could mean two things.
    """
    regex, at = [], 0
    while at < len(segment):
        character = segment[at]
        if character == "[":
            end = segment.find("]", at + 2)
            inner = segment[at + 1 : end]
            if end < 0 or not re.fullmatch(r"[!^]?[A-Za-z0-9_.]+(?:-[A-Za-z0-9][A-Za-z0-9_.]*)*", inner):
                raise PatternError("PC307", "a class is `[abc]`, `[a-z]` or `[!abc]`, of letters and digits")
            regex.append(f"[{'^' if inner[0] in '!^' else ''}{inner.lstrip('!^')}]")
            at = end
        else:
            regex.append({"*": ".*", "?": "."}.get(character) or re2.escape(character))
        at += 1
    return "(?s)" + "".join(regex)


def _glob(tests: tuple[Verify | None, ...], segments: tuple[str, ...]) -> bool:
    """Match segment by segment; `**` is any number of segments that do not begin with a dot."""
    reached = {0}
    for number, test in enumerate(tests):
        following: set[int] = set()
        for at in sorted(reached):
            if test is not None:
                if at < len(segments) and test(segments[at]):
                    following.add(at + 1)
                continue
            following.add(at)
            while at < len(segments) and not segments[at].startswith("."):
                at += 1  # noqa: PLW2901 - the run of segments that `**` may take
                following.add(at)
        reached = following
        if not reached or (number == len(tests) - 1 and len(segments) in reached):
            break
    return len(segments) in reached


def _ip_match(text: str) -> Pattern:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise PatternError("PC307", f"`{printable(text)}` is neither an address nor a network") from error
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:  # noqa: PLR2004 - where the IPv4 part of a mapped address begins
        network = ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
    return Pattern(network=network)


_READERS: Final[Mapping[str, Callable[[str], Pattern]]] = MappingProxyType(
    {
        "keyMatch": _key_match,
        **{kind: partial(_key_pattern, kind) for kind in _PARAMETERS},
        "regexMatch": _regex_match,
        "globMatch": _glob_match,
        "ipMatch": _ip_match,
    }
)
PATTERN_FUNCTIONS: Final = frozenset(_READERS)
"""Functions whose second argument is a pattern."""


def covers(kind: str, value: str, text: str) -> bool | None:
    """Tell whether the pattern `text` of function `kind` matches `value`; None if that cannot be said."""
    try:
        return read_pattern(kind, text).covers(value)
    except PatternError:
        return None
