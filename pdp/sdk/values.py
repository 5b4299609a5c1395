"""What callers of the SDK hold: the question they ask, who asks it, and the decision they get."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict

from pdp.model import decision as model
from pdp.model.listed import Listed

AttributeValue = bool | int | float | str | tuple[str, ...] | list[str] | datetime
"""What an attribute may be; an instant is a `datetime` with a time zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(model.Decision):
    """A decision as a client has it: with the id under which the audit chain of the PDP holds it.

    `dpop_nonce` is what the next DPoP proof must hold, where the reason is `dpop_nonce_required`.
    """

    decision_id: str = ""
    dpop_nonce: str = ""


@dataclass(frozen=True, slots=True)
class Bearer:
    """A subject named by its own access token, which the PDP verifies itself. The token never appears in `repr`."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dpop:
    """A subject named by its own access token, which is bound to a key, and the proof of that key for one request.

    The PDP takes a proof once: for one question of one call. Such an answer is never kept, travels alone, and cannot be
    watched. Neither token nor proof appears in `repr`.

    Args:
        token: what the caller showed in `Authorization: DPoP …`.
        proof: the value of its one `DPoP` header.
        method: the method of its request.
        url: scheme, authority and path, the authority as *we* are configured, never as the caller called us.
    """

    token: str = field(repr=False)
    proof: str = field(repr=False)
    method: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """One link of a delegation chain."""

    principal: str
    groups: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asserted:
    """A subject we vouch for; accepted only from a caller that holds `decision.assert`. `actors`: current one first."""

    principal: str
    groups: Collection[str] = ()
    actors: Collection[Actor] = ()


Subject = str | Asserted | Bearer | Dpop | None
"""Who asks for access: the caller itself (None), a name or `Asserted` we vouch for, or a credential that was shown to us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question: may `subject` do `action` to `resource`.

    Args:
        action: `<type>.<verb>`, such as `dataset.read`.
        resource: `<type>/<path>[@<version>]`, such as `model/fraud@7`.
        subject: None, the caller itself; a principal's name such as `user:alice@example.com`, or `Asserted`, for a
            subject we vouch for; `Bearer` or `Dpop`, for a token that was presented to us.
        workload: the workload that asks, `workload:spiffe://…`; empty: the caller's own.
        serves: the model version behind an endpoint, where it is known.
        attributes: `request.*` values by full dotted name, at most 64.
        supports: the obligations that the caller carries out; an allow with any other is a deny. None: all of them.
    """

    action: str
    resource: str
    subject: Subject = None
    workload: str = ""
    serves: str = ""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    supports: Collection[str] | None = ()

    @classmethod
    def of(cls, asked: "Question | tuple[str, str]") -> "Question":
        """Return `asked`, where just `(action, resource)` will do too."""
        return asked if isinstance(asked, Question) else Question(action=asked[0], resource=asked[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A whole list, of one world: every entry there is, in order."""

    entries: tuple[Listed, ...]
    world_seq: int


class Terms(TypedDict, total=False):
    """The keyword arguments of every list: what is known of the questions that it is about.

    `attributes` are `request.*` values; what is not given is left open, and entries that depend on it are conditional.
    `workload` is the workload that asks, `none` for a caller without one. Left out it is our own in a list about
    ourselves, and any in every other: an entry then says from which it is possible.
    """

    workload: str
    attributes: Mapping[str, AttributeValue]


class Circumstances(TypedDict, total=False):
    """The keyword arguments of every call that asks one question: those of `Question`, with its meanings and defaults."""

    subject: Subject
    workload: str
    serves: str
    attributes: Mapping[str, AttributeValue]
    supports: Collection[str] | None
