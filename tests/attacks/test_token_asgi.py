"""Every row of IDENTITY.md section 3 at the ASGI middleware, which stands in the model server's own process."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from pdp.signals.locks import LockSet
from sidecar.asgi import PolicyMiddleware
from sidecar.asgi_door import Door
from sidecar.core import Identifier
from sidecar.gate import Gate
from sidecar.rechecks import Rechecker
from tests.attacks.test_token_doors import (
    CASES,
    ORIGIN,
    TABLE,
    UNARY,
    Case,
    Reply,
    Switch,
    as_the_agent_reads,
    asked_again,
    denied_status,
    fields_of,
    judged,
)
from tests.support.enforcement import Clock, Decider


class Model:
    """An application that says that it was reached."""

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"reached"})


def middleware(switch: Switch) -> PolicyMiddleware:
    decider = Decider()
    world = SimpleNamespace(world=SimpleNamespace(locks=LockSet.EMPTY))
    identify = Identifier(switch, world, certificate_suffices=False)  # type: ignore[arg-type]
    gate = Gate(table=TABLE, identify=identify, decider=decider, reveal=True, origin=ORIGIN)
    rechecker = Rechecker(decider=decider, time=Clock(), jitter=lambda: 0.0)
    return PolicyMiddleware(Model(), door=Door(gate=gate, rechecker=rechecker, notes=decider, time=Clock()))


async def call(app: PolicyMiddleware, fields: list[tuple[str, str]]) -> tuple[int, dict[str, str], bytes]:
    """Send one request as a server does; return status, headers and body."""
    asked, sent = iter([{"type": "http.request", "body": b"{}", "more_body": False}]), []

    async def receive() -> Any:
        for message in asked:
            return message
        await asyncio.Event().wait()
        return None

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode("utf-8", "surrogatepass")) for name, value in fields]
    scope = {
        "type": "http", "method": "POST", "path": UNARY, "raw_path": UNARY.encode(), "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 1), "http_version": "1.1", "scheme": "http",
    }  # fmt: skip
    await app(scope, receive, send)
    given = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], given, b"".join(message.get("body", b"") for message in sent[1:])


def test_every_row_is_refused_by_the_asgi_middleware() -> None:
    async def story() -> None:
        switch = Switch()
        app = middleware(switch)

        async def door(case: Case, text: str | None) -> Reply:
            fields = [("content-type", "application/json"), *fields_of(case, text)]
            status, headers, body = await call(app, fields)
            if body == b"reached":
                return Reply(reason=None, status="OK")
            return Reply(reason=json.loads(body)["reason"], status=status, headers=asked_again(headers))

        cases = [as_the_agent_reads(case) for case in CASES if case.certificate is None]
        assert len(cases) > len(CASES) * 0.9
        assert await judged(door, switch, UNARY, cases, denied_status) == []

    asyncio.run(story())


def test_a_certificate_in_a_header_is_nobodys_where_no_envoy_stands_in_front() -> None:
    """T-49: whoever set the header, it was no TLS layer of ours; a token bound to it does not get in."""

    async def story() -> None:
        switch = Switch()
        app = middleware(switch)
        (bound,) = [case for case in CASES if case.name == "good-mtls"]
        switch.set(bound)
        status, _, body = await call(app, [("content-type", "application/json"), *fields_of(bound, None)])
        assert (status, json.loads(body)["reason"]) == (401, "binding_mismatch")

    asyncio.run(story())
