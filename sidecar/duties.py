"""Obligations that a data path carries out: which row can carry out which, and what an allow's obligations come to.

An obligation that a row cannot carry out is not asked for: the engine denies it (`obligation_unsupported`), because the
question names what its door supports.

Source: ENFORCEMENT.md 5.3.
"""

from dataclasses import dataclass
from functools import lru_cache

from pdp.model.decision import Obligation
from sidecar.limits import LIMITS
from sidecar.routes import WEBSOCKET, Body, Dialect, Placement, Row

_ANYWHERE = frozenset({"recheck_after", "purpose", "pin_version", "require_digest"})
_SESSION = frozenset({"recheck_messages", "recheck_tokens", "max_messages"})
_MID_STREAM = frozenset({"recheck_after", "recheck_messages", "recheck_tokens", "max_messages"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """What of a model's confidence is taken out of its replies."""

    probabilities: bool = False
    logprobs: bool = False
    only_top: bool = False
    digits: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Strip":
        """Read the canonical value of `strip_outputs`."""
        words = text.split(",")
        digits = [int(word.removeprefix("round:")) for word in words if word.startswith("round:")]
        return cls(
            probabilities="probabilities" in words,
            logprobs="logprobs" in words,
            only_top="all-but-top-1" in words,
            digits=min(digits) if digits else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """What one allow obliges its door to; None: no such bound.

    Attributes:
        max_tokens: The most tokens the body may ask for.
        max_messages: The most messages of the session, either way.
        recheck_messages: Decide again after so many messages.
        recheck_tokens: Decide again after so many tokens, counted as events.
        strip: What is taken out of the reply.
        pin: The version that must be sent on.
        digest: What the version's digest must be.
        purpose: What the caller must have asserted.
        fixed: The obligations that were carried out when the response began: a running one cannot take on another.
    """

    max_tokens: int | None = None
    max_messages: int | None = None
    recheck_messages: int | None = None
    recheck_tokens: int | None = None
    strip: Strip | None = None
    pin: str = ""
    digest: str = ""
    purpose: str = ""
    fixed: frozenset[Obligation] = frozenset()

    @staticmethod
    @lru_cache(maxsize=LIMITS.duties)
    def of(listed: tuple[Obligation, ...]) -> "Duties":
        """Return the duties in an allow's obligations; a pure function of them, so that there is nothing to invalidate."""
        if not listed:
            return NO_DUTIES
        by_name = {item.name: item.value for item in listed}

        def number(name: str) -> int | None:
            return int(by_name[name]) if name in by_name else None

        return Duties(
            max_tokens=number("max_tokens"),
            max_messages=number("max_messages"),
            recheck_messages=number("recheck_messages"),
            recheck_tokens=number("recheck_tokens"),
            strip=Strip.parse(by_name["strip_outputs"]) if "strip_outputs" in by_name else None,
            pin=by_name.get("pin_version", ""),
            digest=by_name.get("require_digest", ""),
            purpose=by_name.get("purpose", ""),
            fixed=frozenset(item for item in listed if item.name not in _MID_STREAM),
        )


NO_DUTIES = Duties()


def supported(row: Row, placement: Placement) -> frozenset[str]:
    """Return the obligations that `row` can carry out at `placement`."""
    if placement is Placement.EXT_AUTHZ or (placement is Placement.EXT_PROC and row.method == WEBSOCKET):
        return _ANYWHERE  # behind Envoy a WebSocket is a tunnel: nobody counts its messages
    found = _ANYWHERE | _SESSION
    if row.limit == "" or (row.limit is not None and row.body is Body.JSON):
        found |= {"max_tokens"}
    if row.body is Body.JSON and row.dialect is not Dialect.PLAIN:
        found |= {"strip_outputs"}
    return found
