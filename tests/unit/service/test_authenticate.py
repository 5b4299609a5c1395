"""The verified-token cache and its single flight: TC-1 to TC-5."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from jwt.algorithms import ECAlgorithm

from pdp.adapters.replay_memory import MemoryReplay
from pdp.errors import Reason
from pdp.identity.issuers import Issuer
from pdp.identity.keyset import KeySet
from pdp.identity.proof import BoundRequest
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.service.authenticate import Authenticator
from pdp.service.nonces import Nonces
from pdp.signals.locks import Lock, LockSet, LockTarget
from tests.support.certificates import leaf
from tests.support.tokens import (
    ALGS,
    HTU,
    NOW_S,
    b64,
    bound_token,
    entry,
    good_token,
    keys_of,
    proof,
    reason_of,
    signer,
    table,
)
from tests.unit.identity.test_certificates import peer_of

FREE = LockSet.EMPTY


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def now_ms(self) -> int:
        return int((NOW_S + self.s) * 1000)

    def mono_s(self) -> float:
        return self.s


class Keys:
    """A key store whose answers the test holds back and changes."""

    def __init__(self) -> None:
        self.set: KeySet | Refusal = keys_of(*(signer(alg) for alg in ALGS))
        self.open = asyncio.Event()
        self.open.set()
        self.asked = 0

    async def key_set(self, issuer: Issuer, *, kid: str | None) -> KeySet | Refusal:
        del issuer, kid
        self.asked += 1
        await self.open.wait()
        return self.set


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.clock, self.keys = Clock(), Keys()
        self.checks = 0
        self.door = Authenticator(
            issuers=table(entry(**changes), domains=("prod.example",)),
            keys=self.keys,
            clock=self.clock,
            entries=3,
            replay=MemoryReplay(clock=self.clock),
            nonces=Nonces(clock=self.clock, secret=b"of this test"),
        )
        original = ECAlgorithm.verify

        def counted(*args: Any, **options: Any) -> Any:
            self.checks += 1
            return original(*args, **options)

        monkeypatch.setattr(ECAlgorithm, "verify", counted)

    async def enter(self, compact: str, peer: Any = None) -> VerifiedIdentity | Refusal:
        return await self.door.authenticate(f"Bearer {compact}", peer, locks=FREE)


Story = Callable[[Bench], Awaitable[None]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(story: Story, **changes: Any) -> None:
        async def inside() -> None:
            await story(Bench(monkeypatch, **changes))

        asyncio.run(inside())

    return run


def name_of(outcome: VerifiedIdentity | Refusal) -> str:
    assert isinstance(outcome, VerifiedIdentity), outcome
    return outcome.party.principal.id


def test_a_good_token_is_checked_once_a_minute(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        compact = good_token(exp=NOW_S + 3000)
        for second in (0, 30, 59.9):
            bench.clock.s = second
            name_of(await bench.enter(compact))
        assert bench.checks == 1
        bench.clock.s = 60
        name_of(await bench.enter(compact))
        assert bench.checks == 2

    play(story)


@pytest.mark.holds("K7", "adv_stale_claims")
def test_a_remembered_token_ends_at_its_end(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        compact = good_token(exp=NOW_S + 10)
        name_of(await bench.enter(compact))
        bench.clock.s = 39.999
        name_of(await bench.enter(compact))
        bench.clock.s = 40
        assert reason_of(await bench.enter(compact)) is Reason.TOKEN_EXPIRED

    play(story)


@pytest.mark.holds("K7", "adv_identity_cache")
def test_one_byte_of_the_payload_under_a_remembered_signature_is_a_miss(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        mine, other = good_token(), good_token(sub="admin")
        name_of(await bench.enter(mine))
        forged = f"{other.rpartition('.')[0]}.{mine.rpartition('.')[2]}"
        assert reason_of(await bench.enter(forged)) is Reason.SIGNATURE_INVALID
        assert name_of(await bench.enter(mine)) == "alice@example.com"

    play(story)


@pytest.mark.holds("K5", "K7")
def test_a_withdrawn_key_ends_remembered_tokens(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        compact, good = good_token(), bench.keys.set
        for keys, reason in (
            (keys_of(signer("RS256")), Reason.KEY_UNKNOWN),
            (keys_of(), Reason.ISSUER_KEYS_EMPTY),
            (Refusal(reason=Reason.KEYS_UNAVAILABLE), Reason.KEYS_UNAVAILABLE),
        ):
            bench.keys.set = good
            name_of(await bench.enter(compact))
            bench.keys.set = keys
            assert reason_of(await bench.enter(compact)) is reason

    play(story)


@pytest.mark.holds("K2", "K7")
def test_a_key_replaced_under_the_same_kid_ends_remembered_tokens(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        compact = good_token()
        name_of(await bench.enter(compact))
        good = keys_of(signer()).keys[0]
        thief = keys_of(signer("ES256", "thief")).keys[0]
        bench.keys.set = KeySet(
            issuer=bench.keys.set.issuer,  # type: ignore[union-attr]
            keys=(type(good)(kid=good.kid, alg=good.alg, thumbprint=thief.thumbprint, public=thief.public),),
            dropped={},
        )
        assert reason_of(await bench.enter(compact)) is Reason.KEY_UNKNOWN
        assert reason_of(await bench.enter(compact)) is Reason.SIGNATURE_INVALID

    play(story)


@pytest.mark.holds("K7", "adv_identity_cache")
def test_a_remembered_token_is_bound_to_each_connection_anew(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        holder, thief = peer_of(leaf()), peer_of(leaf())
        compact = good_token(cnf={"x5t#S256": b64(bytes.fromhex(holder.fingerprint))})
        assert str((await bench.enter(compact, holder)).workload).startswith("workload:spiffe://")  # type: ignore[union-attr]
        assert reason_of(await bench.enter(compact, thief)) is Reason.BINDING_MISMATCH
        assert reason_of(await bench.enter(compact)) is Reason.BINDING_MISMATCH
        assert (
            reason_of(await bench.door.authenticate(f"DPoP {compact}", holder, locks=FREE)) is Reason.DPOP_PROOF_INVALID
        )
        assert bench.door.counters["hits"] == 3

    play(story, cnf_kinds=["x5t#S256"])


def test_the_workload_is_that_of_this_connection_never_of_the_one_remembered(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        compact = good_token()
        for name in ("a", "b"):
            identity = await bench.enter(compact, peer_of(leaf(uris=[f"spiffe://prod.example/{name}"])))
            assert isinstance(identity, VerifiedIdentity)
            assert str(identity.workload) == f"workload:spiffe://prod.example/{name}"
        without = await bench.enter(compact)
        assert isinstance(without, VerifiedIdentity)
        assert without.workload is None
        assert bench.checks == 1

    play(story)


def test_a_lock_on_the_workload_of_this_connection_ends_a_remembered_token_too(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        compact, peer = good_token(), peer_of(leaf())
        name_of(await bench.enter(compact, peer))
        target = LockTarget.parse("workload:spiffe://prod.example/ns/ml/**")
        locks = FREE.added(Lock(id="l", target=target, reason="r", source="user:ada", start_ms=1))
        for authorization in (f"Bearer {compact}", None):
            outcome = await bench.door.authenticate(authorization, peer, locks=locks)
            assert reason_of(outcome) is Reason.LOCKED
        assert reason_of(await bench.door.authenticate(f"Bearer {compact}", None, locks=locks)) is None

    play(story)


def test_the_oldest_of_too_many_remembered_tokens_is_forgotten(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        tokens = [good_token(jti=f"j{number}") for number in range(4)]
        for compact in tokens:
            name_of(await bench.enter(compact))
        assert bench.checks == 4
        name_of(await bench.enter(tokens[3]))
        assert bench.checks == 4
        name_of(await bench.enter(tokens[0]))
        assert bench.checks == 5

    play(story)


@pytest.mark.holds("K6", "adv_identity_cache")
def test_two_users_at_the_same_moment_are_never_each_other(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        bench.keys.open.clear()
        users = [f"user{number}@example.com" for number in range(8)]
        held = [(user, good_token(sub=user, jti=user)) for user in users] * 5
        waiting = [asyncio.create_task(bench.enter(compact)) for _, compact in held]
        await asyncio.sleep(0)  # every caller now waits for the keys, or for another's flight
        assert bench.keys.asked == len(users)
        bench.keys.open.set()
        outcomes = await asyncio.gather(*waiting)
        assert [name_of(outcome) for outcome in outcomes] == [user for user, _ in held]
        assert bench.checks == len(users)

    play(story)


@pytest.mark.holds("K4")
def test_a_caller_that_goes_away_takes_nobody_along_and_stores_nothing(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        bench.keys.open.clear()
        compact = good_token()
        leader = asyncio.create_task(bench.enter(compact))
        await asyncio.sleep(0)
        followers = [asyncio.create_task(bench.enter(compact)) for _ in range(3)]
        await asyncio.sleep(0)
        followers[0].cancel()
        leader.cancel()
        await asyncio.gather(leader, followers[0], return_exceptions=True)
        bench.keys.open.set()
        assert [name_of(await follower) for follower in followers[1:]] == ["alice@example.com"] * 2
        assert bench.checks == 1

    play(story)


@pytest.mark.holds("K6")
def test_the_flight_of_one_connection_is_not_the_answer_of_another(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        bench.keys.open.clear()
        holder = peer_of(leaf())
        compact = good_token(cnf={"x5t#S256": b64(bytes.fromhex(holder.fingerprint))})
        thief = asyncio.create_task(bench.enter(compact))
        await asyncio.sleep(0)
        owner = asyncio.create_task(bench.enter(compact, holder))
        bench.keys.open.set()
        assert reason_of(await thief) is Reason.BINDING_MISMATCH
        assert name_of(await owner) == "alice@example.com"

    play(story, cnf_kinds=["x5t#S256"])


@pytest.mark.holds("K4", "L6")
def test_refusals_are_not_remembered_and_good_tokens_only_so_many(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        for number in range(50):
            await bench.enter(f"{good_token()[:-2]}{number:02}")
        assert len(bench.door._cache) == 0
        for number in range(10):
            name_of(await bench.enter(good_token(jti=str(number))))
        assert len(bench.door._cache) == 3
        assert bench.door._flights == {}

    play(story)


def test_the_cache_holds_no_token(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        compact = good_token()
        await bench.enter(compact)
        seen: set[int] = set()
        todo: list[Any] = [bench.door._cache]
        while todo:
            item = todo.pop()
            if id(item) in seen or isinstance(item, type):
                continue
            seen.add(id(item))
            assert item not in (compact, compact.encode()) if isinstance(item, str | bytes) else True
            todo.extend(gc.get_referents(item) if not hasattr(item, "__globals__") else [])

    play(story)


def bound(text: str | None) -> BoundRequest:
    return BoundRequest(method="POST", uri=HTU, proof=text)


def with_proof(bench: Bench, compact: str, text: str | None, locks: LockSet = FREE) -> Any:
    return bench.door.authenticate(f"DPoP {compact}", None, locks=locks, request=bound(text))


def test_t58_a_proof_is_used_once_and_each_use_of_a_remembered_token_needs_a_fresh_one(
    play: Callable[..., None],
) -> None:
    async def story(bench: Bench) -> None:
        compact = bound_token()
        for number in range(3):
            text = proof(compact, jti=f"once{number}")
            name_of(await with_proof(bench, compact, text))
            assert reason_of(await with_proof(bench, compact, text)) is Reason.TOKEN_REPLAYED
        assert reason_of(await with_proof(bench, compact, None)) is Reason.DPOP_PROOF_INVALID
        assert reason_of(await bench.enter(compact)) is Reason.BINDING_REQUIRED
        text = proof(compact)
        both = await asyncio.gather(*(with_proof(bench, compact, text) for _ in range(8)))
        assert sorted(str(reason_of(one)) for one in both) == ["None"] + ["token_replayed"] * 7

    play(story, cnf_kinds=["jkt"])


def test_a_proof_is_forgotten_only_when_its_age_refuses_it(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        compact = bound_token(exp=NOW_S + 3000)
        text = proof(compact, iat=NOW_S + 60)
        name_of(await with_proof(bench, compact, text))
        for second, reason in (
            (119, Reason.TOKEN_REPLAYED),
            (120, Reason.TOKEN_REPLAYED),
            (121, Reason.DPOP_PROOF_INVALID),
        ):
            bench.clock.s = second
            assert reason_of(await with_proof(bench, compact, text)) is reason

    play(story, cnf_kinds=["jkt"])


def test_a_refused_token_uses_up_no_proof(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        compact = bound_token()
        target = LockTarget.parse("user:alice@example.com")
        locks = FREE.added(Lock(id="l", target=target, reason="r", source="user:ada", start_ms=1))
        text = proof(compact)
        assert reason_of(await with_proof(bench, compact, text, locks)) is Reason.LOCKED
        name_of(await with_proof(bench, compact, text))

    play(story, cnf_kinds=["jkt"])


def test_without_a_memory_of_proofs_none_is_taken(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        bench.door._replay = None
        compact = bound_token()
        assert reason_of(await with_proof(bench, compact, proof(compact))) is Reason.REPLAY_STORE_UNAVAILABLE

    play(story, cnf_kinds=["jkt"])


def test_a_used_proof_is_noted_for_as_long_as_it_could_be_taken_and_the_leeway(play: Callable[..., None]) -> None:
    class Noting:
        scope = "this test"
        ttl_s = 0.0

        async def use(self, key: bytes, *, ttl_s: float) -> None:
            assert key
            self.ttl_s = ttl_s

        async def close(self) -> None: ...

    async def story(bench: Bench) -> None:
        memory = bench.door._replay = Noting()
        for age_s, ttl_s in ((0, 91), (60, 31), (-60, 151)):
            compact = bound_token()
            name_of(await with_proof(bench, compact, proof(compact, iat=NOW_S - age_s)))
            assert memory.ttl_s == ttl_s

    play(story, cnf_kinds=["jkt"])


def test_a_token_is_remembered_no_longer_than_it_is_good(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        name_of(await bench.enter(good_token(exp=NOW_S + 10)))
        assert [held.until_s for held in bench.door._cache.values()] == [40.0]  # with the leeway

    play(story)


def test_where_no_request_can_be_had_no_proof_holds_and_no_nonce_is_given(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        outcome = await bench.door.authenticate(f"DPoP {bound_token()}", None, locks=FREE)
        assert reason_of(outcome) is Reason.DPOP_PROOF_INVALID
        assert bench.door.nonce()
        bench.door._nonces = None
        assert bench.door.nonce() == ""

    play(story, cnf_kinds=["jkt"])


def test_t50_a_proof_needs_our_nonce_where_the_issuer_says_so(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        compact = bound_token()
        assert reason_of(await with_proof(bench, compact, proof(compact))) is Reason.DPOP_NONCE_REQUIRED
        assert reason_of(await with_proof(bench, compact, proof(compact, nonce="old"))) is Reason.DPOP_NONCE_REQUIRED
        name_of(await with_proof(bench, compact, proof(compact, nonce=bench.door.nonce())))
        bench.door._nonces = None
        for nonce in ("", "\0"):
            assert (
                reason_of(await with_proof(bench, compact, proof(compact, nonce=nonce))) is Reason.DPOP_NONCE_REQUIRED
            )

    play(story, cnf_kinds=["jkt"], dpop_nonce=True)


def test_outcomes_are_counted_by_reason(play: Callable[..., None]) -> None:
    async def story(bench: Bench) -> None:
        await bench.enter(good_token())
        await bench.enter("x")
        await bench.door.authenticate(None, None, locks=FREE)
        wanted = {"accepted": 1, "token_malformed": 1, "credential_missing": 1}
        assert dict(bench.door.counters) == wanted

    play(story)
