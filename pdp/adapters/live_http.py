"""Asking issuers whether a token still counts: Kubernetes TokenReview and OAuth introspection (IDENTITY.md KU-6, IS-5).

What comes back is handed on as it came, to be held against the token by `pdp.identity`. Anything but one whole, strict answer
of the configured place is no answer, and no answer is a refusal.
Source: Kubernetes `authentication.k8s.io/v1`, RFC 7662.
"""

import asyncio
import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

from pdp.adapters.checked_http import Call, FetchError, ask, read_secret, tls_context
from pdp.errors import Reason
from pdp.identity.gate import read_object
from pdp.identity.introspection import Introspection
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.kubernetes import Review
from pdp.identity.sources import LiveSource
from pdp.identity.types import Refusal
from pdp.identity.verifier import LiveAnswer
from pdp.limits import LIVE_CHECK_CONNECTIONS, LIVE_CHECK_TIMEOUT_S, MAX_LIVE_ANSWER_BYTES

_API: Final = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"
_OK, _CREATED = 200, 201


class LiveHttp:
    """Implements `pdp.ports.LiveCheck` for every issuer whose entry has a `live_check`."""

    def __init__(self, *, issuers: IssuerTable, directory: Path, timeout_s: float = LIVE_CHECK_TIMEOUT_S) -> None:
        """Prepare; relative file names are below `directory`, that of `trust.yaml`.

        Raises:
            ConfigError: a CA file cannot be read.
        """
        self._directory = directory
        self._timeout_s = timeout_s
        sources = {
            issuer.iss: issuer.live_check for issuer in issuers.issuers.values() if issuer.live_check is not None
        }
        self._contexts = {iss: tls_context(source.ca, directory) for iss, source in sources.items()}
        self._slots = {iss: asyncio.Semaphore(LIVE_CHECK_CONNECTIONS) for iss in sources}

    async def review(self, issuer: Issuer, token: bytes) -> LiveAnswer | Refusal:
        """Return what the issuer says of `token`; see `pdp.ports.LiveCheck`."""
        source = issuer.live_check
        if source is None:
            return _unavailable("no place to ask is configured")
        try:
            async with asyncio.timeout(self._timeout_s), self._slots[issuer.iss]:
                answer = await self._ask(issuer, source, token)
        except TimeoutError:
            return _unavailable(f"no answer within {self._timeout_s} s")
        except FetchError as error:
            return _unavailable(str(error))
        if isinstance(answer, Refusal):
            return _unavailable("no strict JSON object")
        return read_review(answer) if source.by == "token_review" else Introspection(members=answer)

    async def _ask(self, issuer: Issuer, source: LiveSource, token: bytes) -> Mapping[str, Any] | Refusal:
        secret = read_secret(self._directory / source.credential)
        call = (
            _review_call(issuer, source, secret, token)
            if source.by == "token_review"
            else _query(source, secret, token)
        )
        raw = await ask(
            call,
            allow_private=source.allow_private,
            context=self._contexts[issuer.iss],
            timeout_s=self._timeout_s,
        )
        return read_object(raw, duplicate=Reason.TOKEN_MALFORMED)


def _review_call(issuer: Issuer, source: LiveSource, secret: str, token: bytes) -> Call:
    spec = {"token": token.decode("ascii"), "audiences": list(issuer.audiences)}
    return Call(
        address=source.url,
        max_bytes=MAX_LIVE_ANSWER_BYTES,
        authorization=f"Bearer {secret}",
        body=json.dumps(_API | {"spec": spec}).encode(),
        media_type="application/json",
        statuses=(_OK, _CREATED),
    )


def _query(source: LiveSource, secret: str, token: bytes) -> Call:
    return Call(
        address=source.url,
        max_bytes=MAX_LIVE_ANSWER_BYTES,
        authorization=_client(source.client_id, secret) if source.client_id else f"Bearer {secret}",
        body=urlencode({"token": token.decode("ascii"), "token_type_hint": "access_token"}).encode(),
        media_type="application/x-www-form-urlencoded",
    )


def _client(client_id: str, secret: str) -> str:
    """Return a client's credentials as HTTP Basic has them, each part encoded first (RFC 6749 section 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def read_review(answer: Mapping[str, Any]) -> Review | Refusal:
    """Return what a TokenReview says, its values as they came, or why it is none."""
    status = answer.get("status")
    if {name: answer.get(name) for name in _API} != _API or type(status) is not dict:
        return _unavailable("not a TokenReview with a status")
    user = status.get("user", {})
    extra = user.get("extra", {}) if type(user) is dict else None
    if type(extra) is not dict:
        return _unavailable("a TokenReview whose user is no user")
    pods = extra.get(_POD_UID, [])
    return Review(
        authenticated=status.get("authenticated"),
        audiences=status.get("audiences"),
        username=user.get("username"),
        uid=user.get("uid"),
        # One pod, or it is not said which.
        pod_uid=pods[0] if type(pods) is list and len(pods) == 1 else None,
    )


def _unavailable(detail: str) -> Refusal:
    return Refusal(reason=Reason.LIVE_CHECK_UNAVAILABLE, detail=detail)
