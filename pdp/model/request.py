"""The question: who, does what, to what, from where, with which attributes. All of it verified or checked."""

from dataclasses import dataclass, field
from typing import Final

from pdp.errors import BadRequestError
from pdp.limits import MAX_ATTRIBUTES, MAX_GROUPS
from pdp.model.attributes import NO_ATTRIBUTES, Attributes
from pdp.model.decision import Settled
from pdp.model.names import Action, Principal, Resource, check_grouping_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A principal with the groups that its issuer vouches for: the subject of a question, or an actor."""

    principal: Principal
    groups: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if len(self.groups) > MAX_GROUPS:
            raise BadRequestError(f"a party has at most {MAX_GROUPS} groups")
        for group in self.groups:
            check_grouping_name(group)
            if not group.startswith("group:"):
                raise BadRequestError("a party's memberships are `group:` names; roles come from the policy alone")


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialFacts:
    """What a lock can match in the credential behind a question; times in seconds since the epoch, 0 = unknown.

    `jti` and `session` are those of `issuer`, as are the uids of a Kubernetes account and pod. `fingerprint` is SHA-256 of
    the client certificate in hex, or empty; `certificate_issuer` and `serial` (decimal) name the same certificate.
    """

    issuer: str = ""
    jti: str = ""
    session: str = ""
    issued_at_s: int = 0
    expires_at_s: int = 0
    fingerprint: str = ""
    certificate_issuer: str = ""
    serial: str = ""
    account_uid: str = ""
    pod_uid: str = ""


NO_FACTS: Final = CredentialFacts()
"""Of no credential: the subject was asserted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question to `decide`.

    `actors` holds the delegation chain, current actor first. `workload` is the caller's own workload identity, from
    which segmentation starts; None is `segment:none`. `serves` names the model version behind an endpoint where the
    enforcement point knows it. `attributes` are `request.*` values, each checked against the vocabulary by `decide`.
    `claims` are `subject.*` values that the issuer table names (`acr`, `device`, …).
    `supports` is the set of obligations the enforcement point can carry out; None means all.
    `settled` is what `decide` said to it, where that stands as long as the world does; no part of the question.
    """

    subject: Party
    action: Action
    resource: Resource
    actors: tuple[Party, ...] = ()
    workload: Principal | None = None
    serves: Resource | None = None
    attributes: Attributes = field(default_factory=lambda: NO_ATTRIBUTES)
    claims: Attributes = field(default_factory=lambda: NO_ATTRIBUTES)
    credential: CredentialFacts = NO_FACTS
    supports: frozenset[str] | None = None
    settled: Settled | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.attributes) > MAX_ATTRIBUTES:
            raise BadRequestError(f"a question has at most {MAX_ATTRIBUTES} attributes")
