"""Values to try conditions with: for each attribute, those at which the conditions' own constants change their answer.

A condition compares attributes with the constants it writes. Trying each constant, its neighbours and something else finds a
case in which two sets of conditions differ, if there is one that such values show. A case that was found is a proof; that
none was found is not, and is never told as one.
"""

import re
from collections.abc import Iterable, Iterator
from math import prod

from pdp.engine.conditions import Condition
from pdp.limits import MAX_VALUATIONS
from pdp.model.attributes import Attributes, AttributeType, Value

_TEXT = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")
_NUMBER = re.compile(r"(?<![\w.'\"])(\d{1,15}(?:\.\d{1,15})?)(?![\w.])")
_OTHER = "something-else"
_ANOTHER = "something-different"
_STEP = 1_000_003
_EARLY, _LATE = "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"


def valuations(conditions: Iterable[Condition], fixed: Attributes) -> Iterator[Attributes]:
    """Yield attributes to try `conditions` with, at most `MAX_VALUATIONS`; those in `fixed` keep their value."""
    texts = sorted({condition.text for condition in conditions})
    reads = sorted({read for condition in conditions for read in condition.reads})
    strings = sorted({one or other for text in texts for one, other in _TEXT.findall(text)})
    numbers = sorted({float(number) for text in texts for number in _NUMBER.findall(text)})
    names = [(name, kind) for name, kind in reads if name not in fixed]
    choices = [tuple(_values(kind, strings, numbers, fixed)) for _, kind in names]
    for values in _spread(choices):
        yield {**fixed, **{name: value for (name, _), value in zip(names, values, strict=True) if value is not None}}


def _spread(choices: list[tuple[Value | None, ...]]) -> Iterator[list[Value | None]]:
    """Yield combinations of the choices: all, or as many as we try, spread evenly over all."""
    total = prod(len(each) for each in choices)
    for number in range(min(total, MAX_VALUATIONS)):
        # A prime that is larger than any number of choices divides no product of them: no combination comes twice.
        rest = number if total <= MAX_VALUATIONS else number * _STEP % total
        values = []
        for each in choices:
            rest, at = divmod(rest, len(each))
            values.append(each[at])
        yield values


def _values(kind: AttributeType, strings: list[str], numbers: list[float], fixed: Attributes) -> Iterator[Value | None]:
    known = sorted({*strings, *(value for value in fixed.values() if isinstance(value, str))})
    if kind is AttributeType.BOOL:
        yield from (True, False)
    elif kind is AttributeType.INT:
        yield from sorted({int(number) + step for number in (*numbers, 0.0) for step in (-1, 0, 1)})
    elif kind is AttributeType.DOUBLE:
        yield from sorted({number + step for number in (*numbers, 0.0) for step in (-1.0, 0.0, 1.0)})
    elif kind is AttributeType.TIMESTAMP:
        yield from (_EARLY, *(text for text in strings if _is_instant(text)), _LATE)
    elif kind is AttributeType.LIST:
        yield from _lists(known, numbers)
    else:
        yield from (*known, _OTHER, _ANOTHER)
    yield None


def _lists(known: list[str], numbers: list[float]) -> Iterator[Value]:
    """Yield lists that hold each text or none, as short and as long as a number says."""
    longest = int(min(max((*numbers, 1.0)), 8.0)) + 1
    for size in range(longest + 1):
        yield tuple(f"{_OTHER}-{number}" for number in range(size))
        for text in (*known, _OTHER):
            if size:
                yield (text, *(f"{_OTHER}-{number}" for number in range(size - 1)))


def _is_instant(text: str) -> bool:
    return len(text) >= len("2026-01-01T00:00:00Z") and text.endswith("Z") and text[:4].isdigit()
