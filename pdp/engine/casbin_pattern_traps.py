"""Traps in patterns and in row text: what the functions of a matcher make of the columns that it hands to them."""

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from types import MappingProxyType
from typing import Final

import re2

from pdp.engine.casbin_loose import LooseRow
from pdp.engine.casbin_traps import Answer, Files, Trap, accepted, at_row, local_time
from pdp.engine.expression import ExpressionError, Field, parse, walk
from pdp.engine.patterns import OPEN_TIME

Problem = tuple[str, str]
"""A code, or the number of a divergence that has none here, and a message."""

_CALL: Final = re.compile(r"\b(\w+)\(\s*(?:r\d*\.[\w.]+\s*,\s*)?p(\d*)\.(\w+)\s*(?:,[^()]*)?\)")
_TIMES: Final = re.compile(r"\btimeMatch\(\s*(p\d*)\.(\w+)\s*,\s*(?:p\d*\.(\w+)|[^()]*)\s*\)")
_REGEX_KEYS: Final = ("keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5")
_BRACES: Final = ("keyMatch3", "keyMatch4", "keyMatch5")
_META: Final = re.compile(r"[+?()\[\]|^$\\]")
_ASCII: Final = re.compile(r"\\[wds]")
_NO_RE2: Final = re.compile(r"\\[WDSbB]|\(\?[=!<]|\\\d")


def pattern_traps(files: Files) -> Iterator[Trap]:
    """Yield the traps in every column that a matcher hands to a matching function, or to `eval`."""
    for entry, _ in files.matchers():
        for match in _CALL.finditer(entry.value):
            function, suffix, column = match[1], match[2], match[3]
            names = files.model.columns(f"p{suffix}")
            if column not in names or function not in _LOOKS:
                continue
            at = names.index(column)
            for row in files.rows_of(f"p{suffix}"):
                if at < len(row.fields):
                    yield from _traps_of(files, row, at, function)
        for match in _TIMES.finditer(entry.value):
            yield from _times(files, match[1], [column for column in match.groups()[1:] if column])


def _times(files: Files, section: str, columns: list[str]) -> Iterator[Trap]:
    names = files.model.columns(section)
    for at in (names.index(column) for column in columns if column in names):
        for row in files.rows_of(section):
            if at < len(row.fields) and row.fields[at] != OPEN_TIME:
                yield from local_time(row, at, row.fields[at])


def _traps_of(files: Files, row: LooseRow, at: int, function: str) -> Iterator[Trap]:
    denies = files.denies(row)
    for code, message in _LOOKS[function](row.fields[at], function):
        if code == "PC313" and not denies:
            continue
        if code.startswith("PC"):
            yield at_row(row, code, message, at)
        elif code in {"D-28", "D-34"}:
            answer = Answer.REFUSED if denies else Answer.NARROWER
            more = "; on a deny row that allows more, so it must be acknowledged" if denies else ""
            yield accepted(code, answer, message + more, file=row.file, line=row.line, column=row.column(at))
        else:
            answer = Answer.WIDER if code == "D-36" else Answer.NOTED
            yield accepted(code, answer, message, file=row.file, line=row.line, column=row.column(at))


def _path(value: str) -> Iterator[Problem]:
    segments = value.strip("/").split("/")
    if {".", ".."} & set(segments) or "//" in value:
        yield "PC302", f"`{value}` is not canonical; pycasbin compares text, so `..` walks out of it"


def _key(value: str, _function: str) -> Iterator[Problem]:
    yield from _path(value)
    rest = value.partition("*")[2]
    if rest:
        yield "PC301", f"pycasbin ignores `{rest}`, which stands after the first `*`"


def _regex_key(value: str, function: str) -> Iterator[Problem]:
    yield from _path(value)
    bare = re.sub(r"\{[^/]*?\}", "", value) if function in _BRACES else value.replace("{", "(").replace("}", ")")
    meta = _META.search(bare)
    if function == "keyMatch5" and "?" in value:
        yield "D-32", "pycasbin drops a query from the request, so a pattern with `?` never matches as meant"
    if meta:
        yield (
            "PC303",
            f"`{meta[0]}` is part of a regular expression in pycasbin; here only `*` and parameters are special",
        )
    if "." in bare:
        yield "D-28", "a dot is any character in pycasbin; here it is a dot"
    if value == "*" and function != "keyMatch2":
        yield "PC307", "a bare `*` raises in pycasbin"
    if function == "keyMatch2" and re.search(r"[^/]:", value):
        yield "PC304", "pycasbin starts a parameter at any colon; use `keyMatch3`"
    if function in _BRACES and any(segment.count("{") > 1 for segment in value.split("/")):
        yield "PC305", "two parameters in one segment; pycasbin's are greedy"
    if "/*" in value:
        yield "PC306", "`/*` also matches what lies deeper"


def _regex(value: str, _function: str) -> Iterator[Problem]:
    if _NO_RE2.search(value) or not _compiles(value):
        yield "PC311", f"RE2 does not take `{value}`: no look-around, back references, `\\b` or negated classes"
        return
    if re.search(r"[+*]\)?[)]?[+*{]|\([^)]*[+*][^)]*\)[+*{]", value):
        yield "D-34", "takes exponential time in pycasbin; here it is linear"
    if any(not re.search(r"(\$|\.\*)\)*$", part) for part in _alternatives(value)):
        yield "PC310", f"`{value}` has no end: pycasbin also matches whatever goes on behind it"
    if _ASCII.search(value):
        yield "D-34", "`\\w`, `\\d` and `\\s` are ASCII here and match less than in pycasbin"


def _compiles(value: str) -> bool:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(value, options)
    except re2.error:
        return False
    return True


def _alternatives(value: str) -> list[str]:
    """Split a regular expression at the `|` of its top level; one that is wholly in a group is opened first."""
    inner = re.fullmatch(r"\^?\(([^()]*)\)", value)
    if inner:
        value = inner[1]
    parts, depth, start, escaped = [], 0, 0, False
    for at, character in enumerate(value):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        elif character == "|" and not depth:
            parts.append(value[start:at])
            start = at + 1
    return [*parts, value[start:]]


def _glob(value: str, _function: str) -> Iterator[Problem]:
    yield from _path(value)
    if value.startswith("*/"):
        yield "PC312", "pycasbin turns the leading `*/` into `/`"
    elif "*" in value or "?" in value:
        yield "PC313", "wildcards skip names that begin with a dot, so this deny does too"


def _address(value: str, _function: str) -> Iterator[Problem]:
    try:
        ip_network(value, strict=False)
    except ValueError:
        yield "PC307", f"`{value}` is no address and no network; pycasbin compares text"
        return
    yield "D-36", "an IPv4-mapped IPv6 address matches its IPv4 row here, and never in pycasbin"


def _row_text(value: str, _function: str) -> Iterator[Problem]:
    try:
        tree = parse(value)
    except ExpressionError as error:
        yield "PC211", f"evaluated as code in pycasbin, and one bad row fails all: {error.message}"
        return
    if not any(isinstance(node, Field) for node in walk(tree)):
        yield "PC210", f"`{value}` reads nothing: it always says the same, to everybody"


_LOOKS: Final[Mapping[str, Callable[[str, str], Iterator[Problem]]]] = MappingProxyType(
    {
        "keyMatch": _key,
        **dict.fromkeys(_REGEX_KEYS, _regex_key),
        "regexMatch": _regex,
        "globMatch": _glob,
        "ipMatch": _address,
        "eval": _row_text,
    }
)
