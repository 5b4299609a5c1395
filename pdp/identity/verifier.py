"""The verifier: a credential, keys and the time in; a `VerifiedIdentity` or a refusal out. Pure.

The checks run in the order of IDENTITY.md PR-2, and the first failure decides: gate, profile, header, key, signature,
claim types, time, audience, subject, profile claims, binding, actors; the caller adds the locks. Until the signature
holds, no code depends on a claim other than `iss` and the scheme of `sub` (CVE-2024-51744).

It is cut in three, so that the service can fetch keys in between and cache what does not change:
`examine` (no keys needed) -> `verify_token` (keys) -> `admit` (all that can change; run again on every cache hit, TC-3).
"""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, replace
from types import MappingProxyType
from typing import Any, Final, NoReturn

from pdp.errors import Reason
from pdp.identity import gate
from pdp.identity.binding import Confirmation, Connection, check_binding, read_confirmation
from pdp.identity.certificates import PeerCertificate
from pdp.identity.claims import (
    Claims,
    Times,
    check_audience,
    check_forbidden,
    check_times,
    check_types,
    read_attributes,
    read_groups,
    read_principal,
    read_times,
)
from pdp.identity.delegation import read_actors
from pdp.identity.gate import Credential, ParsedToken, Scheme
from pdp.identity.introspection import Introspection, check_introspection
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.keyset import KeySet, VerificationKey
from pdp.identity.kubernetes import Account, Review, check_review, read_account
from pdp.identity.profiles import K8S_SA, check_header
from pdp.identity.proof import BoundRequest, token_digest
from pdp.identity.signature import check_signature
from pdp.identity.spiffe import read_workload, select_svid_issuer
from pdp.identity.types import _SEAL, Refusal, Sealed, VerifiedIdentity, check_seal
from pdp.limits import TOKEN_CACHE_ENTRIES
from pdp.model.attributes import Attributes
from pdp.model.names import Principal
from pdp.model.recent import Recent
from pdp.model.request import CredentialFacts, Party

LiveAnswer = Review | Introspection
"""What an issuer answered when asked whether a token still counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A token that passed gate, profile and header: its issuer is known, and the key it asks for. Nothing is proved."""

    parsed: ParsedToken
    issuer: Issuer
    scheme: Scheme

    @property
    def kid(self) -> str | None:
        """The key id of the header, if it has one."""
        kid: str | None = self.parsed.header.get("kid")
        return kid


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken(Sealed):
    """What a good token proves by itself. Only `admit` turns it into an identity, for one connection and moment.

    `alone` is the identity on a connection without a client certificate. `kid` and `thumbprint` name the key that verified
    it: once the issuer withdraws that key, it proves nothing.
    """

    issuer: Issuer
    alone: VerifiedIdentity
    times: Times
    account: Account | None
    confirmation: Confirmation
    kid: str | None
    thumbprint: str
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        check_seal(seal)

    def __setstate__(self, state: object) -> NoReturn:
        raise TypeError("a verified token is not restored from a state")

    @property
    def refused_from_s(self) -> int:
        """The first second in which the token is refused: its end, with the leeway counted once."""
        return self.alone.expires_at_s

    def is_asked_about(self, action: str) -> bool:
        """Tell whether the issuer must confirm this token before `action`; the empty one is not known yet (KU-6)."""
        source = self.issuer.live_check
        return source is not None and source.asks_before(action)


def verify(
    authorization: str | None,
    *,
    table: IssuerTable,
    keys: Mapping[str, KeySet],
    peer: PeerCertificate | None = None,
    request: BoundRequest | None = None,
    live: LiveAnswer | None = None,
    now_ms: int,
) -> VerifiedIdentity | Refusal:
    """Return who presents this credential, given the issuers' key sets: all three steps at once.

    Args:
        authorization: the value of the `Authorization` header or metadata; None if there is none.
        table: the configured issuers.
        keys: the usable key set of each issuer, by `iss`.
        peer: the client certificate which our own TLS layer verified.
        request: what a DPoP proof must name; that a proof is new is for the caller to see to.
        live: what the live check answered, where the issuer's entry asks for one.
        now_ms: wall clock.
    """
    if authorization is None and peer is not None:
        return verify_certificate(peer, table=table, now_ms=now_ms)
    credential = gate.present(authorization)
    if isinstance(credential, Refusal):
        return credential
    candidate = examine(credential, table=table)
    if isinstance(candidate, Refusal):
        return candidate
    key_set = keys.get(candidate.issuer.iss)
    if key_set is None:
        return Refusal(reason=Reason.KEYS_UNAVAILABLE, detail="no key set of this issuer is at hand")
    connection = Connection(
        scheme=candidate.scheme, peer=peer, request=request or BoundRequest(), token=token_digest(credential.token)
    )
    token = verify_token(candidate, keys=key_set, connection=connection, table=table, now_ms=now_ms)
    if isinstance(token, Refusal):
        return token
    return admit(token, keys=key_set, connection=connection, table=table, now_ms=now_ms, live=live)


