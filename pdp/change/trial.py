"""Trials of a proposal: a *shadow* decides beside the live policy and answers nobody, a *canary* answers a named part of all.

A trial is an entry, and so is its end, whether somebody stopped it, its time was over, or it was rolled back. It lasts no
longer than its proposal. No answer depends on a shadow. A canary answers for a share of subjects or at named enforcement
points, until its end and never about administration; whatever else becomes live ends it, for it was approved beside the
policy of then.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from pdp.change.proposal import ProposalSet, check_chain
from pdp.errors import BadRequestError
from pdp.limits import MAX_POINT_CHARS, MAX_POINTS, MAX_SHADOWS, MAX_TRIAL_S

_WHOLE: Final = 100
_HASHED: Final = 1 << 64


class Mode(StrEnum):
    """How a proposal is tried."""

    SHADOW = "shadow"
    CANARY = "canary"


class Ended(StrEnum):
    """Why a trial ended."""

    STOPPED = "stopped"
    TIME = "time"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """For whom a canary answers: `share` percent of all subjects, or at the enforcement points `points`; one of both."""

    share: int = 0
    points: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.share) is not int or not 0 <= self.share <= _WHOLE or bool(self.share) is bool(self.points):
            raise BadRequestError("a canary is for a share of 1 to 100 percent of subjects, or at named points")
        if len(self.points) > MAX_POINTS or any(not _is_point(name) for name in self.points):
            raise BadRequestError(
                f"a canary has at most {MAX_POINTS} points, each of {MAX_POINT_CHARS} characters at most"
            )

    def covers(self, salt: bytes, subject: str, point: str) -> bool:
        """Tell whether a question of `subject` at `point` is the canary's.

        Who is in a share stays in it as long as the canary lasts, and is in every larger share of the same change.
        """
        if self.points:
            return point in self.points
        hashed = hashlib.sha256(b"portcullis/canary/1\x00%b\x00%b" % (salt, subject.encode())).digest()
        return int.from_bytes(hashed[:8]) * _WHOLE < self.share * _HASHED


def _is_point(name: object) -> bool:
    return type(name) is str and 0 < len(name) <= MAX_POINT_CHARS and name.isprintable()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """When a canary is rolled back by itself; an error always does it.

    If more than `loses` percent of its answers deny what the live policy allows; and with `gains`, at the first that allows
    what the live policy denies.
    """

    loses: int
    gains: bool

    def __post_init__(self) -> None:
        if type(self.loses) is not int or not 0 <= self.loses <= _WHOLE or type(self.gains) is not bool:
            raise BadRequestError("a canary is rolled back above a share of 0 to 100 percent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial, begun by entry `seq`; `by` is the chain of who began it. `revision`, `scope` and `stop` are a canary's."""

    seq: int
    mode: Mode
    proposal: str
    digest: str
    by: tuple[str, ...]
    start_ms: int
    end_ms: int
    revision: str = ""
    scope: Scope | None = None
    stop: Stop | None = None

    def __post_init__(self) -> None:
        check_chain(self.by)
        if type(self.end_ms) is not int or not 0 < self.end_ms - self.start_ms <= MAX_TRIAL_S * 1000:
            raise BadRequestError(f"a trial lasts at most {MAX_TRIAL_S / 86_400:.0f} days")
        canary = self.mode is Mode.CANARY
        if any(has is not canary for has in (bool(self.revision), self.scope is not None, self.stop is not None)):
            raise BadRequestError("a canary has a revision, a scope and a condition to stop, and nothing else has")

    def covers(self, subject: str, point: str, now_ms: int) -> bool:
        """Tell whether a canary answers a question of `subject` at the enforcement point `point`, now."""
        return self.scope is not None and now_ms < self.end_ms and self.scope.covers(self.salt, subject, point)

    @property
    def salt(self) -> bytes:
        """What a subject is hashed with: the change, so that the next canary of it has the same subjects and more."""
        return self.digest.encode()

    def to_json(self) -> dict[str, Any]:
        """Return the trial as a canonical-JSON value: what its entry says, and what the entry's header says of it."""
        return {
            "seq": self.seq,
            "mode": self.mode.value,
            "proposal": self.proposal,
            "digest": self.digest,
            "by": list(self.by),
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
            "revision": self.revision,
            "share": self.scope.share if self.scope else 0,
            "points": list(self.scope.points) if self.scope else [],
            "loses": self.stop.loses if self.stop else 0,
            "gains": self.stop.gains if self.stop else False,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote.

        Raises:
            BadRequestError, BadNameError, KeyError, TypeError, ValueError: it is malformed.
        """
        mode = Mode(raw["mode"])
        canary = mode is Mode.CANARY
        return cls(
            seq=raw["seq"],
            mode=mode,
            proposal=raw["proposal"],
            digest=raw["digest"],
            by=tuple(raw["by"]),
            start_ms=raw["start_ms"],
            end_ms=raw["end_ms"],
            revision=raw["revision"],
            scope=Scope(share=raw["share"], points=tuple(raw["points"])) if canary else None,
            stop=Stop(loses=raw["loses"], gains=raw["gains"]) if canary else None,
        )


@dataclass(frozen=True, slots=True)
class TrialSet:
    """The trials that run, oldest first: one canary at most, and a few shadows."""

    running: tuple[Trial, ...] = field(default=())

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.running)

    @property
    def canary(self) -> Trial | None:
        """The canary that runs."""
        return next((one for one in self.running if one.mode is Mode.CANARY), None)

    def begun(self, trial: Trial, proposals: ProposalSet) -> "TrialSet":
        """Return the set with one more; what is over by then, and nobody has said so, gives way.

        Raises:
            BadRequestError: the proposal is not open as the trial says it, it asks for access, the trial outlasts it, or it or
                too many others are tried already.
        """
        proposal = proposals.get(trial.proposal)
        if proposal is None or proposal.digest != trial.digest or proposal.asks_access:
            raise BadRequestError(f"no change {trial.proposal} with that digest is open")
        if trial.end_ms > proposal.expires_ms:
            raise BadRequestError("a trial ends before its proposal does")
        kept = tuple(one for one in self.running if one.end_ms > trial.start_ms)
        alike = [one for one in kept if one.mode is trial.mode]
        if any(one.proposal == trial.proposal for one in alike):
            raise BadRequestError(f"{trial.proposal} runs as a {trial.mode} already")
        if len(alike) >= (1 if trial.mode is Mode.CANARY else MAX_SHADOWS):
            raise BadRequestError(f"{alike[0].proposal} runs as a {trial.mode}: end it first")
        return TrialSet((*kept, trial))

    def ended(self, seq: int) -> "TrialSet":
        """Return the set without the trial of that entry.

        Raises:
            BadRequestError: it does not run.
        """
        if all(one.seq != seq for one in self.running):
            raise BadRequestError("no such trial runs")
        return TrialSet(tuple(one for one in self.running if one.seq != seq))

    def of(self, proposals: ProposalSet) -> "TrialSet":
        """Return the set as far as its proposals are open."""
        return TrialSet(tuple(one for one in self.running if proposals.get(one.proposal) is not None))

    def without_canary(self) -> "TrialSet":
        """Return the shadows."""
        return TrialSet(tuple(one for one in self.running if one.mode is not Mode.CANARY))


NO_TRIALS: Final = TrialSet()
