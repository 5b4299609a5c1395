"""`trust.yaml`: whose tokens and certificates count here, and for what. Configuration decides, never a token.

Everything is closed: an unknown key, a missing audience or lifetime cap, a symmetric algorithm or a second entry for one
issuer refuses the file, with `file:line` and what to do. Source: IDENTITY.md section 2.2.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

import re2
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from pdp.errors import ConfigError
from pdp.identity.keyset import ALGORITHMS
from pdp.identity.profiles import PROFILES, Profile
from pdp.identity.sources import Entry, KeySource, LiveSource, Name, Names
from pdp.limits import (
    DEFAULT_LEEWAY_S,
    JWKS_COOLDOWN_S,
    JWKS_REFRESH_S,
    JWKS_STALE_MAX_S,
    MAX_ACT_DEPTH,
    MAX_LEEWAY_S,
    MAX_SPIFFE_BYTES,
)
from pdp.model import canonical
from pdp.model.names import Kind
from pdp.yaml_text import Document, Path, read_yaml

X5T_S256: Final = "x5t#S256"
"""The confirmation member that binds a token to a client certificate (RFC 8705 section 3)."""
JKT: Final = "jkt"
"""The confirmation member that binds a token to a key, proved by DPoP (RFC 9449 section 6.1)."""

ANY: Final = ".*"
"""The `sub_pattern` of an issuer that may name everybody."""
_SPIFFE_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_NAMESPACE: Final = re.compile(r"[a-z0-9-]{0,63}")
_ATTRIBUTE: Final = re.compile(r"subject\.[a-z][a-z0-9_]{0,62}")
_WORKLOAD_PROFILES: Final = ("k8s_sa", "jwt_svid")
_LIVE_CHECKS: Final[Mapping[str, str]] = MappingProxyType({"k8s_sa": "token_review", "at_jwt": "introspection"})
_LEGACY_ACCOUNTS: Final = "kubernetes/serviceaccount"
"""The issuer of the old service-account tokens, which never end."""
_ADVICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "iss": "write the issuer exactly as its tokens do",
        "profile": "write `profile: at_jwt`, or `k8s_sa` for a cluster",
        "keys": "write `keys: {file: jwks.json}` or `keys: {url: https://…}`",
        "algs": "list what the issuer signs with, such as `algs: [ES256]`",
        "audiences": "name us as the issuer's tokens do, such as `audiences: [portcullis]`; "
        "without it, tokens meant for others would open this door",
        "max_lifetime_s": "cap the life of a token, such as `max_lifetime_s: 3600`; without it, a token outlives every lock",
        "domain": "write the trust domain, such as `domain: prod.example`",
        "ca": "name the file with the CA certificates of this trust domain",
        "by": "write `by: token_review` for a cluster, or `by: introspection`",
        "url": "write where it is asked, such as `url: https://login.example/introspect`",
        "credential": "name the file with our own credential, such as `credential: token`",
    }
)


def _issuer_name(text: str) -> str:
    # `#` separates issuer and id in the target of a lock.
    if not text.isprintable() or not text.isascii() or {" ", "#"} & set(text) or len(text) > MAX_SPIFFE_BYTES:
        raise ValueError("an issuer is printable ASCII without blank or `#`")
    return text


def _algorithm(text: str) -> str:
    if text not in ALGORITHMS:
        raise ValueError(
            f"`{text}` is refused: only {', '.join(sorted(ALGORITHMS))}; with a shared secret whoever verifies could sign"
        )
    return text


def _namespace(text: str) -> str:
    if not _NAMESPACE.fullmatch(text):
        raise ValueError("a namespace is at most 63 of `a-z`, `0-9`, `-` (NA-5)")
    return text


def _pattern(text: str) -> str:
    try:
        compile_pattern(text)
    except re2.error as error:
        raise ValueError(f"not an RE2 pattern: {error}") from error
    return text


def _not_none(value: Any) -> Any:
    return None if value == "none" else value


@lru_cache(maxsize=1024)
def compile_pattern(text: str) -> Any:
    """Return the compiled RE2 pattern: linear time, whatever a token holds."""
    options = re2.Options()
    options.log_errors = False  # RE2 would write to standard error; the exception says it
    return re2.compile(text, options)


class Issuer(Entry):
    """One issuer: what it signs with, whom it may speak for, and how long its word lasts. All times in seconds."""

    iss: Annotated[Name, AfterValidator(_issuer_name)]
    intake: Literal["bearer"] = "bearer"
    profile: Literal["at_jwt", "k8s_sa", "jwt_svid"]
    keys: KeySource
    algs: Annotated[tuple[Annotated[StrictStr, AfterValidator(_algorithm)], ...], Field(min_length=1)]
    audiences: Names
    aud_mode: Literal["exact_single", "contains"] = "exact_single"
    max_lifetime_s: Annotated[StrictInt, Field(gt=0)]
    leeway_s: Annotated[StrictInt, Field(ge=0, le=MAX_LEEWAY_S)] = DEFAULT_LEEWAY_S
    tenant: Name = "main"
    kind: Kind = Kind.USER
    actor_kind: Kind = Kind.AGENT
    namespace: Annotated[StrictStr, AfterValidator(_namespace)] = ""
    sub_pattern: Annotated[StrictStr, AfterValidator(_pattern)] = ANY
    unread_headers: tuple[Literal["x5t", "x5t#S256"], ...] = ()
    cnf_kinds: tuple[Literal["x5t#S256", "jkt"], ...] = ()
    cnf_required: tuple[Literal["x5t#S256", "jkt"], ...] = ()
    dpop_nonce: StrictBool = False
    require_jti: StrictBool = True
    max_act_depth: Annotated[StrictInt, Field(ge=0, le=MAX_ACT_DEPTH)] = 0
    group_claims: tuple[Name, ...] = ()
    attribute_claims: dict[Name, Name] = Field(default_factory=dict)
    refresh_s: Annotated[StrictInt, Field(gt=0)] = JWKS_REFRESH_S
    cooldown_s: Annotated[StrictInt, Field(gt=0)] = JWKS_COOLDOWN_S
    stale_max_s: Annotated[StrictInt, Field(gt=0)] = JWKS_STALE_MAX_S
    live_check: Annotated[LiveSource | None, BeforeValidator(_not_none)] = None
    account_uids: dict[Name, Name] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _default_kind(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("profile") in _WORKLOAD_PROFILES:
            return {"kind": Kind.WORKLOAD.value} | values
        return values

    @model_validator(mode="after")
    def _fits_profile(self) -> Self:
        if not self.rules.algs.issuperset(self.algs):
            raise ValueError(f"profile `{self.profile}` is signed with {', '.join(sorted(self.rules.algs))} only")
        if (self.profile == "jwt_svid") != self.iss.startswith("spiffe:"):
            raise ValueError("JWT-SVIDs belong to their trust domain: write `jwt:` below `trust_domains`")
        if self.profile != "at_jwt" and (self.cnf_kinds or self.max_act_depth or self.kind is not Kind.WORKLOAD):
            raise ValueError(f"profile `{self.profile}` names workloads, and neither binds nor delegates")
        if self.profile == "k8s_sa" and (not self.namespace or not self.require_jti or self.iss == _LEGACY_ACCOUNTS):
            raise ValueError("a cluster has a `namespace` of its own, and tokens with an end and a `jti` (KU-1)")
        if self.profile != "k8s_sa" and self.account_uids:
            raise ValueError("`account_uids` belongs to profile `k8s_sa`")
        if self.live_check is not None and _LIVE_CHECKS.get(self.profile) != self.live_check.by:
            raise ValueError("`token_review` asks about tokens of profile `k8s_sa`, `introspection` of `at_jwt`")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not set(self.cnf_required) <= set(self.cnf_kinds):
            raise ValueError("`cnf_required` names a kind that `cnf_kinds` does not")
        if self.dpop_nonce and JKT not in self.cnf_kinds:
            raise ValueError("`dpop_nonce` asks for proofs, which `cnf_kinds` does not list: add `jkt`")
        if any(not _ATTRIBUTE.fullmatch(name) for name in self.attribute_claims.values()):
            raise ValueError("`attribute_claims` maps claims to names such as `subject.department`")
        if self.stale_max_s < self.refresh_s:
            raise ValueError("`stale_max_s` is at least `refresh_s`")
        if self.cooldown_s > self.refresh_s:
            raise ValueError("`cooldown_s` is at most `refresh_s`: a withdrawn key stops within `refresh_s`")
        return self

    @property
    def rules(self) -> Profile:
        """The profile's static rules."""
        return PROFILES[self.profile]

    @property
    def speaks_for(self) -> frozenset[tuple[str, Kind, str]]:
        """The (tenant, kind, namespace) triples of the principals which this issuer names (NA-1)."""
        kinds = {self.kind, self.actor_kind} if self.max_act_depth else {self.kind}
        return frozenset((self.tenant, kind, self.namespace) for kind in kinds)


