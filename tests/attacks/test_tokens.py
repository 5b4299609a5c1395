"""Every row T-xx of IDENTITY.md section 3 that concerns `at_jwt`: refused with its reason, by the pure verifier and by the
`Authenticator`. One row of the table is one attack."""

import asyncio
import json
import string
from base64 import urlsafe_b64decode as b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

from pdp.errors import Reason
from pdp.identity import signature
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.keyset import KeySet, parse_jwks
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.service.authenticate import Authenticator
from pdp.signals.locks import Lock, LockSet, LockTarget
from tests.support import tokens
from tests.support.tokens import (
    ISS,
    NOW_MS,
    NOW_S,
    b64,
    entry,
    forge,
    good_claims,
    good_header,
    good_token,
    judge,
    key_set,
    keys_of,
    mac,
    reason_of,
    signer,
    table,
)

ES = signer()
RS = signer("RS256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    row: str
    name: str
    authorization: str | None
    reason: Reason
    trust: IssuerTable = field(default_factory=table)
    keys: KeySet | None = None

    def __str__(self) -> str:
        return f"{self.row}-{self.name}"


def attack(row: str, name: str, authorization: str | None, reason: Reason, **setting: Any) -> Attack:
    return Attack(row=row, name=name, authorization=authorization, reason=reason, **setting)


def token(row: str, name: str, compact: str, reason: Reason, **setting: Any) -> Attack:
    return attack(row, name, f"Bearer {compact}", reason, **setting)


def header(row: str, name: str, reason: Reason, *, by: Any = ES, **changes: Any) -> Attack:
    return token(row, name, forge(good_header(by, **changes), good_claims(), by), reason)


def claims(row: str, name: str, reason: Reason, *, trust: IssuerTable | None = None, **changes: Any) -> Attack:
    changes = {key.replace("__", "#"): value for key, value in changes.items()}
    return token(row, name, forge(good_header(ES), good_claims(**changes), ES), reason, trust=trust or table())


def payload(row: str, name: str, raw: bytes | str, reason: Reason) -> Attack:
    return token(row, name, forge(good_header(ES), raw, ES), reason)


def raw_claims(extra: str) -> str:
    return json.dumps(good_claims())[:-1] + f", {extra}}}"


def nested(depth: int) -> str:
    return '"x": ' + "[" * depth + "]" * depth


def chain(*subjects: Any) -> dict[str, Any]:
    act: dict[str, Any] = {}
    for sub in reversed(subjects):
        act = {"sub": sub} | ({"act": act} if act else {})
    return act


ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
GOOD = good_token()
HEAD, BODY, SIGNATURE = GOOD.split(".")
SPARE = SIGNATURE[:-1] + next(c for c in string.ascii_letters if c not in "AQgw" and c != SIGNATURE[-1])
TEXT = json.dumps(good_claims())
ES384_KEY = good_header(ES)


def respelt(segment: int) -> str:
    """A token of which one segment has spare bits set: decoders that skip them read the very same token."""
    parts = GOOD.split(".")
    raw = b64decode(parts[segment] + "==")
    raw += b" " * (1 + (1 - len(raw)) % 3)  # so that spare bits there are
    text = b64(raw)
    parts[segment] = text[:-1] + ALPHABET[ALPHABET.index(text[-1]) + 1]
    return ".".join(parts)


INTAKE = [
    attack("T-01", "none", None, Reason.CREDENTIAL_MISSING),
    attack("T-01", "empty", "", Reason.CREDENTIAL_MISSING),
    attack("T-01", "scheme-alone", "Bearer", Reason.CREDENTIAL_MISSING),
    attack("T-01", "basic", "Basic YTpi", Reason.CREDENTIAL_MISSING),
    attack("T-01", "no-scheme", GOOD, Reason.CREDENTIAL_MISSING),
    attack("T-02", "comma-joined", f"Bearer {GOOD}, Bearer {GOOD}", Reason.CREDENTIAL_AMBIGUOUS),
    attack("T-02", "two-schemes", f"Bearer {GOOD},DPoP {GOOD}", Reason.CREDENTIAL_AMBIGUOUS),
    attack("T-02", "scheme-twice", f"Bearer Bearer {GOOD}", Reason.CREDENTIAL_AMBIGUOUS),
    attack("T-02", "scheme-in-scheme", f"DPoP bearer {GOOD}", Reason.CREDENTIAL_AMBIGUOUS),
    token("T-03", "large-claim", good_token(x="y" * 8192), Reason.TOKEN_TOO_LARGE),
    token("T-03", "megabyte-of-dots", "." * 1_000_000, Reason.TOKEN_TOO_LARGE),
    token("T-03", "one-byte-over", "a" * 8193, Reason.TOKEN_TOO_LARGE),
    token("T-04", "limit-is-read", "a" * 8192, Reason.TOKEN_MALFORMED),
    token("T-04", "two-segments", f"{HEAD}.{BODY}", Reason.TOKEN_MALFORMED),
    token("T-04", "four-segments", f"{GOOD}.{SIGNATURE}", Reason.TOKEN_MALFORMED),
    token("T-04", "five-segments-jwe", f"{HEAD}.{BODY}.{BODY}.{BODY}.{SIGNATURE}", Reason.TOKEN_MALFORMED),
    token("T-04", "empty-header", f".{BODY}.{SIGNATURE}", Reason.TOKEN_MALFORMED),
    token("T-04", "empty-payload", f"{HEAD}..{SIGNATURE}", Reason.TOKEN_MALFORMED),
    token("T-04", "empty-signature", f"{HEAD}.{BODY}.", Reason.TOKEN_MALFORMED),
    token("T-04", "json-serialization", f'{{"payload":"{BODY}"}}', Reason.TOKEN_MALFORMED),
    token("T-05", "padding", f"{HEAD}.{BODY}.{SIGNATURE}==", Reason.TOKEN_MALFORMED),
    token("T-05", "padded-header", f"{HEAD}=.{BODY}.{SIGNATURE}", Reason.TOKEN_MALFORMED),
    *(
        token("T-06", f"character-{ord(bad):#x}", f"{HEAD}.{BODY}.{SIGNATURE[:-1]}{bad}", Reason.TOKEN_MALFORMED)
        for bad in "+/ \n\t!é\u212a\x00"
    ),
    token("T-06", "final-newline", f"{GOOD}\n", Reason.TOKEN_MALFORMED),
    token("T-06", "blank-before", f" {GOOD}", Reason.TOKEN_MALFORMED),
    token("T-06", "blank-within", f"{HEAD}.{BODY} .{SIGNATURE}", Reason.TOKEN_MALFORMED),
    token("T-06", "spare-bits", f"{HEAD}.{BODY}.{SPARE}", Reason.TOKEN_MALFORMED),
    token("T-06", "spare-bits-in-the-header", respelt(0), Reason.TOKEN_MALFORMED),
    token("T-06", "spare-bits-in-the-payload", respelt(1), Reason.TOKEN_MALFORMED),
    token("T-06", "impossible-length", f"{HEAD}.{BODY}.{SIGNATURE[:-1]}", Reason.TOKEN_MALFORMED),
    payload("T-06", "lone-surrogate", raw_claims(r'"x": "\ud800"'), Reason.TOKEN_MALFORMED),
    payload("T-06", "lone-surrogate-name", raw_claims(r'"\udfff": 1'), Reason.TOKEN_MALFORMED),
    *(
        payload("T-07", encoding, TEXT.encode(encoding), Reason.TOKEN_ENCODING_INVALID)
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig")
    ),
    payload("T-07", "invalid-utf8", TEXT.encode().replace(b"alice", b"al\xffce"), Reason.TOKEN_ENCODING_INVALID),
    payload(
        "T-07", "surrogate-in-utf8", TEXT.encode().replace(b"alice", b"\xed\xa0\x80"), Reason.TOKEN_ENCODING_INVALID
    ),
    *(
        payload("T-08", f"payload-{name}", raw, Reason.TOKEN_MALFORMED)
        for name, raw in {
            "array": "[]",
            "string": '"x"',
            "number": "1",
            "null": "null",
            "no-json": "sub=alice",
            "trailing": TEXT + "{}",
            "single-quotes": "{'sub': 'a'}",
            "raw-newline": TEXT.replace("alice", "al\nce"),
        }.items()
    ),
    *(
        token("T-08", f"header-{raw}", forge(raw, good_claims(), ES), Reason.TOKEN_MALFORMED)
        for raw in ("[]", '"x"', "1", "null", "{")
    ),
    payload("T-09", "depth-17", raw_claims(nested(16)), Reason.TOKEN_TOO_DEEP),
    payload("T-09", "depth-2000", raw_claims(nested(2000)), Reason.TOKEN_TOO_DEEP),
    payload("T-09", "not-in-strings", raw_claims(f'"y": "{"[" * 40}", {nested(17)}'), Reason.TOKEN_TOO_DEEP),
    token("T-09", "header", forge('{"alg": ' + "[" * 1500 + "]" * 1500 + "}", "{}", ES), Reason.TOKEN_TOO_DEEP),
    *(
        payload("T-10", number, raw_claims(f'"x": {number}'), Reason.NUMBER_INVALID)
        for number in (
            "NaN",
            "Infinity",
            "-Infinity",
            "1e400",
            "-1e400",
            str(2**53),
            str(-(2**53)),
            "1" + "0" * 30,
            "9" * 5000,
        )
    ),
    payload("T-10", "time", json.dumps(good_claims(exp=10**30)), Reason.NUMBER_INVALID),
    payload("T-11", "sub", raw_claims('"sub": "bob@example.com"'), Reason.DUPLICATE_CLAIM),
    payload("T-11", "sub-same", raw_claims('"sub": "alice@example.com"'), Reason.DUPLICATE_CLAIM),
    payload("T-11", "exp", raw_claims(f'"exp": {NOW_S + 9}'), Reason.DUPLICATE_CLAIM),
    payload("T-11", "inside-act", raw_claims('"act": {"sub": "a", "sub": "b"}'), Reason.DUPLICATE_CLAIM),
    payload("T-12", "by-escape", raw_claims(r'"s\u0075b": "bob@example.com"'), Reason.DUPLICATE_CLAIM),
    token("T-13", "alg", forge('{"alg": "none", "alg": "ES256", "typ": "at+jwt"}', TEXT, ES), Reason.DUPLICATE_HEADER),
    token("T-13", "kid", forge('{"alg": "ES256", "kid": "a", "kid": "b"}', TEXT, ES), Reason.DUPLICATE_HEADER),
]

PEM = ES.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
HS_HEADER = good_header(RS, alg="HS256")
MANY = keys_of(ES, signer("ES256", "second"))

HEADERS = [
    *(
        header("T-14", f"alg-{alg!r}", Reason.ALG_NOT_ALLOWED, alg=alg)
        for alg in (
            "none",
            "None",
            "nOnE",
            "",
            None,
            ...,
            1,
            ["ES256"],
            {"ES256": 1},
            True,
            "es256",
            "ES256 ",
            "ES256K",
        )
    ),
    token("T-14", "rs256-in-lower-case", forge(good_header(RS, alg="rs256"), TEXT, RS), Reason.ALG_NOT_ALLOWED),
    token(
        "T-15",
        "hmac-with-the-public-key",
        mac(
            HS_HEADER, good_claims(), RS.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        ),
        Reason.ALG_NOT_ALLOWED,
    ),
    token(
        "T-15", "hmac-with-the-ec-key", mac(good_header(ES, alg="HS256"), good_claims(), PEM), Reason.ALG_NOT_ALLOWED
    ),
    token(
        "T-16",
        "rs256-at-an-es-only-issuer",
        good_token("RS256"),
        Reason.ALG_NOT_ALLOWED,
        trust=table(entry(algs=["ES256"])),
        keys=keys_of(ES, algs=("ES256",)),
    ),
    token(
        "T-16",
        "ps256-on-an-rs256-key",
        forge(good_header(RS, alg="PS256"), TEXT, RS),
        Reason.ALG_NOT_ALLOWED,
        trust=table(entry(algs=["RS256", "PS256"])),
        keys=keys_of(RS, algs=("RS256", "PS256")),
    ),
    token(
        "T-16",
        "wrong-curve",
        forge(good_header(ES, alg="ES384"), TEXT, ES),
        Reason.ALG_NOT_ALLOWED,
        trust=table(entry(algs=["ES256", "ES384"])),
        keys=keys_of(ES, algs=("ES256", "ES384")),
    ),
    token("T-16", "another-keys-algorithm", forge(good_header(ES, alg="RS256"), TEXT, ES), Reason.ALG_NOT_ALLOWED),
    header("T-17", "jwk", Reason.HEADER_NOT_ALLOWED, jwk=ES.public_jwk),
    *(
        header("T-17", f"{name}-{value!r}", Reason.HEADER_NOT_ALLOWED, **{name: value})
        for name in ("jku", "x5u", "x5c")
        for value in ("https://evil.example/jwks", None)
    ),
    *(
        header("T-18", f"kid-{kid!r:.20}", Reason.KID_INVALID, kid=kid)
        for kid in (
            1,
            None,
            ["a"],
            {"a": 1},
            "",
            "../../dev/null",
            "/dev/null",
            "a//b",
            "a..b",
            "' OR 1=1",
            "a|b",
            "a b",
            "a\n",
            "http://evil",
            "a" * 129,
            "é",
            "a\x00",
        )
    ),
    token("T-19", "several-keys", forge(good_header(ES, kid=...), TEXT, ES), Reason.KID_MISSING, keys=MANY),
    header("T-20", "unknown", Reason.KEY_UNKNOWN, kid="nobody"),
    token(
        "T-20",
        "another-issuers",
        forge(good_header(signer("ES256", "b")), TEXT, signer("ES256", "b")),
        Reason.KEY_UNKNOWN,
    ),
    *(
        header("T-21", f"crit-{crit!r}", Reason.CRIT_NOT_SUPPORTED, crit=crit)
        for crit in (["exp"], [], None, "b64", ["kid"], [1])
    ),
    header("T-21", "b64-true", Reason.CRIT_NOT_SUPPORTED, crit=["b64"], b64=True),
    header("T-22", "b64-false", Reason.HEADER_NOT_ALLOWED, b64=False),
    header("T-22", "b64-false-critical", Reason.HEADER_NOT_ALLOWED, b64=False, crit=["b64"]),
    header("T-22", "b64-true-alone", Reason.HEADER_NOT_ALLOWED, b64=True),
    *(
        header("T-23", f"typ-{typ!r}", Reason.TYP_NOT_ALLOWED, typ=typ)
        for typ in (
            "JWT",
            ...,
            None,
            1,
            ["at+jwt"],
            "secevent+jwt",
            "dpop+jwt",
            "",
            "at+jwt ",
            "application/at+jwt; x",
            "at+jw\u1e6d",
        )
    ),
    *(
        header("T-24", name, Reason.HEADER_NOT_ALLOWED, **{name: value})
        for name, value in {
            "cty": "JWT",
            "zip": "DEF",
            "enc": "A256GCM",
            "p2c": 1,
            "private": 1,
            "x5t": "a",
            "ALG": "ES256",
            "": 1,
            "iss": ISS,
        }.items()
    ),
]


def resigned(alg: str, change: Callable[[bytes], bytes]) -> str:
    compact = good_token(alg)
    head, _, signature = compact.rpartition(".")
    raw = tokens.base64.urlsafe_b64decode(signature + "==")
    return f"{head}.{b64(change(raw))}"


def swapped(alg: str) -> str:
    mine, other = good_token(alg), good_token(alg, sub="admin@example.com")
    return f"{other.rpartition('.')[0]}.{mine.rpartition('.')[2]}"


SIGNATURES = [
    *(
        token("T-25", f"{name}-{alg}", compact, Reason.SIGNATURE_INVALID)
        for alg in tokens.ALGS
        for name, compact in {
            "flipped": resigned(alg, lambda raw: bytes([raw[0] ^ 1]) + raw[1:]),
            "other-payload": swapped(alg),
            "zero": resigned(alg, lambda raw: bytes(len(raw))),
            "short": resigned(alg, lambda raw: raw[:-1]),
            "long": resigned(alg, lambda raw: raw + b"\0"),
            "other-key": forge(good_header(signer(alg)), TEXT, signer(alg, "thief")),
        }.items()
    ),
    token("T-25", "es256-r-and-s-of-n", resigned("ES256", lambda raw: b"\xff" * len(raw)), Reason.SIGNATURE_INVALID),
    token(
        "T-25",
        "es256-der",
        resigned("ES256", lambda raw: b"\x30\x44\x02\x20" + raw[:32] + b"\x02\x20" + raw[32:]),
        Reason.SIGNATURE_INVALID,
    ),
    token(
        "T-25",
        "before-any-claim",
        swapped("ES256").replace("at+jwt", "at+jwt"),
        Reason.SIGNATURE_INVALID,
    ),
]


def spoiled(**changes: Any) -> KeySet:
    """The good key, spoiled, beside another good one."""
    jwk = {name: value for name, value in (ES.public_jwk | changes).items() if value is not ...}
    return key_set([jwk, signer("ES256", "second").public_jwk])


KEYS = [
    token("T-26", "use-enc", GOOD, Reason.KEY_UNKNOWN, keys=spoiled(use="enc")),
    token("T-26", "use-null", GOOD, Reason.KEY_UNKNOWN, keys=spoiled(use=None)),
    token("T-26", "key-ops-sign", GOOD, Reason.KEY_UNKNOWN, keys=spoiled(key_ops=["sign"])),
    token("T-26", "key-ops-text", GOOD, Reason.KEY_UNKNOWN, keys=spoiled(key_ops="verify")),
    token("T-26", "alg-unfit", GOOD, Reason.KEY_UNKNOWN, keys=spoiled(alg="RS256")),
    token("T-26", "alg-null", GOOD, Reason.KEY_UNKNOWN, keys=spoiled(alg=None)),
    token("T-26", "off-curve", GOOD, Reason.KEY_UNKNOWN, keys=spoiled(y=ES.public_jwk["x"])),
    token("T-28", "key-removed", GOOD, Reason.KEY_UNKNOWN, keys=keys_of(signer("ES256", "second"))),
    token("T-28", "empty-set", GOOD, Reason.ISSUER_KEYS_EMPTY, keys=key_set([])),
    token("T-28", "fully-filtered-set", GOOD, Reason.ISSUER_KEYS_EMPTY, keys=key_set([ES.public_jwk | {"use": "enc"}])),
]

CLAIMS = [
    *(
        claims("T-30", f"iss-{iss!r}", Reason.ISSUER_UNKNOWN, iss=iss)
        for iss in (
            ..., None, [ISS], {"iss": ISS}, 1, "", ISS + "/", ISS[:-1], ISS + "x", ISS.upper(), " " + ISS, ISS + " ",
            ISS.replace("https", "http"),
        )
    ),
    *(
        claims("T-31", f"aud-{aud!r}", Reason.AUDIENCE_MISMATCH, aud=aud)
        for aud in (
            ..., None, "", [], [""], "other", "portculli", "portcullis2", "Portcullis", "*", ["*"], {"portcullis": 1}, 1, True,
            ["portcullis", 1], [["portcullis"]], "portcullis other",
        )
    ),
    claims("T-32", "ours-and-others", Reason.AUDIENCE_NOT_EXCLUSIVE, aud=["portcullis", "other"]),
    claims("T-33", "exp-absent", Reason.CLAIM_MISSING, exp=...),
    claims("T-33", "exp-null", Reason.CLAIM_MISSING, exp=None),
    claims("T-33", "exp-list", Reason.CLAIM_TYPE_INVALID, exp=[NOW_S + 9]),
    claims("T-33", "exp-text", Reason.CLAIM_TYPE_INVALID, exp="never"),
    claims("T-34", "exp-past", Reason.TOKEN_EXPIRED, iat=NOW_S - 100, exp=NOW_S - 31),
    claims("T-34", "exp-at-the-leeway", Reason.TOKEN_EXPIRED, iat=NOW_S - 100, exp=NOW_S - 30),
    claims("T-34", "exp-now-without-leeway", Reason.TOKEN_EXPIRED, exp=NOW_S, trust=table(entry(leeway_s=0))),
    *(
        claims("T-35", f"{name}-{value!r}", Reason.CLAIM_TYPE_INVALID, **{name: value})
        for name in ("exp", "iat", "nbf")
        for value in ("9_999_999_999", str(NOW_S), float(NOW_S), NOW_S + 0.5, True, {}, 0, -1, 253402300800)
    ),
    claims("T-35", "nbf-null", Reason.CLAIM_TYPE_INVALID, nbf=None),
    claims("T-36", "over-the-cap", Reason.TOKEN_LIFETIME_EXCEEDED, exp=NOW_S - 10 + 3601),
    claims("T-36", "far-future", Reason.TOKEN_LIFETIME_EXCEEDED, exp=253402300799),
    claims("T-37", "nbf-ahead", Reason.TOKEN_NOT_YET_VALID, nbf=NOW_S + 31),
    claims("T-37", "iat-ahead", Reason.TOKEN_ISSUED_IN_FUTURE, iat=NOW_S + 31),
    claims("T-38", "iat-in-1970", Reason.TOKEN_LIFETIME_EXCEEDED, iat=1),
    claims("T-38", "iat-zero", Reason.CLAIM_TYPE_INVALID, iat=0),
    claims("T-38", "iat-negative", Reason.CLAIM_TYPE_INVALID, iat=-1),
    claims("T-38", "iat-absent", Reason.CLAIM_MISSING, iat=...),
    claims("T-39", "absent", Reason.CLAIM_MISSING, sub=...),
    claims("T-39", "null", Reason.CLAIM_MISSING, sub=None),
    *(claims("T-39", f"type-{sub!r}", Reason.CLAIM_TYPE_INVALID, sub=sub) for sub in (1, ["alice"], {"a": 1}, True)),
    *(claims("T-40", f"blank-{sub!r}", Reason.SUBJECT_INVALID, sub=sub) for sub in ("", " ", "\t", "\u00a0", "\u3000")),
    *(
        claims("T-41", f"character-{bad!r}", Reason.SUBJECT_INVALID, sub=f"al{bad}ice")
        for bad in ("\0", "\n", "\r", ",", "\u200b", "\u202e", "\u2066", "\ufeff", "\x7f", " ", '"', "'", "\\", "`", "*", "?",
                    "%", "#", ";", "<", ">", "{", "}", "\ue000", "\U000e0001")
    ),
    claims("T-41", "two-at", Reason.SUBJECT_INVALID, sub="alice@evil.example@good.example"),
    claims("T-41", "too-long", Reason.SUBJECT_INVALID, sub="a" * 256),
    claims("T-42", "not-nfc", Reason.SUBJECT_INVALID, sub="ame\u0301lie"),
    claims("T-42", "nfkc-twin", Reason.SUBJECT_INVALID, sub="\uff41lice"),
    claims("T-42", "kelvin", Reason.SUBJECT_INVALID, sub="\u212aim"),
    *(
        claims("T-43", sub, Reason.SUBJECT_RESERVED, sub=sub)
        for sub in ("role:admin", "ROLE:admin", "Group:x", "user:alice", "workload:x", "Agent:x", "segment:a", "collection:b")
    ),
    claims("T-44", "outside-the-pattern", Reason.SUBJECT_NOT_ALLOWED, trust=table(entry(sub_pattern=r"[a-z]+@corp\.example"))),
    claims("T-44", "pattern-matches-whole", Reason.SUBJECT_NOT_ALLOWED, trust=table(entry(sub_pattern="alice"))),
    claims(
        "T-44", "into-another-namespace", Reason.SUBJECT_NOT_ALLOWED, sub="corp/alice",
        trust=table(entry(), entry(iss="https://corp.example", namespace="corp")),
    ),
    claims("T-45", "absent", Reason.CLAIM_MISSING, jti=...),
    claims("T-45", "empty", Reason.CLAIM_MISSING, jti=""),
    claims("T-45", "null", Reason.CLAIM_MISSING, jti=None),
    *(claims("T-45", f"type-{jti!r:.20}", Reason.CLAIM_TYPE_INVALID, jti=jti) for jti in (1, [""], True, "a" * 129, "a#b")),
    claims("T-45", "client-id-absent", Reason.CLAIM_MISSING, client_id=...),
    claims("T-45", "client-id-type", Reason.CLAIM_TYPE_INVALID, client_id=["a"]),
    claims("T-46", "nonce", Reason.CLAIM_FORBIDDEN, nonce="n"),
    claims("T-46", "at-hash", Reason.CLAIM_FORBIDDEN, at_hash="n"),
    claims("T-46", "events", Reason.CLAIM_FORBIDDEN, events={}),
    claims("T-47", "scope-list", Reason.CLAIM_TYPE_INVALID, scope=["read"]),
    *(
        claims("T-47", f"{name}-{value!r:.20}", Reason.CLAIM_TYPE_INVALID, **{name: value})
        for name in ("roles", "groups", "entitlements")
        for value in ("admin", {"admin": 1}, ["a", 1], None, ["a"] * 257)
    ),
    claims("T-47", "many-scopes", Reason.CLAIM_TYPE_INVALID, scope=" ".join(["a"] * 257)),
    claims("T-47", "long-scope", Reason.CLAIM_TYPE_INVALID, scope="a" * 129),
    claims("T-47", "group-grammar", Reason.CLAIM_TYPE_INVALID, groups=["a,b"]),
    *(
        claims("T-48", f"cnf-{cnf!r:.30}", Reason.BINDING_REQUIRED, cnf=cnf)
        for cnf in ({"jkt": "a"}, {"x5t#S256": "a"}, {"jwk": {}}, {"other": 1}, {}, None, "a", [])
    ),
    *(
        claims("T-48", f"listed-{cnf!r:.30}", Reason.BINDING_REQUIRED, cnf=cnf, trust=table(entry(cnf_kinds=["x5t#S256"])))
        for cnf in ({"jkt": "a"}, {"x5t#S256": "a", "jkt": "b"}, {"x5t#S256": ""}, {"x5t#S256": 1})
    ),
    *(
        claims("T-48", f"list-{cnf!r}", Reason.BINDING_REQUIRED, cnf=cnf, trust=table(entry(cnf_kinds=["x5t#S256"])))
        for cnf in (["x5t#S256"], "x5t#S256")
    ),
    claims("T-48", "bound-in-one-way-of-two", Reason.BINDING_REQUIRED, cnf={"x5t#S256": "a"},
           trust=table(entry(cnf_kinds=["x5t#S256", "jkt"], cnf_required=["x5t#S256", "jkt"]))),
    claims("T-48", "not-bound-at-all", Reason.BINDING_REQUIRED,
           trust=table(entry(cnf_kinds=["x5t#S256"], cnf_required=["x5t#S256"]))),
    claims("T-49", "no-certificate", Reason.BINDING_MISMATCH, cnf={"x5t#S256": "a"}, trust=table(entry(cnf_kinds=["x5t#S256"]))),
    attack("T-50", "dpop-scheme", f"DPoP {GOOD}", Reason.DPOP_PROOF_INVALID),
    *(
        claims("T-51", f"unwanted-{act!r:.30}", Reason.ACTOR_INVALID, act=act)
        for act in ({"sub": "bot"}, {}, None, "bot", chain(*"abcdefghij"))
    ),
    *(
        claims("T-51", f"malformed-{act!r:.40}", Reason.ACTOR_INVALID, act=act, trust=table(entry(max_act_depth=4)))
        for act in (
            {}, None, "bot", [], {"sub": 1}, {"sub": None}, {"sub": ""}, {"sub": "role:admin"}, {"sub": "a b"},
            {"act": {"sub": "x"}},
            {"sub": "a", "act": None}, {"sub": "a", "act": {}}, {"sub": "a", "iss": "https://other"}, {"sub": "a", "iss": None},
            {"sub": "spiffe://prod.example/bot"}, chain("a", "b", "a"), chain("alice@example.com"),
            chain("a", "alice@example.com"),
        )
    ),
    *(
        claims("T-51", f"depth-{depth + 1}-of-{depth}", Reason.ACTOR_CHAIN_TOO_DEEP, act=chain(*"abcdefghij"[: depth + 1]),
               trust=table(entry(max_act_depth=depth)))
        for depth in (1, 2, 4)
    ),
    claims("T-51", "depth-10", Reason.ACTOR_CHAIN_TOO_DEEP, act=chain(*"abcdefghij"), trust=table(entry(max_act_depth=4))),
    # Fifty levels of JSON are refused before anything is parsed: the gate comes first (PR-2).
    claims("T-51", "depth-50", Reason.TOKEN_TOO_DEEP, act=chain(*map(str, range(50))), trust=table(entry(max_act_depth=4))),
    *(
        claims("T-52", sub, Reason.SPIFFE_ID_INVALID, sub=sub)
        for sub in ("spiffe://prod.example", "Spiffe://prod.example/a", "SPIFFE:x", "spiffe://prod.example/%61", "spiffe://p/../a",
                    "spiffe://prod.example/a/", "spiffe://Prod.example/a")
    ),
    claims("T-53", "unknown-domain", Reason.TRUST_DOMAIN_UNKNOWN, sub="spiffe://prod.example/a"),
    claims("T-53", "domain-without-jwt-bundle", Reason.TRUST_DOMAIN_UNKNOWN, sub="spiffe://prod.example/a",
           trust=table(entry(), domains=("prod.example",))),
]  # fmt: skip

ATTACKS = [*INTAKE, *HEADERS, *SIGNATURES, *KEYS, *CLAIMS]


class StaticKeys:
    """A key store that holds one set."""

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys

    async def key_set(self, issuer: Issuer, *, kid: str | None) -> KeySet:
        del issuer, kid
        return self.keys


class FixedClock:
    def now_ms(self) -> int:
        return NOW_MS

    def mono_s(self) -> float:
        return 1.0


def door(trust: IssuerTable, keys: KeySet) -> Authenticator:
    return Authenticator(issuers=trust, keys=StaticKeys(keys), clock=FixedClock())


def enter(authenticator: Authenticator, authorization: str | None, locks: LockSet = LockSet.EMPTY) -> Any:
    return asyncio.run(authenticator.authenticate(authorization, None, locks=locks))


@pytest.mark.holds("F13", "L1")
@pytest.mark.parametrize("case", ATTACKS, ids=str)
def test_is_refused_with_its_reason(case: Attack) -> None:
    keys = case.keys or keys_of(*(signer(alg) for alg in tokens.ALGS))
    assert reason_of(judge(case.authorization, trust=case.trust, keys=keys)) is case.reason
    assert reason_of(enter(door(case.trust, keys), case.authorization)) is case.reason


def test_the_good_token_beside_the_table_is_accepted() -> None:
    identity = judge(f"Bearer {GOOD}")
    assert isinstance(identity, VerifiedIdentity)
    assert str(identity.party.principal) == "user:alice@example.com"
    assert identity.party.groups == {"group:ml-engineers"}


def test_an_issuer_with_one_key_need_not_name_it() -> None:
    assert isinstance(judge("Bearer " + forge(good_header(ES, kid=...), TEXT, ES), keys=keys_of(ES)), VerifiedIdentity)


def test_every_row_for_access_tokens_is_in_the_table() -> None:
    elsewhere = {"T-27", "T-29", "T-54", "T-57"}  # below, and in the tests of key sets and certificates
    rows = {case.row for case in ATTACKS} | elsewhere
    wanted = {f"T-{number:02}" for number in (*range(1, 49), 51, 54, 57)}
    assert wanted <= rows


@pytest.mark.parametrize(
    "jwks",
    [
        [ES.public_jwk, signer("ES256", "second").public_jwk | {"kid": ES.public_jwk["kid"]}],
        [ES.public_jwk, {"kty": "oct", "k": "c2VjcmV0"}],
        [ES.public_jwk | {"d": "c2VjcmV0"}],
    ],
    ids=["repeated-kid", "symmetric", "private"],
)
def test_t27_an_ambiguous_or_secret_set_is_refused_whole(jwks: list[Mapping[str, Any]]) -> None:
    refusal = parse_jwks(json.dumps({"keys": jwks}).encode(), issuer=ISS, algs=frozenset(tokens.ALGS))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.KEYS_UNAVAILABLE


class RustPanic(BaseException):
    """What a panic in the crypto library's Rust code looks like: no `Exception`."""


@pytest.mark.parametrize("error", [ValueError, MemoryError, RecursionError, AssertionError, KeyError, RustPanic])
def test_t29_whatever_the_backend_raises_is_a_refusal_and_counted(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def explode(*_args: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(ECAlgorithm, "verify", explode)
    assert reason_of(judge(f"Bearer {GOOD}")) is Reason.VERIFIER_ERROR
    authenticator = door(table(), keys_of(ES))
    assert reason_of(enter(authenticator, f"Bearer {GOOD}")) is Reason.VERIFIER_ERROR
    assert authenticator.counters["backend_leaks"] == 1


@pytest.mark.parametrize("truthy", [1, "true", object(), b"\1"])
def test_t29_a_truthy_answer_of_the_backend_is_no_proof(monkeypatch: pytest.MonkeyPatch, truthy: object) -> None:
    monkeypatch.setattr(ECAlgorithm, "verify", lambda *_args: truthy)
    assert reason_of(judge(f"Bearer {GOOD}")) is Reason.SIGNATURE_INVALID


def test_ctrl_c_is_not_swallowed_with_the_backends_surprises(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ECAlgorithm, "verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        judge(f"Bearer {GOOD}")


def test_no_symmetric_algorithm_is_even_registered() -> None:
    assert {alg[:2] for alg in signature._ALGORITHMS} == {"RS", "PS", "ES", "Ed"}


LOCKS = {
    f"jti:{ISS}#0001": Reason.TOKEN_REVOKED,
    f"session:{ISS}#s1": Reason.TOKEN_REVOKED,
    f"issued-before:{ISS}#{NOW_S - 10}": Reason.TOKEN_REVOKED,
    f"issued-before:{ISS}#{NOW_S}#user:alice@example.com": Reason.TOKEN_REVOKED,
    "user:alice@example.com": Reason.LOCKED,
    "agent:bot": Reason.LOCKED,
    "agent:inner": Reason.LOCKED,
}


@pytest.mark.parametrize(("target", "reason"), LOCKS.items())
def test_t57_a_locked_credential_is_refused_also_when_it_is_remembered(target: str, reason: Reason) -> None:
    authenticator = door(table(entry(max_act_depth=2)), keys_of(ES))
    authorization = f"Bearer {good_token(sid='s1', act=chain('bot', 'inner'))}"
    lock = Lock(id="l1", target=LockTarget.parse(target), reason="stolen", source="user:ada", start_ms=NOW_MS - 1000)
    locks = LockSet.EMPTY.added(lock)
    assert reason_of(enter(authenticator, authorization, locks)) is reason
    assert reason_of(enter(authenticator, authorization)) is None
    assert reason_of(enter(authenticator, authorization, locks)) is reason
    assert authenticator.counters["hits"] == 2
