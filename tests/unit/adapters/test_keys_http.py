"""Hostile and failing key servers, in this process and on the loopback; time is a value that the test moves."""

import asyncio
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from pdp.adapters.checked_http import is_public
from pdp.adapters.keys_http import KeyStore
from pdp.errors import Reason
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.keyset import KeySet
from pdp.identity.types import Refusal
from pdp.limits import KEY_FILE_LOOK_S, MAX_JWKS_BYTES
from tests.support import web
from tests.support.tokens import ISS, entry, signer, table
from tests.support.web import Answer

FIRST, SECOND = signer("ES256"), signer("ES256", "second")
LOCAL = ["127.0.0.1"]


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def now_ms(self) -> int:
        return int(self.s * 1000)

    def mono_s(self) -> float:
        return self.s


class Server(web.Server):
    """An issuer's web server."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = self.jwks(FIRST)

    def jwks(self, *signers: Any) -> Answer:
        return self.json({"keys": [item.public_jwk for item in signers]})

    @property
    def late(self) -> Answer:
        return self.held(self.jwks(FIRST))


def serving(context: ssl.SSLContext | None = None) -> AbstractAsyncContextManager[Server]:
    return web.serving(Server(), context)


def trust_of(url: str, **changes: Any) -> IssuerTable:
    keys = {"url": url, "allow_private": LOCAL} | changes.pop("keys", {})
    return table(entry(keys=keys, **changes))


@asynccontextmanager
async def store_of(
    trust: IssuerTable, clock: Clock, directory: Path = Path(), timeout_s: float = 5.0
) -> AsyncIterator[tuple[KeyStore, Issuer]]:
    store = KeyStore(issuers=trust, directory=directory, clock=clock, timeout_s=timeout_s)
    try:
        yield store, trust.issuers[ISS]
    finally:
        await store.close()


Story = Callable[[Server, KeyStore, Issuer, Clock], Awaitable[None]]


def play(
    story: Story, *, timeout_s: float = 5.0, answer: Callable[[Server], Answer] | None = None, **changes: Any
) -> None:
    async def run() -> None:
        async with serving() as server:
            if answer is not None:
                server.answer = answer(server)
            clock = Clock()
            trust = trust_of(f"http://127.0.0.1:{server.port}/jwks", **changes)
            async with store_of(trust, clock, timeout_s=timeout_s) as (store, issuer):
                await story(server, store, issuer, clock)

    asyncio.run(run())


def kids(outcome: KeySet | Refusal) -> list[str | None]:
    assert isinstance(outcome, KeySet), outcome
    return [key.kid for key in outcome.keys]


def kid_of(by: Any) -> str:
    kid: str = by.public_jwk["kid"]
    return kid


@pytest.mark.holds("F14")
def test_a_set_is_fetched_once_for_all_who_wait() -> None:
    async def story(server: Server, store: KeyStore, issuer: Issuer, _clock: Clock) -> None:
        waiting = [asyncio.create_task(store.key_set(issuer, kid=f"k{number}")) for number in range(100)]
        await server.asked.wait()
        waiting[0].cancel()  # one who goes away does not end the fetch of the others
        server.release.set()
        outcomes = await asyncio.gather(*waiting[1:])
        assert all(kids(outcome) == [kid_of(FIRST)] for outcome in outcomes)
        assert len(server.requests) == 1
        assert b"Authorization" not in server.requests[0]

    play(story, answer=lambda server: server.late)


@pytest.mark.holds("adv_amplification", "L1")
def test_ten_thousand_random_kids_cause_one_fetch_per_cool_down() -> None:
    async def story(server: Server, store: KeyStore, issuer: Issuer, clock: Clock) -> None:
        await store.key_set(issuer, kid=kid_of(FIRST))
        clock.s += 29.9
        for number in range(10_000):
            await store.key_set(issuer, kid=f"random-{number}")
        assert len(server.requests) == 1
        clock.s += 0.2
        for number in range(10_000):
            await store.key_set(issuer, kid=f"random-{number}")
        assert len(server.requests) == 2

    play(story)


@pytest.mark.holds("F14")
def test_a_rotated_key_works_within_a_cool_down_and_the_old_one_stops() -> None:
    async def story(server: Server, store: KeyStore, issuer: Issuer, clock: Clock) -> None:
        assert kids(await store.key_set(issuer, kid=kid_of(FIRST))) == [kid_of(FIRST)]
        server.answer = server.jwks(FIRST, SECOND)
        clock.s += 30
        assert kids(await store.key_set(issuer, kid=kid_of(SECOND))) == [kid_of(FIRST), kid_of(SECOND)]
        server.answer = server.jwks(SECOND)
        clock.s += 300
        assert kids(await store.key_set(issuer, kid=kid_of(FIRST))) == [kid_of(SECOND)]

    play(story)


def test_an_emptied_set_replaces_the_last_good_one() -> None:
    async def story(server: Server, store: KeyStore, issuer: Issuer, clock: Clock) -> None:
        await store.key_set(issuer, kid=None)
        server.answer = server.jwks()
        clock.s += 300
        assert kids(await store.key_set(issuer, kid=None)) == []

    play(story)


def test_a_fetch_in_the_background_makes_nobody_wait() -> None:
    async def story(server: Server, store: KeyStore, issuer: Issuer, clock: Clock) -> None:
        await store.key_set(issuer, kid=None)
        server.asked.clear()
        server.answer = server.late
        clock.s += 150
        assert kids(await store.key_set(issuer, kid=kid_of(FIRST))) == [kid_of(FIRST)]
        await server.asked.wait()
        assert kids(await store.key_set(issuer, kid=kid_of(FIRST))) == [kid_of(FIRST)]
        assert len(server.requests) == 2

    play(story)


def test_a_kid_just_found_unknown_does_not_wait_for_the_next_fetch() -> None:
    async def story(server: Server, store: KeyStore, issuer: Issuer, clock: Clock) -> None:
        await store.key_set(issuer, kid="nobody")
        server.asked.clear()
        server.answer = server.late
        clock.s += 29
        other = asyncio.create_task(store.key_set(issuer, kid="another"))
        clock.s += 0.5
        assert kids(await store.key_set(issuer, kid="nobody")) == [kid_of(FIRST)]
        assert kids(await other) == [kid_of(FIRST)]

    play(story)


FAILURES: dict[str, Callable[[Server], Answer]] = {
    "redirecting": lambda s: s.body(b"", "302 Found", f"Location: http://127.0.0.1:{s.port}/other\r\n"),
    "moved-for-good": lambda s: s.body(b"", "308 Permanent Redirect", "Location: /other\r\n"),
    "not-modified": lambda s: s.body(b"", "304 Not Modified"),
    "failing": lambda s: s.body(b'{"keys": []}', "500 Oops"),
    "created": lambda s: s.body(b'{"keys": []}', "201 Created"),
    "huge": lambda s: s.body(b" " * (MAX_JWKS_BYTES + 1)),
    "garbage": lambda s: s.body(b"<html>"),
    "ambiguous": lambda s: s.body(b'{"keys": [], "keys": []}'),
    "secret": lambda s: s.body(b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'),
    "compressed": lambda s: s.body(b'{"keys": []}', extra="Content-Encoding: gzip\r\n"),
    "gone": lambda s: s.gone,
    "slow": lambda s: s.hang,
}


@pytest.mark.holds("F15")
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_trouble_is_no_key_set_and_the_last_good_one_serves_until_its_bound(
    failure: Callable[[Server], Answer],
) -> None:
    async def story(server: Server, store: KeyStore, issuer: Issuer, clock: Clock) -> None:
        refusal = await store.key_set(issuer, kid=None)
        assert isinstance(refusal, Refusal)
        assert refusal.reason is Reason.KEYS_UNAVAILABLE
        assert not store.status()[0].ready
        assert len(server.requests) == 1
        server.answer = server.jwks(FIRST)
        assert isinstance(await store.key_set(issuer, kid=None), Refusal)  # not before the cool-down is over
        clock.s += 30
        assert kids(await store.key_set(issuer, kid=None)) == [kid_of(FIRST)]
        server.answer = failure(server)
        clock.s += 3600
        assert kids(await store.key_set(issuer, kid=None)) == [kid_of(FIRST)]
        clock.s += 1
        assert isinstance(await store.key_set(issuer, kid=None), Refusal)

    play(story, answer=failure, timeout_s=0.2)


@pytest.mark.holds("F15", "L4", "adv_endless_data")
def test_an_endless_answer_ends_at_the_cap() -> None:
    async def story(_server: Server, store: KeyStore, issuer: Issuer, _clock: Clock) -> None:
        assert isinstance(await store.key_set(issuer, kid=None), Refusal)
        assert "more than" in store.status()[0].error

    play(story, answer=lambda server: server.endless)


@pytest.mark.holds("F15")
def test_an_operator_is_told_of_keys_that_cannot_be_had_and_of_nothing_before_they_were_asked_for() -> None:
    async def story(server: Server, store: KeyStore, issuer: Issuer, clock: Clock) -> None:
        assert store.troubles() == []
        await store.key_set(issuer, kid=None)
        assert store.troubles() == []
        server.answer = server.body(b"{}", "500 Oops")
        clock.s += 300
        await store.key_set(issuer, kid=None)
        assert store.troubles() == [f"keys of `{ISS}`: status 500; the last good set serves"]
        clock.s += 3600
        await store.key_set(issuer, kid=None)
        assert store.troubles() == [f"keys of `{ISS}`: status 500; its tokens are refused"]
        server.answer = server.jwks(FIRST)
        clock.s += 30
        await store.key_set(issuer, kid=None)
        assert store.troubles() == []

    play(story)


@pytest.mark.holds("F15")
def test_one_issuers_trouble_is_not_anothers() -> None:
    async def run() -> None:
        async with serving() as good, serving() as bad:
            bad.answer = bad.gone
            other = "https://other.example"
            trust = table(
                entry(keys={"url": f"http://127.0.0.1:{good.port}/", "allow_private": LOCAL}),
                entry(
                    iss=other, namespace="other", keys={"url": f"http://127.0.0.1:{bad.port}/", "allow_private": LOCAL}
                ),
            )
            async with store_of(trust, Clock()) as (store, issuer):
                assert isinstance(await store.key_set(trust.issuers[other], kid=None), Refusal)
                assert kids(await store.key_set(issuer, kid=None)) == [kid_of(FIRST)]

    asyncio.run(run())


@pytest.mark.parametrize("allowed", [["10.0.0.0/8"], ["127.0.0.2"], ["login.internal"], ["::1"]])
def test_a_private_address_is_reached_only_when_it_is_named(allowed: list[str]) -> None:
    async def story(server: Server, store: KeyStore, issuer: Issuer, _clock: Clock) -> None:
        assert isinstance(await store.key_set(issuer, kid=None), Refusal)
        assert server.requests == []

    play(story, keys={"allow_private": allowed})


def test_a_name_that_resolves_to_the_loopback_is_refused_unless_named() -> None:
    async def run(allowed: list[str]) -> tuple[KeySet | Refusal, int]:
        async with serving() as server:
            trust = trust_of(f"http://localhost:{server.port}/jwks", keys={"allow_private": allowed})
            async with store_of(trust, Clock()) as (store, issuer):
                return await store.key_set(issuer, kid=None), len(server.requests)

    outcome, requests = asyncio.run(run(["10.0.0.0/8"]))
    assert isinstance(outcome, Refusal)
    assert requests == 0
    outcome, requests = asyncio.run(run(["localhost", "127.0.0.0/8"]))
    assert kids(outcome) == [kid_of(FIRST)]
    assert requests == 1


@pytest.mark.parametrize("right_name", [True, False])
def test_tls_verifies_the_name_though_we_connect_to_the_address(tmp_path: Path, right_name: bool) -> None:  # noqa: FBT001
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost" if right_name else "login.example").configure_cert(context)

    async def run() -> KeySet | Refusal:
        async with serving(context) as server:
            keys = {"allow_private": ["localhost"], "ca": "ca.pem"}
            trust = trust_of(f"https://localhost:{server.port}/jwks", keys=keys)
            async with store_of(trust, Clock(), tmp_path) as (store, issuer):
                return await store.key_set(issuer, kid=None)

    assert isinstance(asyncio.run(run()), KeySet) == right_name


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0",  # noqa: S104 - the point
     "224.0.0.1", "255.255.255.255",
     "::", "::1", "fe80::1",
     "fec0::1", "64:ff9b:1::7f00:1", "::127.0.0.1", "::ffff:0:7f00:1",
     "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1",
     "2001:0:4136:e378:8000:63bf:3fff:fdd2"],
)  # fmt: skip
def test_no_public_address(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_a_file_is_read_again_when_it_changes_and_its_loss_is_bounded(tmp_path: Path) -> None:
    async def run() -> None:
        path, clock = tmp_path / "jwks.json", Clock()
        path.write_bytes(FIRST.jwks())
        async with store_of(table(), clock, tmp_path) as (store, issuer):
            assert kids(await store.key_set(issuer, kid=None)) == [kid_of(FIRST)]
            clock.s += 100_000
            assert kids(await store.key_set(issuer, kid=None)) == [kid_of(FIRST)]
            assert store.status()[0].fetches == 1
            path.write_bytes(SECOND.jwks() + b"\n")
            clock.s += KEY_FILE_LOOK_S
            assert kids(await store.key_set(issuer, kid=None)) == [kid_of(SECOND)]
            clock.s += KEY_FILE_LOOK_S
            path.write_bytes(b"{")
            assert kids(await store.key_set(issuer, kid=None)) == [kid_of(SECOND)]
            path.unlink()
            clock.s += 3599
            assert kids(await store.key_set(issuer, kid=None)) == [kid_of(SECOND)]
            clock.s += 1
            assert isinstance(await store.key_set(issuer, kid=None), Refusal)
            path.write_bytes(FIRST.jwks())
            assert kids(await store.key_set(issuer, kid=None)) == [kid_of(FIRST)]

    asyncio.run(run())


def metadata(server: Server, **changes: Any) -> Answer:
    """An OpenID Provider: metadata at one address, the key set at another."""
    said = {"issuer": ISS, "jwks_uri": f"http://127.0.0.1:{server.port}/keys"} | changes
    return server.body(json.dumps({name: value for name, value in said.items() if value is not ...}).encode())


def provider(**changes: Any) -> Callable[[Server], Answer]:
    def answers(server: Server) -> Answer:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            known = server.requests[-1].startswith(b"GET /meta ")
            await (metadata(server, **changes) if known else server.jwks(FIRST))(reader, writer)

        return answer

    return answers


def discover(story: Story, answer: Callable[[Server], Answer], **keys: Any) -> None:
    async def run() -> None:
        async with serving() as server:
            server.answer = answer(server)
            source = {"discovery": f"http://127.0.0.1:{server.port}/meta", "allow_private": LOCAL} | keys
            trust, clock = table(entry(keys=source)), Clock()
            async with store_of(trust, clock) as (store, issuer):
                await story(server, store, issuer, clock)

    asyncio.run(run())


def test_jw2_keys_are_found_through_the_providers_metadata() -> None:
    async def story(server: Server, store: KeyStore, issuer: Issuer, _clock: Clock) -> None:
        assert kids(await store.key_set(issuer, kid=None)) == [kid_of(FIRST)]
        assert [line.split(b" ")[1] for line in server.requests] == [b"/meta", b"/keys"]

    discover(story, provider())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"issuer": ISS + "/"}, "another issuer"),
        ({"issuer": ISS.upper()}, "another issuer"),
        ({"issuer": [ISS]}, "another issuer"),
        ({"issuer": ...}, "another issuer"),
        ({"jwks_uri": ...}, "names no `jwks_uri`"),
        ({"jwks_uri": ["https://login.example/keys"]}, "names no `jwks_uri`"),
        ({"jwks_uri": "https://evil.example/keys"}, "`jwks_hosts`"),
        ({"jwks_uri": "https://127.0.0.1.evil.example/keys"}, "`jwks_hosts`"),
        ({"jwks_uri": "https://eve@127.0.0.1/keys"}, "no address"),
        ({"jwks_uri": "file:///etc/passwd"}, "no address"),
        ({"jwks_uri": "/keys"}, "no address"),
        ({"jwks_uri": "https://[::1/keys"}, "no address"),
    ],
)
def test_jw2_metadata_that_leads_elsewhere_is_a_failed_fetch(changes: dict[str, Any], told: str) -> None:
    async def story(server: Server, store: KeyStore, issuer: Issuer, _clock: Clock) -> None:
        found = await store.key_set(issuer, kid=None)
        assert isinstance(found, Refusal)
        assert (found.reason, told in found.detail) == (Reason.KEYS_UNAVAILABLE, True), found
        assert len(server.requests) == 1

    discover(story, provider(**changes))


def test_metadata_is_read_as_strictly_as_a_token() -> None:
    async def story(_server: Server, store: KeyStore, issuer: Issuer, _clock: Clock) -> None:
        found = await store.key_set(issuer, kid=None)
        assert isinstance(found, Refusal)
        assert "strict JSON" in found.detail

    discover(story, lambda server: server.body(b'{"issuer": "a", "issuer": "b"}'))


def test_a_credential_to_fetch_with_is_read_anew_for_each_fetch(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving() as server:
            (tmp_path / "token").write_text("one\n")
            trust = trust_of(f"http://127.0.0.1:{server.port}/keys", keys={"fetch_credential": "token"})
            clock = Clock()
            async with store_of(trust, clock, tmp_path) as (store, issuer):
                await store.key_set(issuer, kid=None)
                (tmp_path / "token").write_text("two\n")
                clock.s += issuer.refresh_s
                await store.key_set(issuer, kid=None)
            assert [b"uthorization: Bearer one" in server.requests[0], b"Bearer two" in server.requests[1]] == [
                True,
                True,
            ]

    asyncio.run(run())