def _spiffe_domain(text: str) -> str:
    if not _SPIFFE_DOMAIN.fullmatch(text):
        raise ValueError("a trust domain is lower-case letters, digits, `.`, `_`, `-` (SP-1)")
    return text


class SvidTokens(Entry):
    """How the JWT-SVIDs of a trust domain are verified; the fields are those of an issuer."""

    bundle: KeySource
    algs: tuple[Annotated[StrictStr, AfterValidator(_algorithm)], ...] = ("ES256", "ES384", "ES512", "RS256")
    audiences: Names
    max_lifetime_s: Annotated[StrictInt, Field(gt=0)]
    leeway_s: Annotated[StrictInt, Field(ge=0, le=MAX_LEEWAY_S)] = DEFAULT_LEEWAY_S
    refresh_s: Annotated[StrictInt, Field(gt=0)] = JWKS_REFRESH_S
    cooldown_s: Annotated[StrictInt, Field(gt=0)] = JWKS_COOLDOWN_S
    stale_max_s: Annotated[StrictInt, Field(gt=0)] = JWKS_STALE_MAX_S


class TrustDomain(Entry):
    """A SPIFFE trust domain whose workloads may authenticate: by certificate, by JWT-SVID, or both.

    `ca` is the file of its CA certificates, `jwt` says how its JWT-SVIDs are verified.
    """

    domain: Annotated[Name, AfterValidator(_spiffe_domain)]
    ca: Name | None = None
    jwt: SvidTokens | None = None

    @model_validator(mode="after")
    def _some_bundle(self) -> Self:
        if self.ca is None and self.jwt is None:
            raise ValueError("name the file of its CA certificates as `ca`, or the keys of its JWT-SVIDs as `jwt`")
        self.issuer()  # so that what does not fit the profile is found now
        return self

    def issuer(self) -> Issuer | None:
        """Return this domain's authority as the issuer of its JWT-SVIDs."""
        if self.jwt is None:
            return None
        rules = self.jwt.model_dump(exclude={"bundle"})
        return Issuer(
            iss=f"spiffe://{self.domain}", profile="jwt_svid", keys=self.jwt.bundle, require_jti=False, **rules
        )


