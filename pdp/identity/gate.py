"""The pre-parse gate: bytes that could be read in two ways are refused before anything is read from them.

JWT libraries accept repeated names, padding, other encodings, endless numbers and deep nesting; two readers of such a
token can see two different people. Here a token has one spelling and one meaning, or it is refused. What PyJWT would
let through is marked [P] in IDENTITY.md section 3.
"""

import binascii
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NoReturn

from pdp.errors import Reason
from pdp.identity.types import Refusal
from pdp.limits import HEADER_CACHE_ENTRIES, MAX_JSON_DEPTH, MAX_SAFE_INTEGER, MAX_TOKEN_BYTES

# GA-3: `fullmatch`, since `$` would allow a final newline.
_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# Possessive, and a string without end runs to the end: otherwise a text of `\"` would cost quadratic time.
_STRUCTURE: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|([\[{])|([\]}])', re.DOTALL)
_ENCODING_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_BASE64URL: Final = re.compile(rb"[A-Za-z0-9_-]*")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_PADDING: Final = (b"", b"", b"==", b"=")
_LAST: Final = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
"""By what is left of the length: the characters that may stand last, their spare bits all zero."""
_NO_CREDENTIALS: Final = 4 * MAX_TOKEN_BYTES
_MAX_DIGITS: Final = len(str(MAX_SAFE_INTEGER)) + 1


class Scheme(StrEnum):
    """How the token was presented."""

    BEARER = "bearer"
    DPOP = "dpop"


