"""One connection, many requests: each is decided by itself, and nothing that a client says about the hop counts (N5, N6, N9).

Source: Traefik CVE-2026-71324, CVE-2024-45410, CVE-2026-35051, -39858, -54764; Oathkeeper GHSA-w9mr-28mw-j8hg, CVE-2026-33495;
oauth2-proxy CVE-2026-40575.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from pdp.errors import Reason
from tests.e2e.sidecar.conftest import PATIENCE_S

INFER = "/v2/models/fraud/infer"
GOOD = "authorization: Bearer good"
InLab = Callable[..., None]


def request(target: str, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "host: model", "content-length: 0", *lines, "", ""]).encode()


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@pytest.mark.holds("N9", "adv_connection_reuse")
def test_pipelined_requests_are_decided_one_by_one(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        pipelined = [
            request(INFER, GOOD),
            request(INFER),
            request("/v2/models/other/infer", GOOD),
            request(INFER, GOOD, "connection: close"),
        ]
        assert statuses(await lab.raw(b"".join(pipelined))) == [200, 401, 403, 200]
        assert len(lab.model.seen) == 2

    in_lab(body)


@pytest.mark.holds("N9", "adv_connection_reuse")
def test_an_allow_on_a_connection_is_none_for_the_next_request_on_it(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        reader, writer = await asyncio.open_connection(lab.address.host, lab.address.port)
        for reason, status in ((Reason.GRANTED, 200), (Reason.NO_GRANT, 403), (Reason.GRANTED, 200)):
            lab.decider.reason = reason
            writer.write(request(INFER, GOOD))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            assert statuses(head) == [status]
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        writer.close()

    in_lab(body)


@pytest.mark.holds("N9", "adv_connection_reuse")
@pytest.mark.parametrize(
    "raw",
    [
        request(INFER, GOOD, "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"),
        request(INFER, GOOD, "connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABk"),
        request("model:80", GOOD, method="CONNECT"),
        b"POST " + INFER.encode() + b" HTTP/1.1\r\nhost: model\r\n" + GOOD.encode()
        + b"\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST " + INFER.encode() + b" HTTP/1.1\r\nhost: model\r\n" + GOOD.encode()
        + b"\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ],
    ids=["websocket", "h2c", "connect", "two-lengths", "two-encodings"],
)  # fmt: skip
def test_no_connection_becomes_a_tunnel_or_carries_a_hidden_request(in_lab: InLab, raw: bytes) -> None:
    async def body(lab: Any) -> None:
        hidden = request(
            "/v2/models/fraud/infer", "connection: close"
        )  # without a credential: it must never be the model's
        answer = await lab.raw(raw + hidden)
        assert 101 not in statuses(answer)
        assert all("upgrade" not in exchange.headers for exchange in lab.model.seen)
        assert len(lab.model.seen) <= statuses(answer).count(200)
        assert all("x-pdp-decision-id" in exchange.headers for exchange in lab.model.seen)

    in_lab(body)


@pytest.mark.holds("N5", "adv_hop_by_hop")
@pytest.mark.parametrize(
    "named", ["authorization", "x-pdp-subject", "x-pdp-decision-id, x-pdp-world-seq", "host", "close, authorization"]
)
def test_a_header_named_as_of_this_hop_takes_nothing_of_ours_away(in_lab: InLab, named: str) -> None:
    async def body(lab: Any) -> None:
        answer = statuses(
            await lab.raw(request(INFER, GOOD, f"connection: {named}") + request(INFER, "connection: close"))
        )
        assert answer[0] in (200, 400, 401)
        for exchange in lab.model.seen:
            assert exchange.headers["x-pdp-subject"] == "user:bob@example.com"
            assert {"x-pdp-decision-id", "x-pdp-world-seq"} <= set(exchange.headers)
            assert "authorization" not in exchange.headers
        assert len(lab.model.seen) == answer.count(200)

    in_lab(body)


@pytest.mark.holds("N6", "adv_forwarded")
def test_what_a_client_says_of_where_it_came_from_counts_for_nothing(in_lab: InLab) -> None:
    lies = (
        "x-forwarded-for: 10.0.0.1",
        "X-Forwarded-Proto: https",
        "x-forwarded-host: admin",
        "x-forwarded-port: 443",
        "x-forwarded-prefix: /admin",
        "forwarded: for=10.0.0.1;proto=https",
        "x-real-ip: 10.0.0.1",
        "x-envoy-external-address: 10.0.0.1",
        "x-envoy-original-path: /healthz",
        "true-client-ip: 10.0.0.1",
    )

    async def body(lab: Any) -> None:
        assert statuses(await lab.post(INFER)) == [200]
        assert statuses(await lab.post(INFER, *lies)) == [200]
        plain, lied = lab.decider.questions
        assert plain == lied
        said = " ".join(
            f"{name}: {value}" for name, value in lab.model.seen[1].headers.items() if name != "true-client-ip"
        )
        assert "10.0.0.1" not in said
        assert "admin" not in said

    in_lab(body)
