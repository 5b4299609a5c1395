"""Breaking the glass: two distinct root keys, short, loud, and reviewed by somebody else."""

from collections.abc import Coroutine
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from pdp.change.glass import Statement, count_signers
from pdp.errors import BadRequestError, ConfigError, PortcullisError, Reason
from pdp.model import canonical
from pdp.service.break_glass import break_glass, review
from pdp.service.drafts import from_pack
from pdp.trust.keys import Role, RootFile, SigningKey, sign_root
from pdp.world import from_state, to_state
from tests.support.changes import ADA, EVE, MIA, OLGA, PEOPLE, Place, at_place, files, refusal
from tests.support.logs import START_MS

HALF_HOUR_MS = 1_800_000
KEYS = (SigningKey.generate(), SigningKey.generate(), SigningKey.generate())
STRANGER = SigningKey.generate()


@cache
def root() -> RootFile:
    online = {role: SigningKey.generate() for role in (Role.PUBLISH, Role.TIMESTAMP)}
    roles = {Role.ROOT: [key.public for key in KEYS], **{role: [key.public] for role, key in online.items()}}
    return sign_root(tenant="main", version=1, time_ms=START_MS, roles=roles, signing=KEYS)


def statement(**changes: object) -> Statement:
    plain = Statement(
        tenant="main",
        who=MIA,
        role="role:sole-admin",
        environment="prod",
        start_ms=START_MS,
        end_ms=START_MS + HALF_HOUR_MS,
        reason="admins locked out",
        head="",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


async def opened(place: Place, keys: tuple[SigningKey, ...] = KEYS[:2], **changes: object) -> int:
    return await break_glass(place.publisher, place.replica.world, statement(**changes), root=root(), keys=keys)


def test_two_root_keys_let_somebody_in_for_a_short_time() -> None:
    async def test(place: Place) -> None:
        seq = await opened(place)
        row = f"g, {MIA}, role:sole-admin, prod, _, "
        assert any(text.startswith(row) for text in place.rows())
        told = place.replica.world.glass[0].told(place.clock.now_ms())
        assert told.startswith(f"break-glass at entry {seq}: {MIA} holds role:sole-admin in prod (admins locked out)")
        place.clock.advance(1_801)
        assert "held" in place.replica.world.glass[0].told(place.clock.now_ms())

    at_place(test)


@pytest.mark.parametrize(
    "keys", [(), KEYS[:1], (KEYS[0], KEYS[0]), (KEYS[0], STRANGER), (STRANGER, SigningKey.generate())]
)
def test_one_key_under_whatever_guise_is_not_two(keys: tuple[SigningKey, ...]) -> None:
    async def test(place: Place) -> None:
        with pytest.raises(ConfigError, match="of 2 root keys"):
            await opened(place, keys)
        assert len(place.log.entries) == 1

    at_place(test)


def test_the_log_proves_who_opened_it_and_after_which_head() -> None:
    async def test(place: Place) -> None:
        head = place.replica.world.head.hex()
        seq = await opened(place)
        told = canonical.loads(place.log.entries[-1].payload)["break_glass"]
        signed = Statement(**told["statement"])
        signatures = {key: bytes.fromhex(one) for key, one in told["signatures"].items()}
        keys = {key.key_id: key for key in root().holders(Role.ROOT)}
        assert (signed.head, count_signers(signed, signatures, keys, seq=seq)) == (head, 2)
        for change in ({"who": EVE}, {"end_ms": signed.end_ms + 1}, {"head": "0" * 64}, {"role": "role:app"}):
            assert count_signers(replace(signed, **change), signatures, keys, seq=seq) == 0

    at_place(test)


@pytest.mark.parametrize(
    "changes", [{"end_ms": START_MS + 3_600_001}, {"end_ms": START_MS}, {"reason": " "}, {"who": "role:x"}]
)
def test_it_is_short_has_a_reason_and_lets_in_a_principal(changes: dict[str, object]) -> None:
    with pytest.raises(BadRequestError if "who" not in changes else ValueError):
        statement(**changes)


@pytest.mark.holds("F32")
def test_a_broken_policy_is_brought_back_to_one_that_worked() -> None:
    """Nobody administers any more: the drill of F32."""
    broken = files(people_csv=PEOPLE)
    broken["grants.csv"] = b"p, role:member, decision.ask, decision/main, prod, , , allow\n"

    async def test(place: Place) -> None:
        before = place.rows()
        draft = await from_pack(broken, message="oops")
        waits = await place.policies.propose(draft, place.acting(EVE))
        assert waits.proposal is not None
        await place.policies.approve(
            waits.proposal.id, expected=waits.proposal.digest, message="", who=place.acting(OLGA)
        )
        await place.policies.activate(waits.proposal.id, who=place.acting(ADA))
        assert await refusal(place.policies.apply(draft, place.acting(ADA))) is Reason.NO_GRANT
        await opened(place, restore_seq=1)
        assert {row for row in place.rows() if MIA not in row} == before

    at_place(test)


def test_whoever_was_let_in_does_not_review_it_and_who_does_ends_the_alarm() -> None:
    async def test(place: Place) -> None:
        seq = await opened(place)

        def look(name: str) -> Coroutine[Any, Any, object]:
            return review(place.desk, place.publisher, seq, message="fine", who=place.acting(name))

        assert await refusal(look(MIA)) is Reason.SELF_APPROVAL
        assert await refusal(look("user:stranger@x.org")) is Reason.NO_GRANT
        await look(EVE)
        assert place.replica.world.glass == ()
        assert await refusal(look(EVE)) is Reason.NOT_FOUND

    at_place(test)


def test_a_review_by_whoever_was_let_in_makes_no_world() -> None:
    async def test(place: Place) -> None:
        seq = await opened(place)
        with pytest.raises(PortcullisError) as refused:
            await place.publisher.publish("review", {"seq": seq, "by": [MIA], "message": ""}, author=MIA)
        assert refused.value.reason is Reason.POLICY_REFUSED

    at_place(test)


def test_a_pack_does_not_end_it_and_a_snapshot_remembers_it() -> None:
    async def test(place: Place) -> None:
        await opened(place)
        more = files(people_csv=PEOPLE + f"g, {MIA}, role:viewer, dev\n")
        await place.policies.apply(await from_pack(more, message=""), place.acting(OLGA))
        world = place.replica.world
        assert any("role:sole-admin, prod, _" in row for row in place.rows())
        assert from_state(to_state(world)).glass == world.glass != ()

    at_place(test)


def test_the_log_moved_meanwhile() -> None:
    async def test(place: Place) -> None:
        seen = place.replica.world
        await place.policies.apply(
            await from_pack(files(people_csv=PEOPLE + f"g, {MIA}, role:viewer, dev\n"), message=""), place.acting(ADA)
        )
        doing = break_glass(place.publisher, seen, statement(), root=root(), keys=KEYS[:2])
        assert await refusal(doing) is Reason.CONFLICT

    at_place(test)