_SCHEMES: Final = {scheme.value: scheme for scheme in Scheme}
_LONGEST_SCHEME: Final = max(map(len, _SCHEMES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One token as it was presented: the scheme and the exact bytes, at most 8192 of them. Never printed."""

    scheme: Scheme
    token: bytes

    def __repr__(self) -> str:
        return f"Credential(scheme={self.scheme.value!r}, token=<{len(self.token)} bytes>)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedToken:
    """A token that can be read in one way only. Nothing in it is proved yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes

    def __repr__(self) -> str:
        return f"ParsedToken(signing_input=<{len(self.signing_input)} bytes>)"


def single_value(values: Iterable[str]) -> str | None:
    """Return the one `Authorization` value of a request; several come back joined by commas, which `present` refuses."""
    return ", ".join(values) or None


def present(authorization: str | None) -> Credential | Refusal:
    """Return the one token of an `Authorization` value (GA-1, GA-2); query and body are never read."""
    if not authorization:
        return Refusal(reason=Reason.CREDENTIAL_MISSING)  # T-01
    if len(authorization) > _NO_CREDENTIALS:
        # Before anything looks through it: even two credentials are shorter.
        return Refusal(reason=Reason.TOKEN_TOO_LARGE, detail=f"more than {MAX_TOKEN_BYTES} bytes")  # T-03, GA-2
    if "," in authorization:
        return Refusal(reason=Reason.CREDENTIAL_AMBIGUOUS, detail="more than one authorization value")  # T-02
    word, _, token = authorization.partition(" ")
    scheme = _scheme(word)
    if scheme is None or not token:
        return Refusal(reason=Reason.CREDENTIAL_MISSING, detail="neither a `Bearer` nor a `DPoP` token")  # T-01
    return _credential(scheme, token)


def _credential(scheme: Scheme, token: str) -> Credential | Refusal:
    if len(token) > MAX_TOKEN_BYTES:
        return Refusal(reason=Reason.TOKEN_TOO_LARGE, detail=f"more than {MAX_TOKEN_BYTES} bytes")  # T-03, GA-2
    if " " in token and _scheme(token.partition(" ")[0]) is not None:
        return Refusal(reason=Reason.CREDENTIAL_AMBIGUOUS, detail="a scheme within the credential")  # T-02
    if not token.isascii():
        return Refusal(reason=Reason.TOKEN_MALFORMED, detail="not ASCII")  # T-06
    return Credential(scheme=scheme, token=token.encode("ascii"))


def _scheme(word: str) -> Scheme | None:
    """Return the scheme that `word` names in any case (RFC 9110 section 11.1), if we know it."""
    return _SCHEMES.get(word.lower()) if len(word) <= _LONGEST_SCHEME else None


def parse(token: bytes) -> ParsedToken | Refusal:
    """Read a compact JWS, or say why it could be read in two ways (GA-2..6). The signature is not looked at."""
    if len(token) > MAX_TOKEN_BYTES:
        return Refusal(reason=Reason.TOKEN_TOO_LARGE, detail=f"more than {MAX_TOKEN_BYTES} bytes")  # T-03, GA-2
    if not _COMPACT.fullmatch(token):
        return Refusal(reason=Reason.TOKEN_MALFORMED, detail="not a compact JWS")  # T-04..T-06, GA-3
    signing_input, _, last = token.rpartition(b".")
    first, _, middle = signing_input.partition(b".")
    payload, signature = decode_base64url(middle), decode_base64url(last)
    header = _read_header(first)
    if header is None or payload is None or signature is None:
        return Refusal(reason=Reason.TOKEN_MALFORMED, detail="base64url that is not canonical")  # T-06, GA-4
    if isinstance(header, Refusal):
        return header
    claims = read_object(payload, duplicate=Reason.DUPLICATE_CLAIM)
    if isinstance(claims, Refusal):
        return claims
    return ParsedToken(header=header, claims=claims, signing_input=signing_input, signature=signature)


# All tokens of one key have one header. Key: its bytes, on which alone the answer depends; nothing invalidates it.
@lru_cache(maxsize=HEADER_CACHE_ENTRIES)
def _read_header(segment: bytes) -> Mapping[str, Any] | Refusal | None:
    raw = decode_base64url(segment)
    if raw is None:
        return None
    header = read_object(raw, duplicate=Reason.DUPLICATE_HEADER)
    return header if isinstance(header, Refusal) else MappingProxyType(header)


def decode_base64url(segment: bytes) -> bytes | None:
    """Return the bytes that `segment` spells, or None unless it is their one unpadded spelling (GA-4)."""
    tail = len(segment) % 4
    if _BASE64URL.fullmatch(segment) is None or tail == 1:
        return None
    if tail and segment[-1] not in _LAST[tail]:
        return None  # spare bits that are set: a second spelling of the same bytes
    return binascii.a2b_base64(segment.translate(_STANDARD) + _PADDING[tail])


def read_object(raw: bytes, *, duplicate: Reason) -> dict[str, Any] | Refusal:
    """Return the JSON object in `raw`, if it has exactly one reading (GA-5, GA-6).

    Args:
        raw: the bytes; their length has been bounded by the caller.
        duplicate: the reason to give when a name stands twice in one object.
    """
    text = _read_text(raw)
    if isinstance(text, Refusal):
        return text
    if _too_deep(text):
        return Refusal(reason=Reason.TOKEN_TOO_DEEP, detail=f"more than {MAX_JSON_DEPTH} levels")  # T-09
    value = _decode(text, duplicate)
    if type(value) is not dict and type(value) is not Refusal:
        return Refusal(reason=Reason.TOKEN_MALFORMED, detail="not a JSON object")  # T-08
    return value


def _decode(text: str, duplicate: Reason) -> Any:
    """Return the value of a JSON text, or a `Refusal`."""
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # T-06: a lone surrogate has no UTF-8
    except _RepeatedNameError:
        return Refusal(reason=duplicate, detail="a name stands twice in one object")  # T-11..T-13
    except _NumberError:
        return Refusal(reason=Reason.NUMBER_INVALID, detail="a number beyond exact doubles")  # T-10
    except ValueError:
        return Refusal(reason=Reason.TOKEN_MALFORMED, detail="not JSON")
    return value


def _read_text(raw: bytes) -> str | Refusal:
    """Decode before parsing: `json.loads` on bytes would guess UTF-16 and UTF-32 (GA-5, T-07)."""
    # UTF-16 and UTF-32 of ASCII text are valid UTF-8 full of NULs, which no JSON text holds.
    if raw.startswith(_ENCODING_MARKS) or b"\0" in raw:
        return Refusal(reason=Reason.TOKEN_ENCODING_INVALID, detail="not UTF-8 without a mark")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return Refusal(reason=Reason.TOKEN_ENCODING_INVALID, detail="not UTF-8")


def _too_deep(text: str) -> bool:
    """Tell whether arrays and objects nest beyond the limit, without parsing: the parser recurses (T-09)."""
    if text.count("{") + text.count("[") <= MAX_JSON_DEPTH:
        return False
    depth = 0
    for match in _STRUCTURE.finditer(text):
        depth += (match[1] is not None) - (match[2] is not None)
        if depth > MAX_JSON_DEPTH:
            return True
    return False


class _RepeatedNameError(ValueError):
    """A name stands twice in one object, after unescaping (T-11, T-12)."""


class _NumberError(ValueError):
    """A number that readers would round, or that is none."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _RepeatedNameError
    return value


def _integer(text: str) -> int:
    # The length first: converting a long integer costs quadratic time.
    if len(text) > _MAX_DIGITS or abs(value := int(text)) > MAX_SAFE_INTEGER:
        raise _NumberError
    return value


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _NumberError
    return value


def _constant(_text: str) -> NoReturn:
    raise _NumberError  # NaN and the infinities


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant, strict=True
)
