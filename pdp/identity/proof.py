"""DPoP proofs: that whoever presents a bound token holds its key, for this request and no other (RFC 9449, PR-3).

The twelve points of RFC 9449 section 4.3 stand beside their checks as `4.3-n`. What depends on the proof's bytes and the
request alone is checked once and remembered for the second look of the same request; time, nonce and key are compared
anew; that a proof is used once is for the caller to see to, last, with `replay_key`.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from pdp.errors import BadNameError, Reason
from pdp.identity import gate
from pdp.identity.gate import ParsedToken
from pdp.identity.keyset import ALGORITHMS, parse_public_jwk
from pdp.identity.signature import check_signature
from pdp.identity.types import Refusal
from pdp.limits import DPOP_WINDOW_S, MAX_KID_BYTES, MAX_TIME_S, PROOF_CACHE_ENTRIES
from pdp.model import canonical
from pdp.model.names import check_identifier

PROOF_ALGORITHMS: Final = tuple(sorted(ALGORITHMS))
"""What a proof may be signed with; told to clients in the challenge (RFC 9449 section 5.1)."""

_HEADER: Final = frozenset({"typ", "alg", "jwk"})
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_URI: Final = re.compile(r"[\x21-\x7e]+")
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundRequest:
    """The request that a proof must name: its method, its URI, and what stood in its `DPoP` header.

    `uri` is the configured authority with the path of the request; empty where no authority is configured: then no proof
    can hold. `proof` is the header's value, several joined by commas. `nonces` are those that we take now; None = we
    issue none.
    """

    method: str = ""
    uri: str = ""
    proof: str | None = None
    nonces: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"BoundRequest(method={self.method!r}, uri={self.uri!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof that holds for one request: whose key made it, and what makes it unique. `nonce` is empty without one."""

    jkt: str
    jti: str
    issued_at_s: int
    nonce: str

    def replay_key(self) -> bytes:
        """Return what may be seen once only. Not the bytes: ES256 has a second spelling of each signature (TC-6)."""
        return canonical.digest("dpop-replay", self.jkt.encode(), self.jti.encode())

    @property
    def until_s(self) -> int:
        """The second from which the proof is refused for its age, so that its use need not be remembered."""
        return self.issued_at_s + DPOP_WINDOW_S + 1


def read_proof(request: BoundRequest, *, token: bytes) -> Proof | Refusal:
    """Return what the request's proof says, if it is one for this request and this token: all but time, nonce and key.

    Args:
        request: the request as this door saw it.
        token: SHA-256 of the access token.
    """
    if request.proof is None:
        return _invalid("no `DPoP` header")
    if "," in request.proof:
        return _invalid("more than one `DPoP` header")  # 4.3-1
    if not request.uri or not request.method:
        return _invalid("this door has no configured authority that a proof could name")
    return _read(request.proof, request.method, request.uri, token)


def check_proof(proof: Proof, *, jkt: str, nonces: tuple[str, ...] | None, now_ms: int) -> Refusal | None:
    """Refuse a proof that is too old, from the future, without our nonce, or of another key."""
    if nonces is not None and proof.nonce not in nonces:
        return Refusal(reason=Reason.DPOP_NONCE_REQUIRED, detail="no nonce of ours", dpop=True)  # 4.3-10
    if abs(now_ms - proof.issued_at_s * 1000) > DPOP_WINDOW_S * 1000:
        return _invalid(f"`iat` is not within {DPOP_WINDOW_S} s")  # 4.3-11
    if proof.jkt != jkt:
        return _invalid("not the key that the token names")  # 4.3-12
    return None


# Key: every byte that the answer depends on. Nothing invalidates it: neither time nor configuration is looked at.
@lru_cache(maxsize=PROOF_CACHE_ENTRIES)
def _read(text: str, method: str, uri: str, token: bytes) -> Proof | Refusal:
    if not text.isascii():
        return _invalid("not ASCII")
    parsed = gate.parse(text.encode("ascii"))
    if isinstance(parsed, Refusal):
        return _invalid(f"{parsed.reason.value}: {parsed.detail}")  # 4.3-2
    jkt = _signer(parsed)
    if isinstance(jkt, Refusal):
        return jkt
    return _check_claims(parsed, method, uri, token) or _proof(parsed, jkt)


