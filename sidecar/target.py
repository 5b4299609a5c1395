"""One canonical request target, shared by every placement.

Envoy has already normalised the path and refused escaped slashes; this reads what Envoy hands on once more and refuses
every second spelling. INVARIANT: the bytes that were decided on are the bytes that are forwarded, so a target that is
not its own canonical form is refused, never repaired.

Source: ENFORCEMENT.md EX-8, EX-9, EX-11; FAILURE.md N1-N3.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from sidecar.limits import LIMITS

# pchar of RFC 3986 without `;` (path parameters: a server may cut them off, so `/a;x` and `/a` would be one resource).
_PATH_SAFE = "/!$&'()*+,=:@-._~"
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_ESCAPES = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")
_FORBIDDEN = frozenset("?#%;\\")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A request target in its only spelling: decoded `path`, and the `query` as sent (empty: none)."""

    path: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BadTarget:
    """A target that is refused, and why (for the record, never for the caller)."""

    why: str


def canonical(raw: str) -> Target | BadTarget:
    """Return the canonical target, or why `raw` is refused.

    No URL parser reads it: one would take `//admin` for an authority (CVE-2026-26205) and re-encode `?` (CVE-2026-32811).
    """
    if len(raw) > LIMITS.target_bytes:
        return BadTarget(why="target too long")
    return _short(raw) if len(raw) <= LIMITS.target_cache_bytes else _read(raw)


def _read(raw: str) -> Target | BadTarget:
    if not _PRINTABLE.fullmatch(raw):
        return BadTarget(why="empty, or a byte outside printable ASCII")
    if "#" in raw:
        return BadTarget(why="fragment")
    path, mark, query = raw.partition("?")
    if mark and not query:
        return BadTarget(why="an empty query")  # a second spelling of the path without one
    if not _ESCAPES.fullmatch(path) or not _ESCAPES.fullmatch(query):
        return BadTarget(why="broken percent escape")
    return _canonical_path(path, query)


# A pure function of the target's bytes, hence nothing to invalidate; only short targets, so that memory is bounded.
_short = lru_cache(maxsize=LIMITS.target_cache_entries)(_read)


def _canonical_path(path: str, query: str) -> Target | BadTarget:
    if not path.startswith("/"):
        return BadTarget(why="not an absolute path")
    try:
        decoded = unquote_to_bytes(path).decode("utf-8", "strict")  # strict: overlong `%C0%AE` is no dot
    except UnicodeDecodeError:
        return BadTarget(why="not UTF-8")
    why = _bad_text(decoded) or _bad_segments(decoded)
    if why:
        return BadTarget(why=why)
    if quote(decoded, safe=_PATH_SAFE) != path:
        return BadTarget(why="not the canonical spelling")
    return Target(path=decoded, query=query)


def _bad_text(decoded: str) -> str:
    if _FORBIDDEN.intersection(decoded):
        return "a reserved character"
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for char in decoded):
        return "a control or invisible character"
    return "" if unicodedata.is_normalized("NFC", decoded) else "not NFC"


def _bad_segments(decoded: str) -> str:
    segments = decoded[1:].split("/")
    if segments == [""]:
        return ""
    return "an empty or dot segment" if any(part in {"", ".", ".."} for part in segments) else ""
