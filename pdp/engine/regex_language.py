"""Reading a regular expression as the language that it matches, as RE2 reads it.

Only what `patterns.py` lets through gets here, so what RE2 and Python read in two ways need not be told apart. An expression
matches from the first character of a name on (`beginning`) or is all of it (`exactly`).
"""

from typing import Final

from pdp.engine.languages import END, START, Ranges, Tree, Trees, but, merged
from pdp.limits import MAX_CLASS_REPEATS, MAX_EXPRESSION_DEPTH

_DIGITS: Final[Ranges] = ((ord("0"), ord("9")),)
_WORD: Final = merged((*_DIGITS, (ord("A"), ord("Z")), (ord("a"), ord("z")), (ord("_"), ord("_"))))
_CLASSES: Final = {"d": _DIGITS, "w": _WORD, "s": merged((ord(one), ord(one)) for one in "\t\n\f\r ")}
_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
NO_NEWLINE: Final = but(((ord("\n"), ord("\n")),))
_FOLDED: Final = {"k": "\u212a", "s": "\u017f"}
"""What else stands for a letter where case does not count: the signs for Kelvin and the long s."""


class IrregularError(Exception):
    """A pattern that is not looked into, and why."""


def beginning(trees: Trees, text: str) -> Tree:
    """Return the names that `regexMatch` finds to match the expression `text`.

    Raises:
        IrregularError: it says something that is not looked into.
    """
    return trees.beginning(exactly(trees, text))


def exactly(trees: Trees, text: str, dot: Ranges = NO_NEWLINE) -> Tree:
    """Return the names that are, from the first character to the last, what the expression says; `.` is one out of `dot`.

    Raises:
        IrregularError: it says something that is not looked into.
    """
    return _Reader(trees, text, dot).whole()


class _Reader:
    """Reads one expression from left to right."""

    def __init__(self, trees: Trees, text: str, dot: Ranges) -> None:
        self._dot = dot
        self._trees = trees
        self._text = text
        self._at = 0
        self._depth = 0
        self._folds = False

    def whole(self) -> Tree:
        """Return the language of the whole text, whatever follows it left out."""
        if self._accept("(?i)"):
            self._folds = True
        tree = self._alternatives()
        if self._at < len(self._text):
            raise self._strange()
        return tree

    def _accept(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _take(self) -> str:
        self._at += 1
        if self._at > len(self._text):
            raise self._strange()
        return self._text[self._at - 1]

    def _strange(self) -> IrregularError:
        return IrregularError(f"`{self._text}` has something at character {self._at} that is not looked into")

    def _alternatives(self) -> Tree:
        self._depth += 1
        if self._depth > MAX_EXPRESSION_DEPTH:
            raise self._strange()
        found = [self._sequence()]
        while self._accept("|"):
            found.append(self._sequence())
        self._depth -= 1
        return self._trees.either(*found)

    def _sequence(self) -> Tree:
        found = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            found.append(self._repeated(self._single()))
        return self._trees.then(*found)

    def _single(self) -> Tree:  # noqa: PLR0911 - one line for each sign
        character = self._take()
        match character:
            case "(":
                return self._group()
            case "[":
                return self._trees.one_of(self._class())
            case ".":
                return self._trees.one_of(self._dot)
            case "^":
                return START
            case "$":
                return END
            case "\\":
                return self._trees.one_of(self._folded(self._escaped()))
            case "*" | "+" | "?":
                raise self._strange()
            case _:
                return self._trees.one_of(self._folded(_just(character)))

    def _group(self) -> Tree:
        folds = self._folds
        if self._accept("?i:"):
            self._folds = True
        elif self._accept("?P<"):
            self._at = self._text.index(">", self._at) + 1
        elif not self._accept("?:") and self._accept("?"):
            raise self._strange()
        tree = self._alternatives()
        if not self._accept(")"):
            raise self._strange()
        self._folds = folds
        return tree

    def _repeated(self, tree: Tree) -> Tree:
        bounds = self._bounds()
        while bounds is not None:
            least, most = bounds
            if max(least, most or 0) > MAX_CLASS_REPEATS:
                message = f"`{self._text}` repeats more than {MAX_CLASS_REPEATS} times"
                raise IrregularError(message)
            tree = self._trees.repeated(tree, least, most)
            self._accept("?")  # as few as possible: the same names
            bounds = self._bounds()
        return tree

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._accept(sign):
                return bounds
        end = self._text.find("}", self._at)
        if not self._text.startswith("{", self._at) or end < 0:
            return None
        least, comma, most = self._text[self._at + 1 : end].partition(",")
        if not (least.isascii() and least.isdecimal() and (most == "" or (most.isascii() and most.isdecimal()))):
            return None  # a brace is a brace
        self._at = end + 1
        return int(least), int(most) if most else None if comma else int(least)

    def _escaped(self) -> Ranges:
        character = self._take()
        if character in _CLASSES:
            return _CLASSES[character]
        if character == "x":
            digits = self._take() + self._take()
            return _just(chr(int(digits, 16)))
        if character.isascii() and character.isalnum() and character not in _CONTROLS:
            raise self._strange()
        return _just(_CONTROLS.get(character, character))

    def _class(self) -> Ranges:
        negated = self._accept("^")
        found: list[tuple[int, int]] = []
        first = True
        while first or not self._accept("]"):
            low = self._in_class()
            first = False
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                high = self._in_class()
                if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1]:
                    raise self._strange()
                low = ((low[0][0], high[0][1]),)
            found.extend(low)
        ranges = self._folded(merged(found))
        return but(ranges) if negated else ranges

    def _in_class(self) -> Ranges:
        character = self._take()
        return self._escaped() if character == "\\" else _just(character)

    def _folded(self, ranges: Ranges) -> Ranges:
        """Return the characters that stand for these: each in both cases, where case does not count."""
        if not self._folds:
            return ranges
        if any(high > ord("~") for _, high in ranges):
            raise self._strange()
        letters = [chr(point) for low, high in ranges for point in range(low, high + 1) if chr(point).isalpha()]
        others = {other for one in letters for other in (one.swapcase(), _FOLDED.get(one.lower(), one))}
        return merged((*ranges, *(_just(other)[0] for other in others)))


def _just(character: str) -> Ranges:
    return ((ord(character), ord(character)),)
