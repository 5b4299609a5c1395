"""Activating a proposal: on the policy it was compared with, whatever happens at the same time."""

import asyncio

import pytest

from pdp.errors import PortcullisError, Reason
from pdp.service.policy import Policies
from pdp.service.replicate import Publisher
from pdp.trust.entry import SignedEntry
from tests.support.logs import Authority, HandClock, MemoryLog, lock_payload
from tests.support.worlds import MODEL, VOCABULARY

ROWS = b"p, role:app, decision.ask, decision/main, prod, , , allow\n"
MORE_ROWS = ROWS + b"p, role:app, decision.assert, decision/main, prod, , , allow\n"
OTHER_WORDS = VOCABULARY.replace("  resource.license: {type: string}\n", "")


def files(rows: bytes = ROWS, words: str = VOCABULARY) -> dict[str, bytes]:
    return {"model.conf": MODEL.encode(), "vocabulary.yaml": words.encode(), "grants.csv": rows}


class YieldingLog(MemoryLog):
    """A log that lets others run while it writes, as every real one does."""

    async def append(self, entry: SignedEntry, *, seq: int, prev: bytes) -> None:
        await asyncio.sleep(0)
        await super().append(entry, seq=seq, prev=prev)


async def scene() -> tuple[Policies, Publisher, MemoryLog]:
    authority, log, names = Authority(), YieldingLog(), iter(range(100))
    replica = authority.replica()
    publisher = Publisher(log, replica, authority.keys, HandClock())
    policies = Policies(replica=replica, publisher=publisher, new_id=lambda: f"p{next(names)}")
    first = await policies.propose(files(), message="first")
    await policies.activate(first.id, author="user:ada")
    return policies, publisher, log


def test_two_proposals_activated_at_once_never_mix() -> None:
    """One changes words, one rows: each fits after the other, and nobody has seen the two together."""

    async def run() -> None:
        policies, _, _ = await scene()
        words = await policies.propose(files(words=OTHER_WORDS), message="words")
        rows = await policies.propose(files(rows=MORE_ROWS), message="rows")
        results = await asyncio.gather(
            *(policies.activate(item.id, author="user:ada") for item in (words, rows)), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, PortcullisError)]
        assert [error.reason for error in refused] == [Reason.CONFLICT]
        live = policies.live().policy
        assert live is not None
        assert (live.vocabulary_text == OTHER_WORDS) is not (len(live.snapshot.rows) == 2)

    asyncio.run(run())


def test_a_change_that_is_no_policy_does_not_stand_in_the_way() -> None:
    async def run() -> None:
        policies, publisher, _ = await scene()
        rows = await policies.propose(files(rows=MORE_ROWS), message="rows")
        _, world = await asyncio.gather(
            publisher.publish("lock", lock_payload(1), author="user:ada"), policies.activate(rows.id, author="user:ada")
        )
        assert (world.seq, len(world.locks)) == (3, 1)
        assert len(policies.live().policy.snapshot.rows) == 2  # type: ignore[union-attr]

    asyncio.run(run())


def test_a_proposal_activated_twice_at_once_is_one_entry() -> None:
    async def run() -> None:
        policies, _, log = await scene()
        words = await policies.propose(files(words=OTHER_WORDS), message="words")
        results = await asyncio.gather(
            *(policies.activate(words.id, author="user:ada") for _ in range(2)), return_exceptions=True
        )
        assert sum(isinstance(result, PortcullisError) for result in results) == 1
        assert len(log.entries) == 2

    asyncio.run(run())


def test_a_policy_of_a_store_that_cannot_be_followed_is_a_conflict_and_no_endless_loop() -> None:
    async def run() -> None:
        policies, _, log = await scene()
        rows = await policies.propose(files(rows=MORE_ROWS), message="rows")
        stranger = Authority()
        log.entries.append(stranger.chain(2)[1])  # an entry 2 that this PDP does not believe
        with pytest.raises(PortcullisError) as refused:
            await policies.activate(rows.id, author="user:ada")
        assert refused.value.reason is Reason.CONFLICT

    asyncio.run(run())
