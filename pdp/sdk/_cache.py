"""Decisions kept for a moment, by the rules K1-K7 of FAILURE.md section 6.

Key: a keyed digest of canonical bytes, with a random key of this process, over everything that can change the answer: server,
credential, subject, workload, action, resource, what serves it, attributes with their types, supported obligations; and
the world (K1-K3). Kept: only an allow that came back whole (K4), so that each refused attempt leaves its own record and a
new grant is seen at once. Invalidation: `cache_s` after the question was *sent*, never past `recheck_after`, and all of it
as soon as any answer comes from a newer world; an answer from an older one is not kept (K5). Bypass: `explain`, `watch`,
`check_many` and the lists never look here; `cache_s=0` keeps nothing.
"""

import hashlib
import json
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from pdp.limits import DECISION_CACHE_ENTRIES
from pdp.sdk.values import Asserted, AttributeValue, Bearer, Decision, Dpop, Question, Subject

Key = tuple[int, bytes]
"""World number and digest: what is equal here may share an answer."""

_SEED: Final = secrets.token_bytes(32)
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    decision: Decision
    until_s: float
    recheck_at_s: float | None


class DecisionCache:
    """The decisions of one client. Safe for threads.

    Args:
        life_s: how long an allow is kept at most, in seconds; 0: not at all.
        entries: how many; the least recently stored gives way.
    """

    def __init__(self, *, life_s: float, entries: int = DECISION_CACHE_ENTRIES) -> None:
        self._life_s = life_s
        self._entries = entries
        self._world_seq = 0
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0

    @property
    def enabled(self) -> bool:
        """True if anything is kept at all."""
        return self._life_s > 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, *, now_s: float) -> Decision | None:
        """Return the decision kept for `key`, with what is left of its time, or None.

        Args:
            key: of the question, in the newest world that the client knows.
            now_s: monotonic time, in seconds.
        """
        world_seq, digest = key
        with self._lock:
            self._enter(world_seq)
            kept = self._kept.get(digest)
            if kept is None or world_seq != self._world_seq:
                return None
            if now_s >= kept.until_s:
                del self._kept[digest]
                return None
            self.hits += 1
        if kept.recheck_at_s is None:
            return kept.decision
        return replace(kept.decision, recheck_after_s=kept.recheck_at_s - now_s)

    def put(self, key: Key, decision: Decision, *, sent_s: float) -> None:
        """Keep `decision` if it may be kept.

        Args:
            key: of the question; its digest counts, and the world that the decision itself names.
            decision: the answer.
            sent_s: monotonic time when the question left, in seconds: the answer is at least that old.
        """
        if not decision.allowed or not self.enabled:
            return
        bound_s = decision.recheck_after_s
        until_s = sent_s + (self._life_s if bound_s is None else min(self._life_s, bound_s))
        recheck_at_s = None if bound_s is None else sent_s + bound_s
        with self._lock:
            self._enter(decision.world_seq)
            if decision.world_seq != self._world_seq:
                return
            self._kept[key[1]] = _Kept(decision=decision, until_s=until_s, recheck_at_s=recheck_at_s)
            self._kept.move_to_end(key[1])
            if len(self._kept) > self._entries:
                self._kept.popitem(last=False)

    def _enter(self, world_seq: int) -> None:
        # INVARIANT: what is kept is of world `_world_seq` alone.
        if world_seq > self._world_seq:
            self._world_seq = world_seq
            self._kept.clear()


def question_digest(server: str, token: str, question: Question) -> bytes:
    """Return what distinguishes this question from every other one (K1-K3).

    Args:
        server: whom it is asked.
        token: our credential, whole.
        question: already checked, so that each part has the type it should.
    """
    supports = question.supports
    parts = [
        "pdp.sdk.evaluate",
        server,
        token,
        _subject(question.subject),
        question.workload,
        question.action,
        question.resource,
        question.serves,
        {name: _typed(value) for name, value in question.attributes.items()},
        None if supports is None else sorted(supports),
    ]
    return hashlib.blake2b(_ENCODER.encode(parts).encode("ascii"), key=_SEED, digest_size=32).digest()


def _subject(subject: Subject) -> Any:
    if subject is None:
        return None
    if isinstance(subject, Bearer):
        return ["bearer", subject.token]
    if isinstance(subject, Dpop):
        return ["dpop", subject.token, subject.proof, subject.method, subject.url]
    asserted = Asserted(principal=subject) if isinstance(subject, str) else subject
    actors = [[actor.principal, sorted(actor.groups)] for actor in asserted.actors]
    return ["asserted", asserted.principal, sorted(asserted.groups), actors]


def _typed(value: AttributeValue) -> Any:
    """Return a value that no other type's shares: JSON keeps `1`, `1.0`, `"1"` and `true` apart, an instant needs its name."""
    if isinstance(value, datetime):
        return {"instant": value.astimezone(UTC).isoformat()}
    return list(value) if isinstance(value, tuple) else value
