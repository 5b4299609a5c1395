"""Proposals: changes of the policy that wait in the log for a second pair of eyes.

A proposal is an entry, and so is every verdict on it; no decision depends on either. What a verdict says yes to is the
*digest* of the exact change: a proposal is never edited, and an approval of other bytes approves nothing. A proposal ends by
a policy entry that names it, by a rejection, or by its time; what has ended is history, and only the log remembers it.

People are told apart by their whole chain, subject and actors: an agent that acts for somebody counts as that somebody, and
two verdicts that share a link of their chains are one person's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Self

from pdp.errors import BadRequestError
from pdp.limits import MAX_ACT_DEPTH, MAX_MESSAGE_BYTES, MAX_OPEN_PROPOSALS, MAX_PROPOSALS_EACH, MAX_SAFE_INTEGER
from pdp.model import canonical
from pdp.model.names import Principal
from pdp.model.request import Party

_CHANGE: Final = "portcullis/change/1"
_MAX_CHAIN: Final = 1 + MAX_ACT_DEPTH

Change = Mapping[str, Any]
"""What a policy entry carries: `model` and `vocabulary` (None: as before), rows `added` and `removed`, `rows_digest`."""


def change_digest(change: Change) -> str:
    """Return what names exactly this change, in hex: an approval binds to it."""
    return canonical.digest(_CHANGE, canonical.dumps(dict(change))).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One person's word on a proposal. `by` is the chain: subject first, then the actors; `seq` the entry that says so.

    `groups` is what their issuers vouched for then: whether they still may is asked again when their word counts.
    """

    by: tuple[str, ...]
    approves: bool
    message: str
    seq: int
    time_ms: int
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_chain(self.by)
        self.parties()
        check_message(self.message)

    def parties(self) -> tuple[Party, ...]:
        """Return who said it, with the groups they had then."""
        return _parties(self.by, self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A change that waits. `revision` is the policy it was compared with, and `words` names that one's model and vocabulary.

    `authors` is the chain of who proposed it, `groups` what its issuers vouched for then. `expires_ms` ends it and every
    approval of it. `verdicts` are approvals only: a rejection ends a proposal.
    """

    id: str
    digest: str
    change: Change
    revision: str
    words: str
    authors: tuple[str, ...]
    groups: tuple[str, ...]
    seq: int
    time_ms: int
    expires_ms: int
    verdicts: tuple[Verdict, ...] = ()

    def __post_init__(self) -> None:
        check_chain(self.authors)
        self.parties()
        check_message(self.message)
        if not 0 < self.time_ms < self.expires_ms <= MAX_SAFE_INTEGER:
            raise BadRequestError("a proposal ends after it was made")

    @property
    def message(self) -> str:
        """Why, in its author's words."""
        return str(self.change.get("message", ""))

    @property
    def asks_access(self) -> bool:
        """Whether it asks for access for a time, and is no change as it is written."""
        return "access" in self.change

    def parties(self) -> tuple[Party, ...]:
        """Return who proposed it, with the groups they had then: nobody of them may gain by it."""
        return _parties(self.authors, self.groups)

    def written_by(self, chain: tuple[str, ...]) -> bool:
        """Tell whether somebody of `chain` had a hand in it: the author never approves, nor does an agent they share."""
        return not set(chain).isdisjoint(self.authors)

    def approved(self, verdict: Verdict) -> "Proposal":
        """Return it with one more approval; the same people's word again takes the place of what they said before."""
        kept = tuple(verdict if one.by == verdict.by else one for one in self.verdicts)
        return replace(self, verdicts=kept if verdict in kept else (*kept, verdict))

    def approvers(self) -> tuple[str, ...]:
        """Return the subjects who approved it, each person once."""
        found: dict[str, None] = {}
        seen: set[str] = set(self.authors)
        for verdict in self.verdicts:
            if seen.isdisjoint(verdict.by):
                found[verdict.by[0]] = None
            seen.update(verdict.by)
        return tuple(found)

    def history(self) -> dict[str, Any]:
        """Return what the entry that makes it live says of how it came about."""
        approvals = [{"by": list(one.by), "seq": one.seq} for one in self.verdicts]
        return {"proposal": self.id, "authors": list(self.authors), "approvals": approvals}

    def to_json(self) -> dict[str, Any]:
        """Return the proposal as a canonical-JSON value, for a snapshot."""
        return {
            "change": dict(self.change),
            "revision": self.revision,
            "words": self.words,
            "authors": list(self.authors),
            "groups": list(self.groups),
            "seq": self.seq,
            "time_ms": self.time_ms,
            "expires_ms": self.expires_ms,
            "verdicts": [
                {
                    "by": list(one.by),
                    "groups": list(one.groups),
                    "message": one.message,
                    "seq": one.seq,
                    "time_ms": one.time_ms,
                }
                for one in self.verdicts
            ],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote, or an entry without verdicts.

        Raises:
            BadRequestError, BadNameError, KeyError, TypeError: it is malformed.
        """
        change = raw["change"]
        verdicts = [
            Verdict(
                by=tuple(one["by"]),
                approves=True,
                message=one["message"],
                seq=one["seq"],
                time_ms=one["time_ms"],
                groups=tuple(one.get("groups", ())),
            )
            for one in raw.get("verdicts", ())
        ]
        return cls(
            id=f"p{raw['seq']}",
            digest=change_digest(change),
            change=MappingProxyType(dict(change)),
            revision=raw["revision"],
            words=raw["words"],
            authors=tuple(raw["authors"]),
            groups=tuple(raw["groups"]),
            seq=raw["seq"],
            time_ms=raw["time_ms"],
            expires_ms=raw["expires_ms"],
            verdicts=tuple(verdicts),
        )


class ProposalSet:
    """The proposals that are open, oldest first; immutable."""

    __slots__ = ("_open",)

    EMPTY: "ProposalSet"

    def __init__(self, proposals: Mapping[str, Proposal]) -> None:
        self._open = MappingProxyType(dict(proposals))

    def __iter__(self) -> Iterator[Proposal]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    def get(self, proposal_id: str) -> Proposal | None:
        """Return the open proposal of that id."""
        return self._open.get(proposal_id)

    def opened(self, proposal: Proposal) -> "ProposalSet":
        """Return the set with one more; what has expired by then gives way.

        Raises:
            BadRequestError: too many are open, of this author or in all. None is pushed out: it may hold approvals.
        """
        kept = {one.id: one for one in self if one.expires_ms > proposal.time_ms}
        if sum(one.authors[0] == proposal.authors[0] for one in kept.values()) >= MAX_PROPOSALS_EACH:
            raise BadRequestError(f"{proposal.authors[0]} has {MAX_PROPOSALS_EACH} open proposals; end some first")
        # Who may ask for access is nearly everybody: together they must not keep those out who change the policy.
        if sum(one.asks_access is proposal.asks_access for one in kept.values()) >= MAX_OPEN_PROPOSALS:
            raise BadRequestError(f"{MAX_OPEN_PROPOSALS} proposals are open; reject or activate some first")
        return ProposalSet({**kept, proposal.id: proposal})

    def judged(self, proposal_id: str, digest: str, verdict: Verdict) -> "ProposalSet":
        """Return the set after a verdict: a rejected proposal is gone, an approved one holds it.

        Raises:
            BadRequestError: no such proposal is open, it is another change, or its own author approves it.
        """
        proposal = self.get(proposal_id)
        if proposal is None or proposal.digest != digest:
            raise BadRequestError(f"no proposal {proposal_id} with that digest is open")
        if not verdict.approves:
            return self.closed(proposal_id)
        # INVARIANT: checked here too, where every replica folds it: no PDP, whatever its code, can seal a self-approval.
        if proposal.written_by(verdict.by) or verdict.time_ms >= proposal.expires_ms:
            raise BadRequestError("an author never approves, and nobody approves what has expired")
        return ProposalSet({**self._open, proposal_id: proposal.approved(verdict)})

    def closed(self, proposal_id: str) -> "ProposalSet":
        """Return the set without that proposal."""
        return ProposalSet({key: one for key, one in self._open.items() if key != proposal_id})


ProposalSet.EMPTY = ProposalSet({})


def check_chain(chain: tuple[str, ...]) -> None:
    """Refuse what is no chain of principals, subject first.

    Raises:
        BadRequestError, BadNameError: it is empty, too long, or holds another name.
    """
    if not 0 < len(chain) <= _MAX_CHAIN:
        raise BadRequestError(f"a chain has 1 to {_MAX_CHAIN} principals")
    for name in chain:
        Principal.parse(name)


def _parties(chain: tuple[str, ...], groups: tuple[str, ...]) -> tuple[Party, ...]:
    vouched = frozenset(groups)
    return tuple(Party(principal=Principal.parse(name), groups=vouched) for name in chain)


def check_message(text: str) -> None:
    """Refuse what is no message: why somebody wants, approves or retires something."""
    if type(text) is not str or len(text.encode()) > MAX_MESSAGE_BYTES:
        raise BadRequestError(f"a message is text of at most {MAX_MESSAGE_BYTES} bytes")
