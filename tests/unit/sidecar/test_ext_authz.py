import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from envoy.service.auth.v3 import external_auth_pb2 as auth

from pdp.errors import Reason
from sidecar.asked import Verdict
from sidecar.ext_authz import AuthorizationService, AuthzServer, ask_of, check_response, response_bytes
from sidecar.gate import Gate
from sidecar.routes import Served, oip
from tests.support.enforcement import Decider, identify

TABLE = oip.table(served={"fraud": Served(resource="endpoint/fraud", model="model/fraud@12")}, server="")
GOOD = (
    b"POST /v2/models/fraud/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nauthorization: Bearer good\r\n"
    b"x-pdp-route: oip.infer\r\nx-pdp-source: 127.0.0.1\r\n\r\n"
)


def exchange(tmp_path: Path, sent: bytes, decider: Decider | None = None) -> bytes:
    """Send bytes to the server, half-close, and return all it answers."""

    async def talk(decider: Decider) -> bytes:
        server = AuthzServer(Gate(table=TABLE, identify=identify, decider=decider), tmp_path / "a.sock")
        await server.start()
        try:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "a.sock"))
            writer.write(sent)
            answer = b""
            try:
                async with asyncio.timeout(5):
                    head = await reader.readuntil(b"\r\n\r\n")
                    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    answer = head + await reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            writer.close()
            return answer
        finally:
            await server.stop()

    return asyncio.run(talk(decider or Decider()))


def test_an_allow_names_its_decision(tmp_path: Path) -> None:
    answer = exchange(tmp_path, GOOD)
    assert answer == (
        b"HTTP/1.1 200 OK\r\nx-pdp-decision-id: d1\r\nx-pdp-subject: user:bob@example.com\r\n"
        b"x-pdp-world-seq: 7\r\ncontent-length: 0\r\n\r\n"
    )


@pytest.mark.holds("N11")
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (GOOD.replace(b"Bearer good", b"Bearer bad"), b"401"),
        (GOOD.replace(b"authorization: Bearer good\r\n", b""), b"401"),
        (GOOD.replace(b"\r\n\r\n", b"\r\nauthorization: Bearer good\r\n\r\n"), b"401"),
        (GOOD.replace(b"x-pdp-route: oip.infer\r\n", b""), b"403"),
        (GOOD.replace(b"\r\n\r\n", b"\r\nx-pdp-route: oip.infer\r\n\r\n"), b"403"),
        (GOOD.replace(b"\r\n\r\n", b"\r\npdp-ask-purpose: a\r\npdp-ask-purpose: b\r\n\r\n"), b"403"),
        (GOOD.replace(b"Bearer good", b"Bearer g\xffood"), b"403"),
        (GOOD.replace(b"fraud/infer", b"fraud%2Finfer"), b"403"),
        (GOOD.replace(b"POST", b"DELETE"), b"403"),
    ],
)
def test_a_question_that_is_not_right_is_denied(tmp_path: Path, sent: bytes, status: bytes) -> None:
    assert exchange(tmp_path, sent).split(b" ")[1] == status


@pytest.mark.holds("L9")
@pytest.mark.parametrize(
    "sent",
    [
        GOOD.replace(b"content-length: 0", b"content-length: 5") + b"hello",
        GOOD.replace(b"content-length: 0", b"transfer-encoding: chunked") + b"0\r\n\r\n",
        GOOD.replace(b"host: x", b"upgrade: websocket"),
        GOOD.replace(b"HTTP/1.1", b"HTTP/9.9"),
        b"\x16\x03\x01 TLS hello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        GOOD.replace(b"host: x", b"host: " + b"x" * 70_000),
        GOOD + GOOD,
    ],
)
def test_what_envoy_would_not_send_closes_the_connection_unanswered(tmp_path: Path, sent: bytes) -> None:
    decider = Decider()
    assert exchange(tmp_path, sent, decider) == b""


def test_a_head_request_is_answered_without_a_body(tmp_path: Path) -> None:
    answer = exchange(tmp_path, GOOD.replace(b"POST", b"HEAD"))
    assert answer.startswith(b"HTTP/1.1 403")
    assert answer.endswith(b"content-length: 0\r\n\r\n")


def test_the_socket_is_ours_alone(tmp_path: Path) -> None:
    async def look() -> int:
        server = AuthzServer(Gate(table=TABLE, identify=identify, decider=Decider()), tmp_path / "a.sock")
        await server.start()
        mode = (tmp_path / "a.sock").stat().st_mode
        await server.stop()
        assert not (tmp_path / "a.sock").exists()
        return mode & 0o777

    assert asyncio.run(look()) == 0o600


