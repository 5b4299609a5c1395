"""TokenReview and introspection over real HTTPS, from a server that is right, slow, huge, redirecting, lying, or gone."""

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme

from pdp.adapters.clock import SystemClock
from pdp.adapters.live_http import LiveHttp
from pdp.errors import ConfigError, Reason
from pdp.identity.introspection import Introspection
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.kubernetes import Review
from pdp.identity.types import Refusal
from pdp.identity.verifier import LiveAnswer
from pdp.limits import LIVE_CHECK_CONNECTIONS, MAX_LIVE_ANSWER_BYTES
from pdp.service.authenticate import Authenticator
from pdp.service.live import LiveChecks
from pdp.signals.locks import LockSet
from tests.attacks.test_tokens import StaticKeys
from tests.support import workloads
from tests.support.tokens import ISS, NOW_MS, entry, good_token, keys_of, reason_of, signer, table
from tests.support.web import Answer, Server, serving

TOKEN = b"a.b.c"
AUTHORITY = trustme.CA()
Changes = dict[str, Any]
Story = Callable[[Server, LiveHttp, Issuer], Awaitable[None]]


def contexts(directory: Path, name: str = "localhost") -> ssl.SSLContext:
    AUTHORITY.cert_pem.write_to_path(directory / "ca.pem")
    (directory / "token").write_text("our-own\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


def source(by: str, port: int, **changes: Any) -> Changes:
    base = {
        "by": by,
        "url": f"https://localhost:{port}/ask",
        "credential": "token",
        "ca": "ca.pem",
        "allow_private": ["localhost"],
    }
    return base | changes


def cluster(port: int, **changes: Any) -> tuple[IssuerTable, str]:
    return workloads.workloads(live_check=source("token_review", port, **changes)), workloads.CLUSTER


def login(port: int, **changes: Any) -> tuple[IssuerTable, str]:
    return table(entry(live_check=source("introspection", port, **changes))), ISS


def play(
    directory: Path,
    story: Story,
    *,
    of: Callable[..., tuple[IssuerTable, str]] = cluster,
    answer: Callable[[Server], Answer] | None = None,
    name: str = "localhost",
    timeout_s: float = 5.0,
    **changes: Any,
) -> None:
    async def run() -> None:
        async with serving(Server(), contexts(directory, name)) as server:
            if answer is not None:
                server.answer = answer(server)
            trust, iss = of(server.port, **changes)
            await story(server, LiveHttp(issuers=trust, directory=directory, timeout_s=timeout_s), trust.issuers[iss])

    asyncio.run(run())


def review(**status: Any) -> Changes:
    user = {
        "username": "system:serviceaccount:ml:scorer",
        "uid": workloads.ACCOUNT_UID,
        "groups": ["system:serviceaccounts"],
        "extra": {"authentication.kubernetes.io/pod-uid": [workloads.POD_UID]},
    }
    said = {"authenticated": True, "user": user, "audiences": ["portcullis"]} | status
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {}, "status": said}


def test_a_cluster_is_asked_about_the_token_for_our_audience_with_our_own_credential(tmp_path: Path) -> None:
    async def story(server: Server, live: LiveHttp, issuer: Issuer) -> None:
        answer = await live.review(issuer, TOKEN)
        assert answer == Review(
            authenticated=True,
            audiences=["portcullis"],
            username="system:serviceaccount:ml:scorer",
            uid=workloads.ACCOUNT_UID,
            pod_uid=workloads.POD_UID,
        )
        (tmp_path / "token").write_text("rotated")
        await live.review(issuer, TOKEN)
        first, second = server.requests
        assert first.startswith(b"POST /ask HTTP/1.1\r\n")
        assert b"\r\nAuthorization: Bearer our-own\r\n" in first
        assert b"\r\nAuthorization: Bearer rotated\r\n" in second
        assert json.loads(server.bodies[0]) == {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": "a.b.c", "audiences": ["portcullis"]},
        }

    play(tmp_path, story, answer=lambda server: server.json(review(), "201 Created"))


@pytest.mark.parametrize(
    ("client_id", "sent"),
    [
        ("", "Bearer our-own"),
        ("portcullis", "Basic " + base64.b64encode(b"portcullis:our-own").decode()),
        ("a:b c", "Basic " + base64.b64encode(b"a%3Ab+c:our-own").decode()),
    ],
)
def test_an_issuer_is_asked_in_a_form_by_a_bearer_or_a_client(tmp_path: Path, client_id: str, sent: str) -> None:
    async def story(server: Server, live: LiveHttp, issuer: Issuer) -> None:
        answer = await live.review(issuer, TOKEN)
        assert answer == Introspection(members={"active": True, "sub": "x"})
        assert f"\r\nAuthorization: {sent}\r\n".encode() in server.requests[0]
        assert b"\r\nContent-Type: application/x-www-form-urlencoded\r\n" in server.requests[0]
        assert parse_qs(server.bodies[0].decode()) == {"token": ["a.b.c"], "token_type_hint": ["access_token"]}

    answer = {"active": True, "sub": "x"}
    play(tmp_path, story, of=login, answer=lambda server: server.json(answer), client_id=client_id)