def examine(credential: Credential, *, table: IssuerTable) -> Candidate | Refusal:
    """Steps gate, profile and header: whose token this claims to be, and which key would prove it."""
    parsed = gate.parse(credential.token)
    if isinstance(parsed, Refusal):
        return parsed
    issuer = _select_issuer(parsed.claims, table)
    if isinstance(issuer, Refusal):
        return issuer
    refusal = check_header(
        parsed.header, issuer.rules, algs=frozenset(issuer.algs), unread=frozenset(issuer.unread_headers)
    )
    return refusal or Candidate(parsed=parsed, issuer=issuer, scheme=credential.scheme)


def _select_issuer(claims: Claims, table: IssuerTable) -> Issuer | Refusal:
    """Return the entry that configuration has for this issuer: exact, before any fetch (PR-1, IS-1, T-30)."""
    sub, iss = claims.get("sub"), claims.get("iss")
    if type(sub) is str and sub[:7].lower() == "spiffe:":
        return select_svid_issuer(sub, table)
    issuer = table.issuers.get(iss) if type(iss) is str else None
    return issuer or Refusal(reason=Reason.ISSUER_UNKNOWN, detail="no entry for this `iss`")


def verify_token(
    candidate: Candidate, *, keys: KeySet, connection: Connection, table: IssuerTable, now_ms: int
) -> VerifiedToken | Refusal:
    """Steps key to actors: prove the signature, then hold every claim against the issuer's entry."""
    key = _choose_key(candidate, keys)
    if isinstance(key, Refusal):
        return key
    return (
        check_signature(candidate.parsed, key)
        or _check_claims(candidate.parsed.claims, candidate.issuer, now_ms)
        or _read_token(candidate, key, connection, table, now_ms)
    )


def _choose_key(candidate: Candidate, keys: KeySet) -> VerificationKey | Refusal:
    if keys.issuer != candidate.issuer.iss:
        return Refusal(reason=Reason.KEY_UNKNOWN, detail="another issuer's keys")  # T-20, JW-9
    key = keys.find(candidate.kid)
    if isinstance(key, VerificationKey) and key.alg != candidate.parsed.header["alg"]:
        return Refusal(reason=Reason.ALG_NOT_ALLOWED, detail="not the algorithm of this key")  # T-15, T-16, JW-5
    return key


def _check_claims(claims: Claims, issuer: Issuer, now_ms: int) -> Refusal | None:
    return (
        check_types(claims, issuer) or check_times(read_times(claims), issuer, now_ms) or check_audience(claims, issuer)
    )


def _read_token(
    candidate: Candidate, key: VerificationKey, connection: Connection, table: IssuerTable, now_ms: int
) -> VerifiedToken | Refusal:
    """Steps subject, profile claims, binding, actors."""
    claims, issuer = candidate.parsed.claims, candidate.issuer
    subject = read_principal(claims["sub"], kind=issuer.kind, issuer=issuer, table=table)
    if isinstance(subject, Refusal):
        return subject
    profile = _read_profile_claims(claims, issuer)
    if isinstance(profile, Refusal):
        return profile
    confirmation = read_confirmation(claims, issuer)
    if isinstance(confirmation, Refusal):
        return confirmation
    unproved = check_binding(confirmation, connection, now_ms)
    if unproved is not None:
        return unproved
    actors = read_actors(claims, issuer=issuer, table=table)
    if isinstance(actors, Refusal):
        return actors
    groups, attributes, account = profile
    times, facts = read_times(claims), _facts(claims, issuer, account)
    alone = VerifiedIdentity(
        party=Party(principal=subject, groups=groups),
        actors=actors,
        facts=facts,
        expires_at_s=times.expires_at_s + issuer.leeway_s,
        issuer=issuer.iss,
        attributes=attributes,
        seal=_SEAL,
    )
    return VerifiedToken(
        issuer=issuer,
        alone=alone,
        times=times,
        account=account,
        confirmation=confirmation,
        kid=candidate.kid,
        thumbprint=key.thumbprint,
        seal=_SEAL,
    )