@pytest.mark.holds("P2")
def test_only_an_allow_is_written_as_200() -> None:
    for reason in Reason:
        assert not response_bytes(Verdict(allowed=False, reason=reason), method="GET").startswith(b"HTTP/1.1 2")


# -- gRPC --


def check(request: auth.CheckRequest, decider: Decider | None = None) -> auth.CheckResponse:
    service = AuthorizationService(Gate(table=TABLE, identify=identify, decider=decider or Decider()))
    answer: auth.CheckResponse = asyncio.run(service.Check(request, None))
    return auth.CheckResponse.FromString(answer.SerializeToString())  # EX-1: on serialized bytes


def question(**headers: str) -> auth.CheckRequest:
    request = auth.CheckRequest()
    request.attributes.request.http.method = "POST"
    request.attributes.request.http.path = "/v2/models/fraud/infer"
    for name, value in {"authorization": "Bearer good", **headers}.items():
        request.attributes.request.http.headers[name] = value
    return request


def test_grpc_allows_with_status_ok_and_removes_what_the_client_forged() -> None:
    answer = check(question(**{"x-pdp-anything": "1", "x-pdp-subject": "user:eve"}))
    assert answer.status.code == 0
    assert answer.WhichOneof("http_response") == "ok_response"
    assert {one.header.key for one in answer.ok_response.headers} == {
        "x-pdp-decision-id",
        "x-pdp-subject",
        "x-pdp-world-seq",
    }
    assert set(answer.ok_response.headers_to_remove) == {"x-pdp-anything", "authorization", "dpop"}


def test_grpc_denies_with_status_7_in_a_successful_rpc() -> None:
    answer = check(question(), Decider(reason=Reason.NO_GRANT))
    assert (answer.status.code, answer.denied_response.status.code) == (7, 403)


def test_an_empty_check_request_is_denied() -> None:
    assert check(auth.CheckRequest()).status.code == 7


@pytest.mark.holds("N4", "adv_duplicate_header")
def test_raw_headers_are_read_and_repeated_ones_are_two() -> None:
    request = question()
    request.attributes.request.http.headers.clear()
    for _ in range(2):
        request.attributes.request.http.header_map.headers.add(key="authorization", raw_value=b"Bearer good")
    assert check(request).denied_response.status.code == 401
    del request.attributes.request.http.header_map.headers[1:]
    assert check(request).status.code == 0


@pytest.mark.holds("N5", "adv_header_spelling")
@pytest.mark.holds("N9")
@pytest.mark.parametrize("protocol", ["websocket", "WebSocket", "h2c", "websocket, h2c", ""])
def test_a_foreign_envoy_that_opens_every_upgrade_opens_no_tunnel_decided_once(protocol: str) -> None:
    """Istio allows WebSockets everywhere: one that passed for the GET it begins as would never be cut."""
    decider = Decider()
    request = question(upgrade=protocol, connection="upgrade")
    assert check(request, decider).status.code == 7
    assert decider.questions == []
    del request.attributes.request.http.headers["upgrade"]
    assert check(request, decider).status.code == 0


def test_the_certificate_comes_from_the_connection_never_from_a_header() -> None:
    decider = Decider()
    check(question(**{"x-forwarded-client-cert": f'Hash={"0" * 64};Cert="forged"'}), decider)
    assert str(decider.questions[0].workload) == "workload:spiffe://demo.portcullis/without"
    request = question()
    request.attributes.source.certificate = "-----BEGIN%20CERTIFICATE-----%0A"
    check(request, decider)
    assert str(decider.questions[1].workload) == "workload:spiffe://demo.portcullis/with-certificate"


def test_grpc_never_says_ok_beside_a_denial() -> None:
    for reason in Reason:
        answer = check_response(Verdict(allowed=False, reason=reason))
        assert answer.status.code != 0
        assert answer.WhichOneof("http_response") == "denied_response"


@pytest.mark.holds("N11", "P2")
def test_a_defect_in_the_grpc_shell_is_a_deny() -> None:
    class Defect:
        decide: Callable[..., Awaitable[Any]]

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    answer = asyncio.run(AuthorizationService(Defect()).Check(question(), None))  # type: ignore[arg-type]
    assert answer.status.code == 7


@pytest.mark.parametrize("name", ["x-envoy-auth-partial-body", "X-Envoy-Auth-Partial-Body"])
def test_half_a_body_is_not_decided_on(name: str) -> None:
    """EX-14: a foreign Envoy that sends a part of the body and forwards all of it."""
    request = auth.CheckRequest()
    request.attributes.request.http.method = "POST"
    request.attributes.request.http.path = "/v2/models/fraud/infer"
    request.attributes.request.http.headers.update({"authorization": "Bearer good", name: "true"})
    assert ask_of(request)[0].target == ""