def _signer(parsed: ParsedToken) -> str | Refusal:
    """Return the thumbprint of the key that made a proof."""
    header = parsed.header
    typ, alg = header.get("typ"), header.get("alg")
    if set(header) != _HEADER:
        return _invalid("a header other than `typ`, `alg`, `jwk`")
    if type(typ) is not str or not typ.isascii() or typ.lower() != "dpop+jwt":
        return _invalid("not of type `dpop+jwt`")  # 4.3-4
    if type(alg) is not str or alg not in ALGORITHMS:
        return _invalid("not an asymmetric algorithm that we take")  # 4.3-5
    key = parse_public_jwk(header["jwk"], alg=alg)
    if isinstance(key, Refusal):
        return key  # 4.3-7
    refusal = check_signature(parsed, key)
    if refusal is not None and refusal.reason is Reason.VERIFIER_ERROR:
        return refusal  # counted by the caller (ER-2)
    return _invalid("its signature does not hold") if refusal is not None else key.thumbprint  # 4.3-6


def _check_claims(parsed: ParsedToken, method: str, uri: str, token: bytes) -> Refusal | None:
    return _check_types(parsed.claims) or _check_request(parsed.claims, method, uri, token)


def _check_types(claims: Mapping[str, Any]) -> Refusal | None:
    if any(type(claims.get(name)) is not str for name in ("jti", "htm", "htu", "ath")):
        return _invalid("`jti`, `htm`, `htu` and `ath` are strings, and none is absent")  # 4.3-3
    if type(claims.get("iat")) is not int or not 1 <= claims["iat"] <= MAX_TIME_S:
        return _invalid("`iat` is no time")  # 4.3-3
    if type(claims.get("nonce", "")) is not str or not _is_id(claims["jti"]):
        return _invalid("`jti` or `nonce` is malformed")
    return None


def _check_request(claims: Mapping[str, Any], method: str, uri: str, token: bytes) -> Refusal | None:
    if claims["htm"] != method:
        return _invalid("made for another method")  # 4.3-8
    named, ours = normalise(claims["htu"]), normalise(uri)
    if named is None or named != ours:
        return _invalid("made for another address")  # 4.3-9
    if claims["ath"] != base64.urlsafe_b64encode(token).rstrip(b"=").decode():
        return _invalid("made for another token")  # 4.3-12
    return None


def _proof(parsed: ParsedToken, jkt: str) -> Proof:
    claims = parsed.claims
    return Proof(jkt=jkt, jti=claims["jti"], issued_at_s=claims["iat"], nonce=claims.get("nonce", ""))


def _is_id(text: str) -> bool:
    try:
        check_identifier(text, max_bytes=MAX_KID_BYTES)
    except BadNameError:
        return False
    return True


@lru_cache(maxsize=PROOF_CACHE_ENTRIES)
def normalise(uri: str) -> str | None:
    """Return a URI without query and fragment in its one spelling (RFC 3986 sections 6.2.2, 6.2.3); None if it is none."""
    if not _URI.fullmatch(uri) or "\\" in uri:
        return None
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return None
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in _DEFAULT_PORTS or not host or "@" in parts.netloc or _BROKEN_ESCAPE.search(parts.path):
        return None
    name = f"[{host}]" if ":" in host else host
    authority = name if port is None or port == _DEFAULT_PORTS[scheme] else f"{name}:{port}"
    return f"{scheme}://{authority}{_without_dots(_ESCAPE.sub(_unescaped, parts.path) or '/')}"


def _unescaped(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _without_dots(path: str) -> str:
    """Remove `.` and `..` segments (RFC 3986 section 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def token_digest(token: bytes) -> bytes:
    """Return what the `ath` of a proof is made of (RFC 9449 section 4.2)."""
    return hashlib.sha256(token).digest()


def _invalid(detail: str) -> Refusal:
    return Refusal(reason=Reason.DPOP_PROOF_INVALID, detail=detail, dpop=True)
