"""Pages of a list that hold what the caller may see: full ones, with tokens that go on where they ended.

MLflow cuts its pages before anybody has looked at what is on them, so a filter behind it would give pages of any length and,
to most clients, an early end. Here pages of the server's are read until one of the caller's is full; the token holds the
server's own token, how much of that page is used up, and its size.

Source: ENFORCEMENT.md 3.3 (reply filtered).
"""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.limits import LIMITS
from sidecar.mlflow.words import RefusedError, Words

_DEFAULT: Final = 100
_MOST: Final = 50_000

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a page starts: after `used` objects of the server's page at `token`, which holds `size` at most."""

    token: str = ""
    used: int = 0
    size: int = 0

    def written(self) -> str:
        """Return the token that the caller brings back."""
        return base64.urlsafe_b64encode(json.dumps([self.token, self.used, self.size]).encode()).decode("ascii")

    @classmethod
    def read(cls, text: str) -> "Mark":
        """Return what a token says. Nothing is trusted in it: each object is decided, wherever a page starts.

        Raises:
            RefusedError: It is none of ours.
        """
        try:
            token, used, size = json.loads(base64.urlsafe_b64decode(text.encode("ascii")))
        except (ValueError, TypeError):
            raise RefusedError("`page_token` is no token of this server") from None
        sound = isinstance(token, str) and type(used) is int and type(size) is int
        if not sound or not (0 <= used <= size and 0 < size <= LIMITS.list_page):
            raise RefusedError("`page_token` is no token of this server")
        return cls(token=token, used=used, size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of the caller's; an empty token says that it was the last."""

    items: tuple[Item, ...]
    token: str


def wanted(words: Words) -> tuple[int, Mark]:
    """Return how many objects are wanted, and from where on.

    Raises:
        RefusedError: Neither is said so that it can be done.
    """
    said = words.values.get("max_results", _DEFAULT)
    try:
        size = int(said) if isinstance(said, str | int) and not isinstance(said, bool) else 0
    except ValueError:
        size = 0
    if not 0 < size <= _MOST:
        raise RefusedError(f"`max_results` is a number from 1 to {_MOST}")
    token = words.optional("page_token")
    start = Mark(size=max(min(size, LIMITS.list_page), min(_DEFAULT, LIMITS.list_page)))
    return size, Mark.read(token) if token else start


async def filled(
    size: int,
    start: Mark,
    *,
    fetch: Callable[[str, int], Awaitable[tuple[Sequence[Item], str]]],
    seen: Callable[[Sequence[Item]], Awaitable[Sequence[bool]]],
) -> Page:
    """Return a page of `size` objects that may be seen; a shorter one is the last, or the end of our patience.

    Args:
        size: How many.
        start: From where on.
        fetch: Returns the server's page at a token, of a size, and the token of the next one.
        seen: Tells of each object whether it may be seen.
    """
    kept: list[Item] = []
    mark = start
    for _ in range(LIMITS.list_rounds):
        page, following = await fetch(mark.token, mark.size)
        used = await _take(page, mark.used, size, kept, seen)
        if used < len(page):
            return Page(items=tuple(kept), token=Mark(token=mark.token, used=used, size=mark.size).written())
        mark = Mark(token=following, size=mark.size)
        if not following or len(kept) == size:
            break
    return Page(items=tuple(kept), token=mark.written() if mark.token else "")


async def _take(
    page: Sequence[Item],
    used: int,
    size: int,
    kept: list[Item],
    seen: Callable[[Sequence[Item]], Awaitable[Sequence[bool]]],
) -> int:
    """Add to `kept` what may be seen of a page until there are `size`; return how much of the page is used up."""
    while used < len(page) and len(kept) < size:
        part = page[used : used + LIMITS.decide_at_once]
        for item, visible in zip(part, await seen(part), strict=True):
            used += 1
            if visible:
                kept.append(item)
            if len(kept) == size:
                break
    return used