class _TrustFile(Entry):
    development: StrictBool = False
    issuers: tuple[Issuer, ...] = ()
    trust_domains: tuple[TrustDomain, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerTable:
    """All that `trust.yaml` says. `generation` is its digest, part of every cache key and of audit records (TC-1).

    `svids` holds, by trust domain, who issues its JWT-SVIDs. `authorities` holds the CA certificates (DER) of each trust
    domain, once a caller has read the files.
    """

    issuers: Mapping[str, Issuer]
    trust_domains: Mapping[str, TrustDomain]
    development: bool
    generation: str
    namespaces: frozenset[str]
    svids: Mapping[str, Issuer] = field(default_factory=lambda: MappingProxyType({}))
    authorities: Mapping[str, tuple[bytes, ...]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def key_holders(self) -> tuple[Issuer, ...]:
        """Everybody whose keys are needed."""
        return (*self.issuers.values(), *self.svids.values())

    @property
    def takes_proofs(self) -> bool:
        """Whether any issuer's tokens may be bound to a key, so that used DPoP proofs must be known again."""
        return any(JKT in issuer.cnf_kinds for issuer in self.issuers.values())

    def with_authorities(self, authorities: Mapping[str, tuple[bytes, ...]]) -> "IssuerTable":
        """Return this table with the CA certificates of its trust domains, which belong to its generation."""
        parts = [part for name in sorted(authorities) for part in (name.encode(), *authorities[name])]
        generation = canonical.digest("trust-authorities", self.generation.encode(), *parts).hex()
        return replace(self, authorities=MappingProxyType(dict(authorities)), generation=generation)


def parse_trust(text: str, *, file: str = "trust.yaml") -> IssuerTable:
    """Return the issuer table in `text`.

    Raises:
        ConfigError: with every finding as `file:line: what, and what to do`, one a line.
    """
    document = read_yaml(text, file=file)
    try:
        trust = _TrustFile.model_validate({} if document.value is None else document.value)
    except ValidationError as error:
        raise ConfigError("\n".join(_finding(document, detail) for detail in error.errors())) from error
    findings = _duplicates(trust, document)
    if not trust.issuers and not trust.trust_domains:
        findings.append(f"{file}:1: no issuer and no trust domain: nobody could authenticate; list `issuers:`")
    if findings:
        raise ConfigError("\n".join(findings))
    return _table(trust)


def _table(trust: _TrustFile) -> IssuerTable:
    content = canonical.dumps(trust.model_dump(mode="json"))
    return IssuerTable(
        issuers=MappingProxyType({issuer.iss: issuer for issuer in trust.issuers}),
        trust_domains=MappingProxyType({entry.domain: entry for entry in trust.trust_domains}),
        svids=MappingProxyType(
            {entry.domain: issuer for entry in trust.trust_domains if (issuer := entry.issuer()) is not None}
        ),
        development=trust.development,
        generation=hashlib.sha256(content).hexdigest(),
        namespaces=frozenset(issuer.namespace for issuer in trust.issuers if issuer.namespace),
    )


def _duplicates(trust: _TrustFile, document: Document) -> list[str]:
    """Report what must be unique: (intake, iss), the names an issuer speaks for, trust domains (PR-1, NA-1, SP-3)."""
    found: list[str] = []
    issuers = Counter(issuer.iss for issuer in trust.issuers)
    spoken = Counter(triple for issuer in trust.issuers for triple in issuer.speaks_for)
    for index, issuer in enumerate(trust.issuers):
        where = document.where(("issuers", index))
        if issuers[issuer.iss] > 1:
            found.append(f"{where}: issuer `{issuer.iss}` stands twice; merge the entries")
        elif issuer.profile == "jwt_svid":
            found.append(f"{where}: JWT-SVIDs belong to their trust domain: write `jwt:` below `trust_domains`")
        elif any(spoken[triple] > 1 for triple in issuer.speaks_for):
            found.append(f"{where}: another issuer names the same kind of principals; give each its own `namespace`")
    domains = Counter(entry.domain for entry in trust.trust_domains)
    found.extend(
        f"{document.where(('trust_domains', index))}: trust domain `{entry.domain}` stands twice"
        for index, entry in enumerate(trust.trust_domains)
        if domains[entry.domain] > 1
    )
    return found


def _finding(document: Document, detail: ErrorDetails) -> str:
    path: Path = detail["loc"]
    name = str(path[-1]) if path else ""
    spelled = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or "the file"
    if detail["type"] == "missing":
        problem = f"`{spelled}` is missing: {_ADVICE.get(name, 'add it')}"
    elif detail["type"] == "model_type":
        problem = f"`{spelled}` is a mapping of keys to values"
    elif detail["type"] == "extra_forbidden":
        problem = f"`{spelled}` is not a known key: remove it, or check its spelling"
    else:
        problem = f"`{spelled}`: {detail['msg'].removeprefix('Value error, ')}"
    return f"{document.where(path)}: {problem}"
