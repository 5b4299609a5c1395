"""The languages of what stands in rows and matchers, and of what may be asked: a name is matched if it is in the language.

The functions themselves stay what decides (`functions.py`); that these languages say the same is a law
(tests/spec/test_name_languages.py), and each class that is made of them is asked once more (`classes.py`).
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from pdp.engine.languages import ALL, ANY_CHARACTER, EMPTY, Ranges, Tree, Trees, but
from pdp.engine.patterns import PATTERN_FUNCTIONS, glob_regex, glob_segments, is_wild, key_parts
from pdp.engine.regex_language import NO_NEWLINE, IrregularError, beginning, exactly
from pdp.engine.tables import split_version

BELOW: Final = "<"
"""The kind of the pattern that matches every text before its own."""
PATH: Final = "path"
"""The kind of the pattern that matches every path that is canonical, whatever its text."""
MEMBER: Final = "member"
"""The kind of a pattern of our own names (`member_match`)."""

_SLASH: Final = ord("/")
_NO_SLASH: Final = but(((_SLASH, _SLASH),))
_IN_SEGMENT: Final = but(((_SLASH, _SLASH), (ord("@"), ord("@"))))
_ID: Final = r"[A-Za-z0-9._~+/=:$!&()|\^\[\]-]"
_PRINCIPAL: Final = f"(user|agent|workload):({_ID}+(@{_ID}*)?|@{_ID}*)"
_SPIFFE: Final = r"(user|agent|workload):spiffe:"
_NO_DOTS: Final = r"(\.?[A-Za-z0-9_-]|\.\.[A-Za-z0-9._-])[A-Za-z0-9._-]*"
_SPIFFE_ID: Final = f"{_SPIFFE}//[a-z0-9._-]+(/{_NO_DOTS})+"
_RESOURCE: Final = r"(/[A-Za-z0-9][A-Za-z0-9._~-]*)+(@([A-Za-z0-9][A-Za-z0-9._~-]*|sha256:[0-9a-f]{64}))?"


def language(trees: Trees, kind: str, text: str) -> Tree:
    """Return the names that the pattern `text` of function `kind` matches.

    Raises:
        IrregularError: they are no regular language, or the pattern is not looked into.
        PatternError: it is no pattern.
    """
    return _LANGUAGES[kind](trees, text)


def _key_match(trees: Trees, text: str) -> Tree:
    return trees.then(trees.text(text[:-1]), ALL) if text.endswith("*") else trees.text(text)


def _key_pattern(kind: str, trees: Trees, text: str) -> Tree:
    not_newline = trees.repeated(trees.one_of(NO_NEWLINE))
    if text == "*" and kind == "keyMatch2":
        return not_newline
    parameter = trees.repeated(trees.one_of(_NO_SLASH), 1)
    slash = trees.text("/")
    found: list[Tree] = []
    names: list[str] = []
    for _, parts in key_parts(kind, text):
        names.extend(part.parameter for part in parts if part.parameter)
        found.append(slash)
        found.extend(
            not_newline if part.star else parameter if part.parameter else trees.text(part.literal) for part in parts
        )
    if kind == "keyMatch4" and len(set(names)) < len(names):
        message = f"`{text}` wants the same text in two places"
        raise IrregularError(message)
    return trees.then(*found[1:])


def _glob(trees: Trees, text: str) -> Tree:
    # Each segment with the slash before it; that of the first is taken away in the end.
    slash = trees.text("/")
    visible = trees.then(trees.one_of(but(((_SLASH, _SLASH), (ord("."), ord("."))))), _segment_of(trees))
    found = []
    for segment in glob_segments(text):
        if segment == "**":
            found.append(trees.repeated(trees.then(slash, trees.either(EMPTY, visible))))
        elif not is_wild(segment):
            found.append(trees.then(slash, trees.text(segment)))
        else:
            tree = exactly(trees, glob_regex(segment).removeprefix("(?s)"), dot=ANY_CHARACTER)
            found.append(trees.then(slash, trees.both(tree, visible if segment[0] in "*?[" else _segment_of(trees))))
    return trees.after(trees.then(*found), _SLASH)


def _segment_of(trees: Trees) -> Tree:
    return trees.repeated(trees.one_of(_NO_SLASH))


def _below(trees: Trees, text: str) -> Tree:
    return trees.either(
        *(
            trees.then(trees.text(text[:at]), trees.either(EMPTY, trees.then(trees.one_of(_before(character)), ALL)))
            for at, character in enumerate(text)
        )
    )


def _before(character: str) -> Ranges:
    return ((0, ord(character) - 1),) if ord(character) else ()


def _path(trees: Trees, _text: str) -> Tree:
    rest = trees.either(EMPTY, trees.then(trees.text("/"), ALL))
    dots = trees.either(trees.text("."), trees.text(".."))
    bad = (
        trees.then(ALL, trees.text("?"), ALL),
        trees.then(dots, rest),
        trees.then(ALL, trees.text("/"), trees.either(EMPTY, dots), rest),
    )
    return trees.other_than(trees.either(*bad))


def _member(trees: Trees, text: str) -> Tree:
    if text.startswith("workload:"):
        return trees.then(trees.text(text.removesuffix("**")), ALL)
    base, version = split_version(text)
    segment = trees.repeated(trees.one_of(_IN_SEGMENT), 1)
    deep = trees.then(segment, trees.repeated(trees.then(trees.text("/"), segment)))
    found: list[Tree] = []
    for part in base.split("/"):
        found.append(trees.text("/"))
        found.append(segment if part == "*" else deep if part == "**" else trees.text(part))
    tail = trees.text(f"@{version}") if version else trees.either(EMPTY, trees.then(trees.text("@"), ALL))
    return trees.then(*found[1:], tail)


_LANGUAGES: Final[Mapping[str, Callable[[Trees, str], Tree]]] = MappingProxyType(
    {
        "keyMatch": _key_match,
        **{kind: partial(_key_pattern, kind) for kind in ("keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5")},
        "regexMatch": beginning,
        "globMatch": _glob,
        BELOW: _below,
        PATH: _path,
        MEMBER: _member,
    }
)
REGULAR: Final = frozenset(_LANGUAGES) & PATTERN_FUNCTIONS
"""The functions of Casbin that match by the characters of a name."""


def principals(trees: Trees) -> Tree:
    """Return the names of principals (`model/names.py`), however long."""
    spiffe = trees.then(exactly(trees, _SPIFFE), ALL)
    plain = trees.both(exactly(trees, _PRINCIPAL), trees.other_than(spiffe))
    return trees.either(plain, exactly(trees, _SPIFFE_ID))


def resources(trees: Trees, types: Iterable[str]) -> Tree:
    """Return the names of resources of some types, however long."""
    return trees.then(trees.either(*map(trees.text, types)), exactly(trees, _RESOURCE))


def users(trees: Trees) -> Tree:
    """Return every text that begins as the name of a user."""
    return trees.then(trees.text("user:"), ALL)


def asked(trees: Trees) -> Tree:
    """Return every text that may be asked with: all but the empty one."""
    return trees.other_than(EMPTY)


def paths(trees: Trees) -> Tree:
    """Return every text that may be asked with where a path is wanted."""
    return trees.both(asked(trees), _path(trees, ""))


def on_one_line(trees: Trees) -> Tree:
    """Return every text without a line break."""
    return trees.repeated(trees.one_of(NO_NEWLINE))


def on_several_lines(trees: Trees) -> Tree:
    """Return every text with a line break."""
    return trees.other_than(on_one_line(trees))
