"""Classes of names under patterns: for each way in which the patterns of a field overlap, a name that shows it, and a label.

`/a/*` and `/a/b*` make three classes of the names that a policy does not write: those that both match, those that only the
first does, and all others. A class is labelled by the narrowest patterns that match it, each with its function, since the
same text means another thing to another one: `keyMatch(/a/*)` is what no narrower class takes of it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Final, NamedTuple

from pdp.engine.functions import member_match
from pdp.engine.languages import TooManyClassesError, Tree, Trees, classes_of
from pdp.engine.name_languages import BELOW, MEMBER, PATH, REGULAR, language
from pdp.engine.name_uses import Written
from pdp.engine.patterns import PATTERN_FUNCTIONS, PatternError, is_canonical
from pdp.engine.regex_language import IrregularError
from pdp.engine.tables import table_of
from pdp.errors import BadRequestError

Universe = Callable[[Trees], Tree]
"""Makes the language of the names that can be asked about."""
Met = frozenset[Written]

IS_PATH: Final[Written] = (PATH, "")
_OWN_TESTS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    BELOW: lambda name, text: name < text,
    MEMBER: member_match,
    PATH: lambda name, _text: is_canonical(name),
}


def cannot(where: str, why: str) -> BadRequestError:
    """Return the refusal to enumerate the names of a field: where it stands, and what is in the way."""
    return BadRequestError(
        f"the names of {where} cannot be enumerated: {why}; single questions are answered all the same"
    )


class Told(NamedTuple):
    """A name that stands for a class, and the narrowest patterns that match the class; no label if none does."""

    member: str
    label: str


class PatternClasses:
    """What the patterns of one field make of names.

    Raises:
        BadRequestError: a pattern that is not looked into; `where` says of which field.
    """

    def __init__(self, written: Iterable[Written], where: str) -> None:
        self._where = where
        self._trees = Trees()
        self._languages: dict[Written, Tree] = {}
        self.words: set[str] = set()
        """What patterns match that match a few names only: each is a name like one that is written."""
        for pattern in sorted(written):
            self._read(pattern)
        self._finders = dict(self._make_finders())

    def _read(self, pattern: Written) -> None:
        kind, text = pattern
        if kind in PATTERN_FUNCTIONS - REGULAR:
            raise cannot(self._where, f"`{kind}` matches it, and so does another pattern")
        try:
            tree = language(self._trees, kind, text)
        except (IrregularError, PatternError) as error:
            raise cannot(self._where, f"of `{kind}`, {error}") from error
        except TooManyClassesError as error:
            raise self._too_many() from error
        words = self._trees.words(tree) if kind in PATTERN_FUNCTIONS else None
        if words is None:
            self._languages[pattern] = tree
        else:
            self.words |= words

    @property
    def patterns(self) -> Collection[Written]:
        """Those of them that match more than a few names."""
        return self._languages.keys()

    def _too_many(self) -> BadRequestError:
        return cannot(self._where, f"its {len(self._languages)} patterns tell too many apart")

    def of(self, universe: Universe, taken: Iterable[str]) -> dict[Met, Told]:
        """Return each class of names that are not `taken`, by the patterns that match it.

        Raises:
            BadRequestError: there are more than can be told apart.
        """
        try:
            found = classes_of(self._trees, self._languages, universe(self._trees), taken)
        except TooManyClassesError as error:
            raise self._too_many() from error
        for met, name in found.items():
            self._ask_again(met, name)
        wider = _inclusions(found)
        return {met: Told(name, _label(met, wider)) for met, name in found.items()}

    def _ask_again(self, met: Met, name: str) -> None:
        """Refuse if a function sees the name of a class otherwise: then its language was read amiss."""
        # INVARIANT: what a list says of a class is what `evaluate` says of a name of it.
        for kind, find in self._finders.items():
            if find(name) != {text for each, text in met if each == kind}:
                raise cannot(self._where, f"`{kind}` was not understood where it meets `{name}`; please report this")

    def _make_finders(self) -> Iterator[tuple[str, Callable[[str], set[str]]]]:
        for kind in {kind for kind, _ in self._languages}:
            texts = [text for each, text in self._languages if each == kind]
            if kind in _OWN_TESTS:
                yield kind, partial(_tested, _OWN_TESTS[kind], texts)
            else:
                table = table_of(kind)
                for text in texts:
                    table.put(text, text)
                yield kind, partial(_found, table.find)


def _inclusions(found: Iterable[Met]) -> dict[Written, Met]:
    """Return, for each pattern, those that match all that it does."""
    wider: dict[Written, Met] = {}
    for met in found:
        for pattern in met:
            wider[pattern] = wider.get(pattern, met) & met
    return wider


def _label(met: Met, wider: Mapping[Written, Met]) -> str:
    """Return the narrowest patterns of a class as one label; empty if no pattern matches it."""
    wide = {other for pattern in met for other in wider[pattern] if pattern not in wider[other]}
    return " & ".join(_shown(kind, text) for kind, text in sorted(met - wide - {IS_PATH}))


def _shown(kind: str, text: str) -> str:
    if kind == MEMBER:
        return text
    return f"{kind} {text}" if kind == BELOW else f"{kind}({text})"


def _tested(test: Callable[[str, str], bool], texts: list[str], name: str) -> set[str]:
    return {text for text in texts if test(name, text)}


def _found(find: Callable[[str, list[str]], None], name: str) -> set[str]:
    found: list[str] = []
    find(name, found)
    return set(found)
