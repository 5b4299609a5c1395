"""Ids that nobody can guess: of decisions, locks, proposals, calls."""

import os
from typing import Final

from pdp.limits import IDS_DRAWN

_ID_BYTES: Final = 16
_ready: Final[list[str]] = []
os.register_at_fork(after_in_child=_ready.clear)  # INVARIANT: no two processes hand out the same id.


def new_id() -> str:
    """Return 128 random bits in hex. They are drawn for many ids at once: a system call for each took longer than the rest."""
    try:
        return _ready.pop()
    except IndexError:
        drawn = os.urandom(_ID_BYTES * IDS_DRAWN).hex()
        digits = 2 * _ID_BYTES
        first, *more = (drawn[at : at + digits] for at in range(0, len(drawn), digits))
        _ready.extend(more)
        return first
