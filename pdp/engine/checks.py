"""What the fields of a row mean: names, patterns and words are checked by the test that the matcher makes of each column."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from pdp.engine.casbin_text import OPEN, RoleDefinition, Row
from pdp.engine.findings import Finding, suggest
from pdp.engine.functions import ANY, action_alternatives
from pdp.engine.patterns import OPEN_TIME, PATTERN_FUNCTIONS, PatternError, parse_time, read_pattern
from pdp.engine.plan import EQUAL, LITERAL, ROLE, Term
from pdp.errors import BadNameError, BadRequestError
from pdp.limits import MAX_NAME_BYTES
from pdp.model.names import (
    ENVIRONMENTS,
    GROUPING_PREFIXES,
    Action,
    Kind,
    Principal,
    ResourcePattern,
    SpiffeId,
    check_grouping_name,
    printable,
)
from pdp.model.vocabulary import Vocabulary

Problem = tuple[str, str]
"""A code and a message; the caller knows the place."""

_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z")
_PREFIXES: Final = (*GROUPING_PREFIXES, *(f"{kind.value}:" for kind in Kind))


def check_value(value: str, terms: Sequence[Term], vocabulary: Vocabulary) -> Iterator[Problem]:
    """Yield what is wrong with a `value` of a column of our own names; one of the column's tests must accept its form."""
    if any(term.kind == LITERAL and term.text == value for term in terms):
        return
    kinds = [term.kind for term in terms if term.kind != LITERAL] or [EQUAL]
    if ROLE in kinds and len(kinds) > 1 and value.startswith(_PREFIXES):
        kinds = [ROLE]
    elif ROLE in kinds and len(kinds) > 1:
        kinds.remove(ROLE)
    if kinds[0] in _CHECKS:
        yield from _CHECKS[kinds[0]](value, vocabulary)
    else:
        yield from check_plain(value, terms)


def check_plain(value: str, terms: Sequence[Term]) -> Iterator[Problem]:
    """Yield what is wrong with a `value` of a column whose names are any text, and patterns of what tests it."""
    yield from _check_name(value)
    for term in terms:
        try:
            if term.kind in PATTERN_FUNCTIONS:
                read_pattern(term.kind, value)
            elif term.kind == "timeMatch" and value != OPEN_TIME:
                parse_time(value)
        except PatternError as error:
            yield error.code, error.message


def check_role_row(row: Row, definition: RoleDefinition, vocabulary: Vocabulary) -> Iterator[Finding]:
    """Yield what is wrong with the names, the domain and the times of a role row."""
    if definition.plain:
        yield from _check_plain_role(row, definition)
        return
    name, target, *rest = row.fields
    for code, message in _check_member(name, vocabulary):
        yield row.problem(code, message, 0)
    if _refused(check_grouping_name, target):
        # D-44: whatever stands here is a role; a principal that stood here would be refused as a subject.
        message = f"`{printable(target)}` is not a `role:`, `group:`, `segment:` or `collection:` name"
        yield row.problem("PC115", message, 1)
    times = row.fields[definition.places :]
    if len(rest) > len(times):
        for code, message in _check_environment(rest[0], vocabulary):
            yield row.problem(code, message, 2)
    yield from _check_times(row, definition)


def _check_plain_role(row: Row, definition: RoleDefinition) -> Iterator[Finding]:
    for position, value in enumerate(row.fields):
        for code, message in _check_name(value):
            yield row.problem(code, message, position)
    matching = ((0, definition.matches), (2, definition.domain_matches))
    for position, function in matching:
        if function:
            try:
                read_pattern(function, row.fields[position])
            except PatternError as error:
                yield row.problem(error.code, error.message, position, error.at)
    if definition.matches and not _is_literal(definition.matches, row.fields[1]):
        # In pycasbin, whether such a role stands for a name depends on which of them was seen first.
        yield row.problem("PC307", "a pattern on the right side of a role row; patterns stand on the left", 1)
    yield from _check_times(row, definition)


def _is_literal(function: str, text: str) -> bool:
    try:
        return read_pattern(function, text).literal
    except PatternError:
        return False


