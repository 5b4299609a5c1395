"""A caller's trace goes through the gate: to the decision, to the model server, and to a collector if there is one."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from sidecar.envoy_names import Address

InLab = Callable[..., None]
ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"traceparent: 00-{ID}-00f067aa0ba902b7-01"


def test_a_trace_goes_on_to_the_decision_and_the_model_server(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        assert b" 200 " in await lab.post("/v2/models/fraud/infer", PARENT)
        assert lab.decider.traces == [ID]
        assert lab.model.seen[-1].headers["traceparent"].split("-")[1] == ID
        await lab.post("/v2/models/fraud/infer", "traceparent: 00-none", f"tracestate: {'x' * 200}")
        assert lab.decider.traces == [ID, ""]

    in_lab(body)


def collecting(told: asyncio.Queue[bytes]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Take in what Envoy exports: one HTTP request after the other, each in chunks."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                body = b""
                while size := int(await reader.readline(), 16):
                    body += (await reader.readexactly(size + 2))[:-2]
                await reader.readline()
                told.put_nowait(head.encode() + body)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    return serve


def test_spans_of_a_request_reach_the_collector_with_the_decision_in_them(in_lab: InLab) -> None:
    door = socket.create_server(("127.0.0.1", 0))

    async def body(lab: Any) -> None:
        told: asyncio.Queue[bytes] = asyncio.Queue()
        async with await asyncio.start_server(collecting(told), sock=door):
            assert b" 200 " in await lab.post("/v2/models/fraud/infer", PARENT)
            assert lab.model.seen[-1].headers["traceparent"].split("-")[1] == ID
            exported = b""
            while b"pdp.decision_id" not in exported:
                exported += await told.get()
            assert b"post /v1/traces " in exported
            assert bytes.fromhex(ID) in exported
            assert b"Bearer good" not in exported

    in_lab(body, traces=Address(host="127.0.0.1", port=door.getsockname()[1]))