TROUBLE: dict[str, Callable[[Server], Answer]] = {
    "redirecting": lambda s: s.body(b"", "307 Temporary Redirect", f"Location: https://localhost:{s.port}/other\r\n"),
    "unauthorised": lambda s: s.json({"active": True}, "401 Unauthorized"),
    "failing": lambda s: s.json({"active": True}, "500 Oops"),
    "no-content": lambda s: s.body(b"", "204 No Content"),
    "huge": lambda s: s.body(b" " * (MAX_LIVE_ANSWER_BYTES + 1)),
    "endless": lambda s: s.endless,
    "garbage": lambda s: s.body(b"<html>"),
    "a-list": lambda s: s.body(b"[true]"),
    "twice": lambda s: s.body(b'{"active": false, "active": true}'),
    "utf-16": lambda s: s.body('{"active": true}'.encode("utf-16")),
    "deep": lambda s: s.body(b'{"active": ' + b"[" * 20 + b"]" * 20 + b"}"),
    "compressed": lambda s: s.body(b'{"active": true}', extra="Content-Encoding: gzip\r\n"),
    "gone": lambda s: s.gone,
    "slow": lambda s: s.hang,
}


@pytest.mark.parametrize("kind", [cluster, login])
@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_trouble_is_no_answer(
    tmp_path: Path, kind: Callable[..., tuple[IssuerTable, str]], trouble: Callable[[Server], Answer]
) -> None:
    async def story(server: Server, live: LiveHttp, issuer: Issuer) -> None:
        found = await live.review(issuer, TOKEN)
        assert reason(found) is Reason.LIVE_CHECK_UNAVAILABLE
        assert len(server.requests) == 1

    play(tmp_path, story, of=kind, answer=trouble, timeout_s=0.3)


def reason(outcome: LiveAnswer | Refusal) -> Reason | None:
    return outcome.reason if isinstance(outcome, Refusal) else None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "TokenReview", "status": {"authenticated": True}},
        review() | {"kind": "SubjectAccessReview"},
        review() | {"apiVersion": "authentication.k8s.io/v1beta1"},
        review() | {"status": None},
        review() | {"status": [{"authenticated": True}]},
        review(user=["system:serviceaccount:ml:scorer"]),
        review(user={"extra": ["x"]}),
    ],
)
def test_what_is_no_token_review_is_no_answer(tmp_path: Path, body: Changes) -> None:
    async def story(_server: Server, live: LiveHttp, issuer: Issuer) -> None:
        assert reason(await live.review(issuer, TOKEN)) is Reason.LIVE_CHECK_UNAVAILABLE

    play(tmp_path, story, answer=lambda server: server.json(body))


@pytest.mark.parametrize("pods", [[], ["a", "b"], "a", None, {"a": 1}])
def test_an_account_without_exactly_one_pod_has_none(tmp_path: Path, pods: Any) -> None:
    user = review()["status"]["user"] | {"extra": {"authentication.kubernetes.io/pod-uid": pods}}

    async def story(_server: Server, live: LiveHttp, issuer: Issuer) -> None:
        answer = await live.review(issuer, TOKEN)
        assert isinstance(answer, Review)
        assert answer.pod_uid is None

    play(tmp_path, story, answer=lambda server: server.json(review(user=user)))


def test_a_server_with_another_certificate_hears_neither_token_nor_credential(tmp_path: Path) -> None:
    async def story(server: Server, live: LiveHttp, issuer: Issuer) -> None:
        assert reason(await live.review(issuer, TOKEN)) is Reason.LIVE_CHECK_UNAVAILABLE
        assert server.requests == []

    play(tmp_path, story, answer=lambda server: server.json(review()), name="api.evil.example")


def test_a_server_of_a_public_authority_is_not_the_pinned_one(tmp_path: Path) -> None:
    async def story(server: Server, live: LiveHttp, issuer: Issuer) -> None:
        assert reason(await live.review(issuer, TOKEN)) is Reason.LIVE_CHECK_UNAVAILABLE
        assert server.requests == []

    other = trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    play(tmp_path, story, answer=lambda server: server.json(review()), ca="other.pem")


@pytest.mark.parametrize("allowed", [[], ["10.0.0.0/8"], ["example"]])
def test_ssrf_a_private_address_is_asked_only_when_it_is_named(tmp_path: Path, allowed: list[str]) -> None:
    async def story(server: Server, live: LiveHttp, issuer: Issuer) -> None:
        assert reason(await live.review(issuer, TOKEN)) is Reason.LIVE_CHECK_UNAVAILABLE
        assert server.requests == []

    play(tmp_path, story, answer=lambda server: server.json(review()), allow_private=allowed)