def _check_times(row: Row, definition: RoleDefinition) -> Iterator[Finding]:
    places = definition.places
    bounds = []
    for position in range(places, len(row.fields)):
        text = row.fields[position]
        if text == OPEN:
            continue
        try:
            if not definition.plain and not _INSTANT.fullmatch(text):
                raise PatternError("PC212", f"`{printable(text)}` is not an instant, such as `2026-11-20T08:00:00Z`")
            bounds.append(parse_time(text))
        except PatternError as error:
            yield row.problem(error.code, error.message, position)
    if len(bounds) > 1 and bounds[0] >= bounds[1]:
        yield row.problem("PC403", "a link that ends before it starts", places + 1)


def _check_action(value: str, vocabulary: Vocabulary) -> Iterator[Problem]:
    for action in action_alternatives(value):
        kind, dot, verb = action.partition(".")
        if action == ANY or (verb == ANY and kind in vocabulary.types):
            continue
        if not dot or _refused(Action.parse, action) or not vocabulary.knows(Action.parse(action)):
            known = (*vocabulary.actions(), *(f"{name}.*" for name in vocabulary.types))
            yield "PC203", f"the vocabulary knows no action `{printable(action)}`{suggest(action, known)}"


def _check_resource(value: str, vocabulary: Vocabulary) -> Iterator[Problem]:
    try:
        pattern = ResourcePattern.read(value)
    except BadNameError as error:
        code = "PC302" if {"", ".", ".."} & set(value.split("/")) else "PC307"
        yield code, error.message
        return
    if pattern.type not in vocabulary.types:
        yield "PC203", f"the vocabulary knows no type `{pattern.type}`{suggest(pattern.type, vocabulary.types)}"


def _check_environment(value: str, _vocabulary: Vocabulary) -> Iterator[Problem]:
    if value not in (*ENVIRONMENTS, ANY):
        known = ", ".join((*ENVIRONMENTS, ANY))
        yield "PC203", f"no environment `{printable(value)}`: {known}{suggest(value, ENVIRONMENTS)}"


def _check_member(value: str, vocabulary: Vocabulary) -> Iterator[Problem]:
    """Check a name that stands in a role graph: a principal, a grouping name, a resource, or a pattern of these."""
    if value.startswith(GROUPING_PREFIXES):
        if _refused(check_grouping_name, value):
            yield "PC115", f"`{printable(value)}` is not a well-formed name"
    elif value.startswith(_PREFIXES):
        yield from _check_principal(value)
    elif "/" in value:
        yield from _check_resource(value, vocabulary)
    else:
        yield "PC115", f"`{printable(value)}` is no name; names start with {', '.join(_PREFIXES)} or `<type>/`"


def _check_principal(value: str) -> Iterator[Problem]:
    if value.startswith("workload:spiffe://") and value.endswith("/**"):
        trust_domain, _, path = value.removeprefix("workload:spiffe://").removesuffix("/**").partition("/")
        if _refused(SpiffeId.parse, f"spiffe://{trust_domain}/{path or 'any'}"):
            yield "PC307", f"`{printable(value)}`: before `/**` stands a SPIFFE ID, in whole segments"
        return
    try:
        Principal.read(value)
    except BadNameError as error:
        yield "PC307" if "*" in value else "PC115", f"`{printable(value)}`: {error.message}"


def _check_text(value: str, _vocabulary: Vocabulary) -> Iterator[Problem]:
    if len(value.encode(errors="surrogatepass")) > MAX_NAME_BYTES or not value.isprintable():
        yield "PC115", f"a name is printable and has at most {MAX_NAME_BYTES} bytes"


def _check_name(value: str) -> Iterator[Problem]:
    """Refuse what a reader cannot see, or would take for something else (D-13)."""
    if len(value.encode(errors="surrogatepass")) > MAX_NAME_BYTES or not value.isprintable():
        yield "PC115", f"a name is printable and has at most {MAX_NAME_BYTES} bytes"
    elif not value.isascii() and not unicodedata.is_normalized("NFC", value):
        yield "PC115", "a name is in Unicode normal form C (NFC)"


def _refused(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except (BadNameError, BadRequestError):
        return True
    return False


_CHECKS: Final[Mapping[str, Callable[[str, Vocabulary], Iterator[Problem]]]] = MappingProxyType(
    {
        EQUAL: _check_text,
        ROLE: _check_member,
        "actionMatch": _check_action,
        "resourceMatch": _check_resource,
        "envMatch": _check_environment,
    }
)
