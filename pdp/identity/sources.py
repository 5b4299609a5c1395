"""Where an issuer's keys come from, and where it is asked whether a token still counts: parts of `trust.yaml`.

Configuration chooses every address that we ever ask; no token, header or metadata does (IDENTITY.md JW-1).
"""

import ipaddress
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictStr, model_validator

from pdp.model.names import Action

Name = Annotated[StrictStr, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]


class Entry(BaseModel):
    """A closed part of the file: unknown keys are errors, values keep their types."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _action(text: str) -> str:
    Action.parse(text)
    return text


def _private_name(text: str) -> str:
    if not text or "/" in text:
        ipaddress.ip_network(text)
    return text


class KeySource(Entry):
    """Where an issuer's keys come from: a JWK set in a file, or at an address that we choose (JW-1).

    `discovery` is the address of an OpenID Provider's metadata, which must name this issuer and a key set on one of
    `jwks_hosts` (by default the host of `discovery`, JW-2). `workload_api` is the Unix socket of a SPIFFE Workload API.
    `allow_private` names hosts, addresses or networks that may be private, and reached by plain http; `ca` is a file, and
    so is `fetch_credential`, which holds a token to fetch with.
    """

    file: Name | None = None
    url: Name | None = None
    discovery: Name | None = None
    workload_api: Name | None = None
    jwks_hosts: tuple[Name, ...] = ()
    ca: Name | None = None
    fetch_credential: Name | None = None
    allow_private: tuple[Annotated[Name, AfterValidator(_private_name)], ...] = ()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.file, self.url, self.discovery, self.workload_api)) != 1:
            raise ValueError("name one of `file`, `url`, `discovery` and `workload_api`")
        if self.jwks_hosts and self.discovery is None:
            raise ValueError("`jwks_hosts` belongs to `discovery`")
        if self.workload_api is not None and not self.workload_api.startswith("unix:"):
            raise ValueError("a Workload API is `unix:/path/to/its.sock`")
        address = self.url or self.discovery
        if address is not None:
            check_url(address, private=bool(self.allow_private))
        elif self.fetch_credential is not None:
            raise ValueError("`fetch_credential` belongs to `url` or `discovery`")
        return self


class LiveSource(Entry):
    """Where an issuer is asked whether a token still counts, and before which actions (KU-6, IS-5).

    `by` is `token_review` (a cluster's API server) or `introspection` (RFC 7662). `credential` is the file of our own
    credential: a bearer token or, with `client_id`, that client's secret. Without `actions` a token is asked about on each
    use; with them, wherever the action is one of them or is not known yet.
    """

    by: Literal["token_review", "introspection"]
    url: Name
    credential: Name
    client_id: StrictStr = ""
    ca: Name | None = None
    allow_private: tuple[Annotated[Name, AfterValidator(_private_name)], ...] = ()
    actions: tuple[Annotated[Name, AfterValidator(_action)], ...] = ()

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        check_url(self.url, private=bool(self.allow_private))
        if self.client_id and (self.by != "introspection" or not self.client_id.isprintable()):
            raise ValueError("`client_id` belongs to `by: introspection`")
        return self

    def asks_before(self, action: str) -> bool:
        """Tell whether a token is asked about before `action`; the empty one is not known yet."""
        return not self.actions or not action or action in self.actions


def check_url(url: str, *, private: bool) -> None:
    """Refuse an address which is never asked (JW-1).

    Raises:
        ValueError: not https, no host, or more than an address has.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and private):
        raise ValueError("use https; plain http only to a host that `allow_private` names")
    if not parts.hostname or parts.username is not None or parts.fragment or not url.isascii():
        raise ValueError("an address that we ask has a host, and neither user nor fragment")
