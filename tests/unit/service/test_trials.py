"""Watching a trial: on what the decision log says was asked, in bounded memory and time, and a canary that is rolled back."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters.audit_file import AuditChain
from pdp.adapters.trial_file import TrialFile
from pdp.change.trial import Mode, Scope, Stop
from pdp.engine.casbin_text import Row
from pdp.limits import CANARY_SAMPLE, MAX_AUDIT_FIELD_BYTES, TRIAL_SLICE_S
from pdp.model import canonical
from pdp.model.decision import Decision
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.service import compare, tally
from pdp.service.audit import AuditTrail
from pdp.service.decide import Decider
from pdp.service.desk import Acting
from pdp.service.drafts import from_rows
from pdp.service.redecide import GAINS, LOSES
from pdp.service.tally import Tally
from pdp.service.trials import TrialWatch, shown
from pdp.world import policy_after
from tests.support import changes
from tests.support.changes import ADA, EVE, OLGA, Place
from tests.support.worlds import rows

BOB = "user:bob@x.org"
PEOPLE = changes.PEOPLE + f"g, {BOB}, role:data-scientist, dev\ng, {EVE}, role:viewer, dev\n"
ASSETS = [
    {"name": name, "attributes": {"environment": "dev"}}
    for name in ("dataset/sales", "experiment/churn", "model/fraud@7")
]
HOUR_MS = 3_600_000
READS = f"g, {EVE}, role:data-scientist, dev"
DENY = "p, role:data-scientist, dataset.read, dataset/sales, *, , , deny"
BROKEN = "p, role:data-scientist, dataset.read, dataset/**, *, request.purpose == 'x', , deny"
ALL = Scope(share=100)


class Room(Place):
    """A place with a decision log, and a watch over it."""

    async def furnish(self, directory: Path) -> None:
        await self.open(PEOPLE)
        await self.publisher.publish("assets", {"assets": ASSETS}, author=ADA)
        self.directory = directory
        chain = AuditChain.open(directory / "audit", name="pdp", who=dict, now_ms=self.clock.now_ms, reserve_bytes=0)
        self.trail = AuditTrail(chain, now_ms=self.clock.now_ms)
        self.replica.staleness_s = lambda **_: 0.5  # type: ignore[method-assign] # no heartbeat is signed here
        self.board = TrialFile(directory)
        self.watch, self.decider = self.another_watch(), self.at_point("")

    def another_watch(self) -> TrialWatch:
        return TrialWatch(
            replica=self.replica,
            desk=self.desk,
            directories=(self.directory / "audit", self.directory / "audit" / "received"),
            board=self.board,
            clock=self.clock,
        )

    def at_point(self, name: str) -> Decider:
        ids = itertools.count()
        return Decider(
            replica=self.replica, audit=self.trail, clock=self.clock, new_id=lambda: f"d{next(ids)}", point=name
        )

    async def ask(self, subject: str, action: str, resource: str) -> Decision:
        question = Question(
            subject=Party(principal=Principal.parse(subject)),
            action=Action.parse(action),
            resource=Resource.parse(resource),
        )
        return (await self.decider.answer(question)).decision

    async def elsewhere(self, *lines: str, file: str = "more.csv") -> None:
        """Make rows live that stand in a file of their own, or where a pack puts them."""
        new = [Row(row.section, row.fields, file, row.line) for row in rows("\n".join(lines))]
        change: dict[str, Any] = {
            "model": None,
            "vocabulary": None,
            "added": [row.to_json() for row in new],
            "removed": [],
        }
        change["rows_digest"] = policy_after(self.replica.world.policy, change).snapshot.digest.hex()
        await self.publisher.publish("policy", {**change, "message": ""}, author=ADA)

    @property
    def who(self) -> Acting:
        return self.acting(ADA)

    async def proposed(self, *lines: str) -> str:
        outcome = await self.policies.propose(from_rows(lines, (), message="why"), self.who)
        assert outcome.proposal is not None
        return outcome.proposal.id

    async def shadow(self, *lines: str) -> str:
        made = await self.proposed(*lines)
        await self.policies.shadow(made, duration_ms=HOUR_MS, who=self.who)
        return made

    async def canary(self, *lines: str, scope: Scope = ALL, loses: int = 10, gains: bool = False) -> str:
        made = await self.proposed(*lines)
        stop = Stop(loses=loses, gains=gains)
        digest = self.desk.proposal(made).digest
        await self.policies.approve(made, expected=digest, message="", who=self.acting(OLGA))
        await self.policies.canary(made, duration_ms=HOUR_MS, scope=scope, stop=stop, who=self.who)
        return made

    async def looked(self) -> Tally:
        """Look until there is no more to see; return what the newest trial has shown."""
        await self.trail.record((), durable=True)
        seen: dict[int, Tally] = {}
        more = True
        while more:
            more = await self.watch.look()
            seen |= shown(self.board)
        return seen[max(seen)]

    def last_entry(self) -> Any:
        return canonical.loads(self.log.entries[-1].payload)


def in_room(directory: Path, test: Callable[[Room], Awaitable[None]]) -> None:
    async def run() -> None:
        room = Room()
        await room.furnish(directory)
        try:
            await test(room)
        finally:
            await room.trail.close()

    asyncio.run(run())


def test_a_shadow_counts_what_would_differ_since_it_began(tmp_path: Path) -> None:
    async def test(room: Room) -> None:
        await room.ask(EVE, "dataset.read", "dataset/sales")  # before: not its
        await room.shadow(READS, DENY)
        for _ in range(3):
            await room.ask(BOB, "dataset.read", "dataset/sales")
        denied = await room.ask(EVE, "dataset.read", "dataset/sales")
        gained = await room.ask(EVE, "model.download", "model/fraud@7")
        await room.ask(BOB, "dataset.list", "dataset/sales")
        assert (denied.allowed, gained.allowed) == (False, False)
        seen = await room.looked()
        assert (seen.compared, seen.changes, seen.skipped, seen.unreadable) == (6, {LOSES: 3, GAINS: 1}, 0, 0)
        kinds = {(one.change, one.subject, one.resource): count for one, count in seen.kinds.items()}
        assert kinds[LOSES, BOB, "dataset/sales"].count == 3
        assert kinds[GAINS, EVE, "model/fraud@7"].decision_id

    in_room(tmp_path, test)


def test_a_restart_counts_the_log_again(tmp_path: Path) -> None:
    async def test(room: Room) -> None:
        await room.shadow(DENY)
        await room.ask(BOB, "dataset.read", "dataset/sales")
        before = await room.looked()
        room.watch = room.another_watch()
        await room.ask(BOB, "dataset.read", "dataset/sales")
        after = await room.looked()
        assert (before.changes[LOSES], after.changes[LOSES]) == (1, 2)

    in_room(tmp_path, test)


def test_a_shadow_follows_the_live_policy_and_tells_when_it_no_longer_fits(tmp_path: Path) -> None:
    async def test(room: Room) -> None:
        made = await room.shadow(DENY)
        await room.elsewhere(READS)
        await room.ask(EVE, "dataset.read", "dataset/sales")
        assert (await room.looked()).changes == {LOSES: 1}
        # A pack that brings the file of edits has taken the place of the shadow's row.
        await room.elsewhere("g, user:kim@x.org, role:viewer, dev", file="edits.csv")
        await room.ask(BOB, "dataset.read", "dataset/sales")
        assert "no longer fits" in (await room.looked()).trouble
        assert [bool(one.trouble) for one in room.watch.tallies] == [True]
        assert [one.proposal for one in room.replica.world.trials] == [made]

    in_room(tmp_path, test)


def test_decisions_of_an_enforcement_point_are_counted_when_its_chain_comes_here(tmp_path: Path) -> None:
    async def test(room: Room) -> None:
        await room.shadow(DENY)
        received = tmp_path / "audit" / "received"
        chain = AuditChain.open(received, name="sidecar", who=dict, now_ms=room.clock.now_ms, reserve_bytes=0)
        own, room.trail = room.trail, AuditTrail(chain, now_ms=room.clock.now_ms)
        room.decider = room.at_point("edge")
        await room.ask(BOB, "dataset.read", "dataset/sales")
        assert (await room.looked()).changes == {LOSES: 1}
        await room.trail.close()
        room.trail = own

    in_room(tmp_path, test)


def test_many_names_do_not_grow_what_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "TRIAL_DIFFERENCES", 3)

    async def test(room: Room) -> None:
        await room.shadow("p, role:viewer, dataset.read, dataset/**, dev, , , allow")
        people = [f"g, user:u{n}@x.org, role:viewer, dev" for n in range(8)]
        await room.elsewhere(*people)
        for number in range(8):
            await room.ask(f"user:u{number}@x.org", "dataset.read", "dataset/sales")
        seen = await room.looked()
        assert (len(seen.kinds), seen.others, seen.changes[GAINS]) == (3, 5, 8)

    in_room(tmp_path, test)


def test_who_falls_behind_compares_a_part_and_counts_the_rest(tmp_path: Path) -> None:
    async def test(room: Room) -> None:
        await room.shadow(DENY)
        for _ in range(40):
            await room.ask(BOB, "dataset.read", "dataset/sales")
        await room.trail.record((), durable=True)
        clock = room.clock
        # Each look at the monotonic clock is a whole slice later: a candidate that takes as long for one decision.
        ticks = iter(range(10**6))
        clock.mono_s = lambda: next(ticks) * TRIAL_SLICE_S  # type: ignore[method-assign]
        clock.wall_ms += 60_000
        seen = await room.looked()
        assert seen.skipped > 0
        assert seen.compared + seen.skipped == 40

    in_room(tmp_path, test)


# Canaries.


def test_a_canary_that_denies_too_much_is_rolled_back_and_the_log_says_why(tmp_path: Path) -> None:
    async def test(room: Room) -> None:
        made = await room.canary(DENY)
        for number in range(CANARY_SAMPLE - 1):
            assert not (await room.ask(BOB, "dataset.read", "dataset/sales")).allowed, number
        await room.looked()
        assert room.replica.world.candidate is not None  # too few to say anything
        await room.ask(BOB, "dataset.read", "dataset/sales")
        await room.looked()
        assert room.replica.world.candidate is None
        assert (await room.ask(BOB, "dataset.read", "dataset/sales")).allowed
        ended = room.last_entry()
        assert (ended["why"], ended["proposal"], ended["by"]) == ("rollback", made, ["trial-watch"])
        assert (ended["shown"]["loses"], ended["shown"]["compared"]) == (CANARY_SAMPLE, CANARY_SAMPLE)
        assert "more than 10 %" in ended["detail"]
        assert (room.watch.rolled_back, list(room.watch.tallies)) == (1, [])

    in_room(tmp_path, test)


def test_a_canary_that_was_to_grant_nothing_is_rolled_back_at_the_first_grant(tmp_path: Path) -> None:
    async def test(room: Room) -> None:
        await room.canary(READS, gains=True)
        assert (await room.ask(EVE, "dataset.read", "dataset/sales")).allowed
        await room.looked()
        assert room.replica.world.candidate is None
        assert "allow what the live policy denies" in room.last_entry()["detail"]

    in_room(tmp_path, test)


def test_a_canary_that_was_to_grant_nothing_grants_nothing_unseen(tmp_path: Path) -> None:
    """Who brings more attributes than a record keeps has a question that cannot be decided again, and is no hole in the watch."""

    async def test(room: Room) -> None:
        await room.canary(READS, gains=True)
        claims = {"subject.long": "x" * (MAX_AUDIT_FIELD_BYTES + 1)}
        reads, deletes = (
            Question(
                subject=Party(principal=Principal.parse(EVE)),
                action=Action.parse(action),
                resource=Resource.parse("dataset/sales"),
                claims=claims,
            )
            for action in ("dataset.read", "dataset.delete")
        )
        assert not (await room.decider.answer(deletes)).decision.allowed
        await room.looked()
        assert room.replica.world.candidate is not None  # what is denied gains nothing
        assert (await room.decider.answer(reads)).decision.allowed
        await room.looked()
        assert room.replica.world.candidate is None
        assert "cannot be compared" in room.last_entry()["detail"]

    in_room(tmp_path, test)


def test_a_canary_whose_conditions_break_is_rolled_back(tmp_path: Path) -> None:
    async def test(room: Room) -> None:
        await room.canary(BROKEN, loses=100)
        await room.ask(BOB, "dataset.read", "dataset/sales")
        await room.looked()
        assert "errors of its own" in room.last_entry()["detail"]
        assert room.replica.world.candidate is None

    in_room(tmp_path, test)


def test_a_canary_that_cannot_be_watched_is_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect of ours")

    async def test(room: Room) -> None:
        await room.canary(READS, loses=100)
        await room.ask(EVE, "dataset.read", "dataset/sales")
        monkeypatch.setattr(compare, "flip_of", broken)
        await room.looked()
        assert "cannot be watched" in room.last_entry()["detail"]

    in_room(tmp_path, test)


def test_a_canary_counts_its_own_answers_alone(tmp_path: Path) -> None:
    async def test(room: Room) -> None:
        await room.canary(DENY, scope=Scope(points=("edge",)), loses=100)
        await room.ask(BOB, "dataset.read", "dataset/sales")
        room.decider = room.at_point("edge")
        await room.ask(BOB, "dataset.read", "dataset/sales")
        seen = await room.looked()
        assert (seen.compared, seen.changes) == (1, {LOSES: 1})

    in_room(tmp_path, test)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_end_of_its_time_is_an_entry(tmp_path: Path, mode: Mode) -> None:
    async def test(room: Room) -> None:
        await (room.shadow(DENY) if mode is Mode.SHADOW else room.canary(DENY))
        room.clock.wall_ms += HOUR_MS
        await room.looked()
        ended = room.last_entry()
        assert (ended["why"], ended["detail"]) == ("time", "")
        assert not list(room.replica.world.trials)

    in_room(tmp_path, test)


def test_what_another_version_left_is_no_trouble(tmp_path: Path) -> None:
    board = TrialFile(tmp_path)
    assert shown(board) == {}
    for damaged in ("{", "[{}]", "[[1]]", "7", '[{"seq": "x"}]'):
        (tmp_path / "trials.json").write_text(damaged)
        assert shown(board) == {}
