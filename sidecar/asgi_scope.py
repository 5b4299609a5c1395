"""An ASGI connection as the gate must see it, and as the application may: read once, strictly.

Works on `raw_path`, the bytes the client sent; a server that decodes on its own account (a missing `raw_path`, or a `path`
that says something else) is refused, because the application would act on another path than the one decided.

Source: ENFORCEMENT.md 1 (ASGI: no workload by header), 3.5; EX-3, EX-6, EX-7, EX-12.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from sidecar.asked import Ask
from sidecar.envoy import CERTIFICATE_HEADER, METHOD_AND_PATH_OVERRIDES, SAGEMAKER_PREFIX
from sidecar.headers import Headers
from sidecar.limits import LIMITS
from sidecar.replies import Denial
from sidecar.target import BadTarget, canonical

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Fields = list[tuple[bytes, bytes]]

_LOG = logging.getLogger(__name__)
_UNDECIDED = (
    "x-envoy-auth-failure-mode-allowed"  # the mark of a request that an Envoy let through without an answer (EX-3)
)
_NOT_THE_CALLERS = (b"x-pdp-", b"x-envoy-", SAGEMAKER_PREFIX.encode())
_NOT_FOR_THE_APPLICATION = frozenset(name.encode() for name in METHOD_AND_PATH_OVERRIDES)
_CREDENTIALS = frozenset({b"authorization", b"dpop"})


def asked(scope: Scope, method: str) -> tuple[dict[str, str], Ask]:
    """Return the headers of a connection, and its question; one with a fault gets a target that no table maps."""
    headers = Headers()
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if "_" in name or name == _UNDECIDED:
            headers.fault = True
        elif (
            name != CERTIFICATE_HEADER
        ):  # whoever set it, it was not a TLS layer of ours: the workload comes by a token
            headers.add(name, value)
    client = scope.get("client") or ("",)
    return headers.values, headers.ask(method=method, target=_target(scope), route=None, source_ip=str(client[0]))


def _target(scope: Scope) -> str:
    """Return the request target as the client sent it; empty where the application would see another one."""
    raw = scope.get("raw_path")
    if not isinstance(raw, bytes) or b"?" in raw:
        return ""
    path = raw.decode("latin-1")
    read = canonical(path)
    if isinstance(read, BadTarget) or read.path != scope.get("path"):
        return ""
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path


def handed_on(
    scope: Scope, *, given: Iterable[tuple[str, str]], forward_credentials: bool, path: str | None = None
) -> Scope:
    """Return the scope that the application gets: without a client's copies of what only we may say, and without overrides."""
    fields: Fields = [
        (name, value)
        for name, value in ((name.lower(), value) for name, value in scope["headers"])
        if not name.startswith(_NOT_THE_CALLERS)
        and name not in _NOT_FOR_THE_APPLICATION
        and name != CERTIFICATE_HEADER.encode()
        and (forward_credentials or name not in _CREDENTIALS)
    ]
    fields += [(name.encode("ascii"), value.encode("ascii")) for name, value in given]
    # Without extensions: a file sent by its path, or a pushed response, would pass no check of ours.
    changed: dict[str, Any] = {**scope, "headers": fields, "extensions": {}}
    if path is not None:
        changed |= {"path": path, "raw_path": path.encode("ascii")}
    return changed


def with_length(scope: Scope, size: int) -> Scope:
    """Return the scope with the length of a body that was written anew."""
    fields = [
        (name, value) for name, value in scope["headers"] if name not in {b"content-length", b"transfer-encoding"}
    ]
    return {**scope, "headers": [*fields, (b"content-length", str(size).encode())]}


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel the application's task and wait for it, but not for ever: what it still sends goes nowhere."""
    task.cancel()
    await asyncio.wait({task}, timeout=LIMITS.stop_s)
    if task.done() and not task.cancelled() and task.exception() is not None:
        _LOG.debug("the application ended with %r", task.exception())


async def refuse(send: Send, denial: Denial) -> None:
    """Answer with a refusal."""
    fields = [(name.encode("ascii"), value.encode("ascii")) for name, value in denial.headers]
    fields.append((b"content-length", str(len(denial.body)).encode()))
    await send({"type": "http.response.start", "status": denial.status, "headers": fields})
    await send({"type": "http.response.body", "body": denial.body, "more_body": False})