def _read_profile_claims(claims: Claims, issuer: Issuer) -> tuple[frozenset[str], Attributes, Account | None] | Refusal:
    forbidden = check_forbidden(claims, issuer)
    if forbidden is not None:
        return forbidden
    groups, attributes = read_groups(claims, issuer), read_attributes(claims, issuer)
    if isinstance(groups, Refusal):
        return groups
    if isinstance(attributes, Refusal):
        return attributes
    account = read_account(claims, issuer) if issuer.profile == K8S_SA.name else None
    return account if isinstance(account, Refusal) else (groups, MappingProxyType(attributes), account)


def _facts(claims: Mapping[str, Any], issuer: Issuer, account: Account | None) -> CredentialFacts:
    return CredentialFacts(
        issuer=issuer.iss,
        jti=claims.get("jti", ""),
        session=claims.get("sid", ""),
        issued_at_s=claims.get("iat", 0),
        expires_at_s=claims["exp"],
        account_uid=account.uid if account else "",
        pod_uid=account.pod_uid if account else "",
    )


def admit(
    token: VerifiedToken,
    *,
    keys: KeySet,
    connection: Connection,
    table: IssuerTable,
    now_ms: int,
    live: LiveAnswer | None = None,
    action: str = "",
) -> VerifiedIdentity | Refusal:
    """Return the identity of a verified token on this connection, now: every rule whose input can change (TC-3).

    `live` is the answer of the live check, where the issuer's entry asks for one before `action` (empty: not known yet).
    """
    refusal = check_times(token.times, token.issuer, now_ms) or check_binding(token.confirmation, connection, now_ms)
    if refusal is not None:
        return refusal
    if keys.issuer != token.issuer.iss or not keys.holds(kid=token.kid, thumbprint=token.thumbprint):
        empty = Reason.KEY_UNKNOWN if keys.keys else Reason.ISSUER_KEYS_EMPTY
        return Refusal(reason=empty, detail="the key that verified this token was withdrawn")  # T-28
    dead = _check_live(token, live, now_ms) if token.is_asked_about(action) else None
    if dead is not None:
        return dead
    if connection.peer is None:
        return token.alone
    workload = read_workload(connection.peer, table=table, now_ms=now_ms)
    if isinstance(workload, Refusal):
        return workload
    return _joined(token, connection.peer, workload)


# By token and certificate, which are held beside it, so that no others can have their ids, and by workload: what it is made of.
# Nothing invalidates it; all that can change was looked at before.
_JOINED: Final[Recent[object, tuple[VerifiedIdentity, VerifiedToken, PeerCertificate]]] = Recent(TOKEN_CACHE_ENTRIES)


def _joined(token: VerifiedToken, peer: PeerCertificate, workload: Principal | None) -> VerifiedIdentity:
    """Return the identity of a token with the certificate beside it; the same one for the same two, for who goes by identity."""
    key = id(token), id(peer), workload
    kept = _JOINED.find(key)
    if kept is None:
        kept = _join(token, peer, workload), token, peer
        _JOINED.keep(key, kept)
    return kept[0]


def _join(token: VerifiedToken, peer: PeerCertificate, workload: Principal | None) -> VerifiedIdentity:
    return replace(
        token.alone,
        workload=workload,
        facts=_with_certificate(token.alone.facts, peer),
        expires_at_s=min(token.refused_from_s, peer.not_after_s + 1),
        seal=_SEAL,
    )


def _with_certificate(facts: CredentialFacts, peer: PeerCertificate) -> CredentialFacts:
    return replace(facts, fingerprint=peer.fingerprint, certificate_issuer=peer.issuer, serial=str(peer.serial))


def _check_live(token: VerifiedToken, answer: LiveAnswer | None, now_ms: int) -> Refusal | None:
    if isinstance(answer, Review) and token.account is not None:
        return check_review(token.account, answer, token.issuer)
    if isinstance(answer, Introspection) and token.account is None:
        return check_introspection(
            answer, identity=token.alone, confirmation=token.confirmation, issuer=token.issuer, now_ms=now_ms
        )
    return Refusal(reason=Reason.LIVE_CHECK_UNAVAILABLE, detail="no answer of the live check")


def verify_certificate(peer: PeerCertificate, *, table: IssuerTable, now_ms: int) -> VerifiedIdentity | Refusal:
    """Return the workload that a client certificate names, as the caller itself."""
    workload = read_workload(peer, table=table, now_ms=now_ms)
    if isinstance(workload, Refusal):
        return workload
    if workload is None:
        return Refusal(reason=Reason.CERTIFICATE_INVALID, detail="the certificate names no workload")  # T-54
    return VerifiedIdentity(
        party=Party(principal=workload),
        workload=workload,
        facts=_with_certificate(CredentialFacts(expires_at_s=peer.not_after_s), peer),
        expires_at_s=peer.not_after_s + 1,
        seal=_SEAL,
    )