@pytest.mark.parametrize("content", [None, b"", b"\n", b"a\nb: c", b"\xff", b"x" * 8193])
def test_without_a_credential_of_our_own_nobody_is_asked(tmp_path: Path, content: bytes | None) -> None:
    async def story(server: Server, live: LiveHttp, issuer: Issuer) -> None:
        (tmp_path / "token").unlink()
        if content is not None:
            (tmp_path / "token").write_bytes(content)
        assert reason(await live.review(issuer, TOKEN)) is Reason.LIVE_CHECK_UNAVAILABLE
        assert server.requests == []

    play(tmp_path, story, answer=lambda server: server.json(review()))


def test_a_missing_authority_stops_the_start(tmp_path: Path) -> None:
    trust, _ = cluster(1)
    with pytest.raises(ConfigError, match=r"ca\.pem: No such file"):
        LiveHttp(issuers=trust, directory=tmp_path)
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="no CA certificates"):
        LiveHttp(issuers=trust, directory=tmp_path)


def test_a_crowd_of_tokens_is_asked_about_over_few_connections_and_waits_no_longer_than_the_rest(
    tmp_path: Path,
) -> None:
    under_way: list[int] = []

    async def story(server: Server, live: LiveHttp, issuer: Issuer) -> None:
        ended = 0

        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            under_way.append(len(server.requests) - ended)
            await server.hang(reader, writer)

        async def ask() -> Any:
            nonlocal ended
            try:
                return await live.review(issuer, TOKEN)
            finally:
                ended += 1  # whose place another may take in the moment before its own time is over

        server.answer = count
        answers = await asyncio.gather(*(ask() for _ in range(3 * LIVE_CHECK_CONNECTIONS)))
        assert {reason(answer) for answer in answers} == {Reason.LIVE_CHECK_UNAVAILABLE}

    play(tmp_path, story, timeout_s=0.5)
    assert 0 < max(under_way) <= LIVE_CHECK_CONNECTIONS


LIES: dict[str, tuple[Changes, Reason]] = {
    "for-another-audience": ({"audiences": ["https://kubernetes.default.svc"]}, Reason.TOKEN_INACTIVE),
    "for-no-audience": ({"audiences": None}, Reason.TOKEN_INACTIVE),
    "refused": ({"authenticated": False, "error": "no"}, Reason.TOKEN_INACTIVE),
    "unsure": ({"authenticated": None}, Reason.TOKEN_INACTIVE),
    "another-account": ({"user": {"username": "system:serviceaccount:ml:admin"}}, Reason.SUBJECT_NOT_ALLOWED),
    "nobody": ({"user": {}}, Reason.SUBJECT_NOT_ALLOWED),
}


@pytest.mark.parametrize("lie", LIES)
def test_t56_a_cluster_that_confirms_something_else_lets_nobody_in(tmp_path: Path, lie: str) -> None:
    status, wanted = LIES[lie]

    async def story(server: Server, live: LiveHttp, issuer: Issuer) -> None:
        del issuer
        assert reason_of(await enter(server, live, workloads.account_token())) is wanted
        server.answer = server.json(review())
        assert reason_of(await enter(server, live, workloads.account_token())) is None

    play(tmp_path, story, answer=lambda server: server.json(review(**status)))


def test_an_issuer_that_confirms_a_token_lets_it_in_and_one_that_says_no_does_not(tmp_path: Path) -> None:
    async def story(server: Server, live: LiveHttp, issuer: Issuer) -> None:
        del issuer
        assert reason_of(await enter(server, live, good_token(), of=login)) is None
        server.answer = server.json({"active": False})
        assert reason_of(await enter(server, live, good_token(), of=login)) is Reason.TOKEN_INACTIVE

    said = {"active": True, "aud": "portcullis", "sub": "alice@example.com", "iss": ISS}
    play(tmp_path, story, of=login, answer=lambda server: server.json(said))


class Fixed(SystemClock):
    def now_ms(self) -> int:
        return NOW_MS


async def enter(
    server: Server, live: LiveHttp, compact: str, of: Callable[..., tuple[IssuerTable, str]] = cluster
) -> Any:
    trust, iss = of(server.port)
    keys = workloads.cluster_keys() if iss == workloads.CLUSTER else keys_of(signer())
    clock = Fixed()
    checks = LiveChecks(source=live, clock=clock)
    door = Authenticator(issuers=trust, keys=StaticKeys(keys), clock=clock, live=checks)
    try:
        return await door.authenticate(f"Bearer {compact}", None, locks=LockSet.EMPTY)
    finally:
        await checks.close()
