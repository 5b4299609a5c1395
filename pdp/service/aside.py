"""The next world is made beside the loop where that takes long, so that the old one goes on deciding meanwhile.

Folding a lock or an asset takes microseconds; a policy that is compiled whole takes 20 us a row: two seconds of 100,000.
That is done in a thread. A thread and not a process: what it makes is a million small objects, and taking those over from
a process costs a quarter of making them, holds the interpreter longer at a time, and needs a form for each (ADR 0011).
"""

import asyncio
from functools import partial
from typing import Final

from pdp.limits import PREPARE_ASIDE_BYTES
from pdp.replica import Prepared, Replica
from pdp.trust.entry import SignedEntry, SignedSnapshot, peek_kind
from pdp.trust.verifier import Refused

_COMPILING: Final = {"policy", "trial"}
"""Kinds of entries that make a policy, however short they are."""


async def prepare(
    replica: Replica, item: SignedEntry | SignedSnapshot, *, now_ms: int, stored: bool = False
) -> Prepared | Refused:
    """Verify `item` and make the world that follows from it, without putting that in force.

    `stored`: it is the snapshot that our own disk kept.

    INVARIANT: the caller is the only one who commits to `replica`; heartbeats and decisions go on in between.
    """
    if isinstance(item, SignedSnapshot):
        load = replica.prepare_stored if stored else replica.prepare_snapshot
        return await asyncio.to_thread(partial(load, item, now_ms=now_ms))
    if peek_kind(item) in _COMPILING or len(item.payload) > PREPARE_ASIDE_BYTES:
        return await asyncio.to_thread(partial(replica.prepare, item, now_ms=now_ms))
    return replica.prepare(item, now_ms=now_ms)
