"""What a trial has shown so far: how many decisions were compared, which differ, and a bounded number of them by kind."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pdp.audit.replay import Said
from pdp.change.trial import Trial
from pdp.errors import Reason
from pdp.limits import CANARY_SAMPLE, TRIAL_DIFFERENCES
from pdp.service.redecide import GAINS, LOSES, Flip

_NUMBERS: Final = ("seq", "compared", "errors", "skipped", "unreadable", "unseen", "others", "newest_ms")
_MAX_TROUBLE: Final = 200


@dataclass(slots=True)
class Seen:
    """How often a difference was seen, and the first decision that shows it."""

    count: int
    decision_id: str


@dataclass(slots=True, kw_only=True)
class Tally:
    """The counts of trial `seq`.

    `errors` are answers that the candidate's own conditions broke, `skipped` decisions passed over to keep up, `unreadable`
    records that cannot be decided again, `unseen` those of them that allow, `others` differences of kinds for which there was
    no room, `newest_ms` how far the log has been read, `trouble` why comparing does not go on.
    """

    seq: int
    compared: int = 0
    errors: int = 0
    skipped: int = 0
    unreadable: int = 0
    unseen: int = 0
    others: int = 0
    newest_ms: int = 0
    trouble: str = ""
    changes: Counter[str] = field(default_factory=Counter)
    kinds: dict[Flip, Seen] = field(default_factory=dict)

    def add(self, flip: Flip | None, decision_id: str) -> None:
        """Count one decision; what differs is kept apart by kind, as long as there is room."""
        self.compared += 1
        if flip is None:
            return
        self.changes[flip.change] += 1
        broken = Reason.CONDITION_ERROR.value
        self.errors += flip.after.reason == broken and flip.before.reason != broken
        seen = self.kinds.get(flip)
        if seen is not None:
            seen.count += 1
        elif len(self.kinds) < TRIAL_DIFFERENCES:  # who asks for many names does not choose how much is held
            self.kinds[flip] = Seen(1, decision_id)
        else:
            self.others += 1

    def stuck(self, why: str) -> None:
        """Note why nothing is compared."""
        self.trouble = why[:_MAX_TROUBLE]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, for the other workers of this PDP."""
        kinds = [
            [one.change, one.subject, one.action, one.resource, one.before, one.after, seen.count, seen.decision_id]
            for one, seen in self.kinds.items()
        ]
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return {**numbers, "trouble": self.trouble, "changes": dict(self.changes), "kinds": kinds}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is malformed.
        """
        kinds = {}
        for change, subject, action, resource, before, after, count, decision_id in raw["kinds"]:
            flip = Flip(
                change=change,
                subject=subject,
                action=action,
                resource=resource,
                before=_said(before),
                after=_said(after),
            )
            kinds[flip] = Seen(count, decision_id)
        numbers = {name: int(raw[name]) for name in _NUMBERS}
        return cls(**numbers, trouble=str(raw["trouble"]), changes=Counter(raw["changes"]), kinds=kinds)


def _said(raw: Any) -> Said:
    effect, reason, determining, obligations, candidate = raw
    return Said(effect, reason, tuple(determining), tuple(obligations), candidate)


def why_roll_back(trial: Trial, tally: Tally) -> str:
    """Return which of the conditions stated for a canary is met; empty: none."""
    stop = trial.stop
    if stop is None:
        return ""
    if tally.trouble:
        return f"it cannot be watched: {tally.trouble}"
    if tally.errors:
        return f"{tally.errors} of {tally.compared} answers are errors of its own conditions"
    if stop.gains and (grants := _grants(tally)):
        return grants
    loses = tally.changes[LOSES]
    if tally.compared >= CANARY_SAMPLE and loses * 100 > stop.loses * tally.compared:
        return f"{loses} of {tally.compared} answers deny what the live policy allows: more than {stop.loses} %"
    return ""


def _grants(tally: Tally) -> str:
    """Return what a canary allows beyond the live policy; who brings more than a record keeps could gain what nobody sees."""
    if gains := tally.changes[GAINS]:
        return f"{gains} of {tally.compared} answers allow what the live policy denies"
    return f"{tally.unseen} answers allow what cannot be compared with the live policy" if tally.unseen else ""
