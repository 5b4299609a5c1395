"""The history checker of FAILURE.md section 4: what clients saw, held against what was published and recorded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pdp.errors import Reason
from pdp.model.request import Question
from pdp.world import World

FAULTS = frozenset(
    {
        Reason.WORLD_STALE,
        Reason.WORLD_BEHIND,
        Reason.AUDIT_UNAVAILABLE,
        Reason.STORE_UNAVAILABLE,
        Reason.PDP_UNREACHABLE,
    }
)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One question as a client saw it; `t0`, `t1` are monotonic seconds."""

    client: str
    question: Question
    allowed: bool
    reason: Reason
    world_seq: int
    t0: float
    t1: float
    decision_id: str = ""
    at_least: int = 0


@dataclass(frozen=True, kw_only=True)
class History:
    """All that happened. `worlds` by number, `published` number -> when it was acknowledged, `durable` id -> when recorded."""

    calls: Sequence[Call]
    worlds: Mapping[int, World]
    published: Mapping[int, float]
    durable: Mapping[str, float]
    chains_verify: bool = True
    max_staleness_s: float = 60.0
    reference: Callable[[World, Question], bool] = field(kw_only=True)


def check(history: History) -> list[str]:
    """Return every violation, each beginning with the letter of its assertion; empty is good."""
    found = [problem for call in history.calls for problem in _of_call(history, call)]
    found += _backwards(history)
    if not history.chains_verify:
        found.append("(e) a chain does not verify")
    return found


def _of_call(history: History, call: Call) -> list[str]:
    found = []
    world = history.worlds.get(call.world_seq)
    if world is None:
        found.append(f"(a) {call.client}: an answer of world {call.world_seq}, which never was")
    elif history.reference(world, call.question) != call.allowed and (call.allowed or call.reason not in FAULTS):
        found.append(f"(a) {call.client}: world {call.world_seq} decides otherwise")
    if call.world_seq < call.at_least and call.reason not in FAULTS:
        found.append(f"(b) {call.client}: asked for {call.at_least}, answered by {call.world_seq}")
    if call.allowed:
        ended = history.published.get(call.world_seq + 1)
        if ended is not None and call.t0 > ended + history.max_staleness_s:
            found.append(f"(c) {call.client}: allowed by world {call.world_seq}, stale for too long")
        recorded = history.durable.get(call.decision_id)
        if recorded is None or recorded > call.t1:
            found.append(f"(d) {call.client}: allowed before its record was durable")
    return found


def _backwards(history: History) -> list[str]:
    found = []
    newest: dict[str, Call] = {}
    for call in sorted(history.calls, key=lambda call: call.t1):
        before = newest.get(call.client)
        if before is not None and before.t1 <= call.t0 and call.world_seq < before.world_seq:
            found.append(f"(b) {call.client}: world {call.world_seq} after {before.world_seq}")
        if before is None or call.world_seq > before.world_seq:
            newest[call.client] = call
    return found
