"""Entries of a list: who may do what, at once or depending on what only a question brings."""

from dataclasses import dataclass
from enum import StrEnum

from pdp.model.decision import Obligation


class Access(StrEnum):
    """What is known of an access before its question is whole."""

    DENY = "deny"
    CONDITIONAL = "conditional"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One entry of a list: `subject` may do `action` to `resource`, at once or depending on what is named.

    `subject` is a principal, a group (whoever holds it, and nothing else), a workload pattern, or `*`, everyone whom the
    policy does not name. `depends_on` are conditions; `sources` the workloads, if not from every one; `rules` row ids.
    """

    subject: str
    action: str
    resource: str
    access: Access
    depends_on: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    role_path: tuple[str, ...] = ()
    obligations: tuple[Obligation, ...] = ()
