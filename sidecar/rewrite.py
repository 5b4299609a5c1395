"""What is sent on to the model in place of what came, where an obligation or a pinned name demands it.

INVARIANT: what is sent on is what was decided: the caller's own bytes, or what was parsed from them, written anew.

Source: ENFORCEMENT.md 3.5 (aliases pinned), 5.3 (`max_tokens`, `pin_version`, `strip_outputs`).
"""

from dataclasses import dataclass
from typing import Any

from pdp.errors import Reason
from sidecar import messages
from sidecar.asked import Verdict
from sidecar.bodies import LIMIT_KEYS, Content, is_bounded, written
from sidecar.exchange import NotPassableError
from sidecar.routes import Body, Mapped, Scope

_CONFIDENCE = ("logprobs", "top_logprobs", "prompt_logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What is sent on; None: as it came."""

    path: str | None = None
    body: bytes | None = None


AS_IT_CAME = Sent()


def sent_on(verdict: Verdict, content: Content) -> Sent:
    """Return what an allowed request is sent on as.

    Raises:
        NotPassableError: A form would have to be written anew, which we do not do.
    """
    mapped = verdict.mapped
    if mapped is None:
        return AS_IT_CAME
    if mapped.row.body is Body.MULTIPART and mapped.served is not None and mapped.served.upstream:
        raise NotPassableError(Reason.OBLIGATION_UNSUPPORTED)
    return Sent(path=_path(mapped, pin=verdict.duties.pin), body=_body(verdict, mapped, content))


def message_on(verdict: Verdict, message: bytes) -> bytes:
    """Return one gRPC message, framed, as it is sent on."""
    mapped = verdict.mapped
    served = mapped.served if mapped is not None else None
    if mapped is None or served is None or not (served.rewrites or verdict.duties.pin):
        return messages.framed(message)
    pins = served.pinned or verdict.duties.pin
    version = served.version if pins else mapped.version
    name = served.upstream or mapped.name
    return messages.framed(messages.pinned(mapped.row, message, name=name, version=version))


def _path(mapped: Mapped, *, pin: str) -> str | None:
    served = mapped.served
    if mapped.row.scope is not Scope.SERVED or served is None or not (served.rewrites or pin):
        return None
    head, optional, tail = mapped.row.path.partition("[/versions/{v}]")
    version = served.version if (served.pinned or pin) else mapped.version
    path = head + (f"/versions/{version}" if optional and version else "") + tail
    return path.replace("{m}", served.upstream or mapped.name)


def _body(verdict: Verdict, mapped: Mapped, content: Content) -> bytes | None:
    if content.parsed is None:
        return None
    before: dict[str, Any] = dict(content.parsed)
    after = dict(before)
    if mapped.row.scope is Scope.BODY and mapped.served is not None and mapped.served.upstream:
        after["model"] = mapped.served.upstream
    if verdict.duties.max_tokens is not None and mapped.row.limit:
        _clamp(after, mapped.row.limit, verdict.duties.max_tokens)
    strip = verdict.duties.strip
    if strip is not None and (strip.logprobs or strip.probabilities):
        for key in _CONFIDENCE:  # what is not computed cannot leak
            after.pop(key, None)
    return written(after) if after != before else None


def _clamp(body: dict[str, Any], key: str, most: int) -> None:
    """Bound every key that bounds tokens, and set the route's own if none that its server reads stands there: *no* bound."""
    present = [name for name in LIMIT_KEYS if body.get(name) is not None]
    for name in present if is_bounded(key, body) else (*present, key):
        body[name] = min(body.get(name, most) or 0, most)
