"""Attacks by trials: a way around approvals, a right to administer by canary, a canary that never ends."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from pdp.change.proposal import Proposal
from pdp.change.trial import NO_TRIALS, Ended, Mode, Scope, Stop, Trial, TrialSet
from pdp.decide import decide, explain
from pdp.errors import PortcullisError, Reason
from pdp.model import canonical
from pdp.model.decision import Decision
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.service.drafts import from_pack, from_rows
from pdp.service.history import History
from pdp.world import FoldError, World, from_state, to_state
from tests.support.changes import ADA, EVE, MIA, OLGA, PEOPLE, Place, at_place, files, refusal

HOUR_MS = 3_600_000
ALL, STOP = Scope(share=100), Stop(loses=10, gains=False)
PROD = f"g, {MIA}, role:viewer, prod"
DEV = f"g, {MIA}, role:data-scientist, dev"
CHURN = {"name": "experiment/churn", "attributes": {"environment": "prod"}}


async def proposed(place: Place, *add: str, by: str = ADA, remove: tuple[str, ...] = ()) -> Proposal:
    await place.publisher.publish("assets", {"assets": [CHURN]}, author=ADA)
    outcome = await place.policies.propose(from_rows(add, remove, message="why"), place.acting(by))
    assert outcome.proposal is not None
    return outcome.proposal


async def approved(place: Place, *add: str) -> Proposal:
    made = await proposed(place, *add)
    await place.policies.approve(made.id, expected=made.digest, message="", who=place.acting(EVE))
    return made


async def canary(place: Place, made: Proposal, by: str = ADA, **options: Any) -> Trial:
    asked: dict[str, Any] = {"duration_ms": HOUR_MS, "scope": ALL, "stop": STOP, **options}
    return await place.policies.canary(made.id, who=place.acting(by), **asked)


def ask(world: World, now_ms: int, subject: str = MIA, *, judge: Any = decide, **how: Any) -> Decision:
    question = Question(
        subject=Party(principal=Principal.parse(subject)),
        action=Action.parse(how.pop("action", "experiment.list")),
        resource=Resource.parse(how.pop("resource", "experiment/churn")),
    )
    decision: Decision = judge(world, question, now_ms, **how)
    return decision


# Around approvals.


def test_a_canary_needs_the_approvals_with_which_it_could_be_made_live() -> None:
    async def test(place: Place) -> None:
        made = await proposed(place, PROD)
        before = place.replica.world.seq
        assert await refusal(canary(place, made)) is Reason.APPROVAL_MISSING
        assert await refusal(canary(place, made, scope=Scope(share=1))) is Reason.APPROVAL_MISSING
        assert await refusal(canary(place, made, scope=Scope(points=("nowhere",)))) is Reason.APPROVAL_MISSING
        assert place.replica.world.seq == before
        await place.policies.approve(made.id, expected=made.digest, message="", who=place.acting(EVE))
        assert (await canary(place, made)).revision == place.replica.world.candidate.revision  # type: ignore[union-attr]

    at_place(test)


def test_nobody_grants_themselves_by_canary() -> None:
    async def test(place: Place) -> None:
        made = await proposed(place, f"g, {ADA}, role:app, prod")
        await place.policies.approve(made.id, expected=made.digest, message="", who=place.acting(EVE))
        for who in (ADA, OLGA):  # approved or not, whoever starts it: its author gains
            assert await refusal(canary(place, made, by=who)) is Reason.DENIED_BY_RULE
        assert place.replica.world.candidate is None

    at_place(test)


def test_who_may_not_make_it_live_starts_no_canary_and_who_may_not_propose_no_shadow() -> None:
    async def test(place: Place) -> None:
        made = await approved(place, PROD)
        assert await refusal(canary(place, made, by=EVE)) is Reason.NO_GRANT
        shadow = place.policies.shadow(made.id, duration_ms=HOUR_MS, who=place.acting(MIA))
        assert await refusal(shadow) is Reason.NO_GRANT

    at_place(test)


def test_a_shadow_changes_no_answer() -> None:
    async def test(place: Place) -> None:
        made = await proposed(place, PROD)
        await place.policies.shadow(made.id, duration_ms=HOUR_MS, who=place.acting(ADA))
        world, now_ms = place.replica.world, place.clock.now_ms()
        assert world.candidate is None
        assert ask(world, now_ms).reason is Reason.NO_GRANT

    at_place(test)


def test_a_canary_of_a_request_for_access_or_of_other_words_is_refused() -> None:
    async def test(place: Place) -> None:
        wish = {"role": "role:viewer", "environment": "dev", "duration_ms": 1_000, "reason": "why"}
        request, _ = await place.access.request(who=place.acting(ADA), **wish)  # type: ignore[arg-type]
        assert await refusal(canary(place, request)) is Reason.BAD_REQUEST
        pack = files(people_csv=PEOPLE)
        pack["vocabulary.yaml"] += b"\n# another word\n"
        outcome = await place.policies.propose(await from_pack(pack, message=""), place.acting(ADA))
        assert outcome.proposal is not None
        await place.policies.approve(
            outcome.proposal.id, expected=outcome.proposal.digest, message="", who=place.acting(EVE)
        )
        assert await refusal(canary(place, outcome.proposal)) is Reason.POLICY_REFUSED

    at_place(test)


# What is tried is what was approved.


def test_whatever_becomes_live_ends_the_canary() -> None:
    """Else its rows would mean with the new policy what nobody weighed: a role that has come to administer."""

    async def test(place: Place) -> None:
        await canary(place, await approved(place, PROD))
        await place.policies.apply(from_rows([DEV], [], message=""), place.acting(ADA))
        world = place.replica.world
        assert (world.candidate, world.trials.canary) == (None, None)
        assert ask(world, place.clock.now_ms()).reason is Reason.NO_GRANT

    at_place(test)


def test_a_rejected_proposal_answers_nobody_any_more() -> None:
    async def test(place: Place) -> None:
        made = await approved(place, PROD)
        await canary(place, made)
        assert ask(place.replica.world, place.clock.now_ms()).allowed
        await place.policies._desk.reject(made.id, message="", who=place.acting(EVE))
        assert place.replica.world.candidate is None
        assert not ask(place.replica.world, place.clock.now_ms()).allowed

    at_place(test)


def test_a_signed_entry_cannot_name_another_candidate() -> None:
    async def test(place: Place) -> None:
        made = await approved(place, PROD)
        trial = await canary(place, made)
        world = place.replica.world
        with pytest.raises(FoldError):
            from_state(to_state(replace(world, trials=TrialSet((replace(trial, revision="ff"),)))))
        await place.policies.end(made.id, Mode.CANARY, who=place.acting(ADA))
        payload = {name: value for name, value in trial.to_json().items() if name not in {"seq", "start_ms"}}
        for spoiled in (
            {"revision": "ff"},
            {"digest": "ff"},
            {"end_ms": 2**53},
            {"share": 0},
            {"mode": "live"},
            {"by": []},
        ):
            with pytest.raises(PortcullisError) as refused:
                await place.publisher.publish("trial", {**payload, **spoiled}, author=ADA)
            assert refused.value.reason is Reason.POLICY_REFUSED
        assert place.replica.world.candidate is None

    at_place(test)


def test_a_snapshot_holds_the_canary_and_its_candidate() -> None:
    async def test(place: Place) -> None:
        await canary(place, await approved(place, PROD))
        world = place.replica.world
        again = from_state(canonical.loads(canonical.dumps(to_state(world))))
        assert (again.candidate.revision, again.trials) == (world.candidate.revision, world.trials)  # type: ignore[union-attr]
        now_ms = place.clock.now_ms()
        assert ask(again, now_ms) == ask(world, now_ms)

    at_place(test)


# For whom it answers.


def test_a_decision_of_the_canary_names_it_and_others_do_not() -> None:
    async def test(place: Place) -> None:
        await canary(place, await approved(place, PROD), scope=Scope(points=("edge",)))
        world, now_ms = place.replica.world, place.clock.now_ms()
        tried, live = ask(world, now_ms, point="edge"), ask(world, now_ms)
        assert (tried.allowed, tried.candidate) == (True, world.candidate.revision)  # type: ignore[union-attr]
        assert (live.reason, live.candidate) == (Reason.NO_GRANT, "")

    at_place(test)


def test_what_a_canary_says_is_what_its_policy_would_say_if_it_were_live() -> None:
    async def test(place: Place) -> None:
        await canary(place, await approved(place, PROD, f"p, {OLGA}, experiment.read, experiment/*, *, , , allow"))
        world, now_ms = place.replica.world, place.clock.now_ms()
        promoted = replace(world, policy=world.candidate, candidate=None, trials=NO_TRIALS)
        for judge, who, verb in itertools.product(
            (decide, explain), (ADA, OLGA, EVE, MIA), ("list", "read", "update", "no")
        ):
            tried, wanted = (
                ask(one, now_ms, who, action=f"experiment.{verb}", judge=judge) for one in (world, promoted)
            )
            assert replace(tried, candidate="", recheck_after_s=None) == replace(wanted, recheck_after_s=None)
            assert tried.candidate == promoted.revision

    at_place(test)


def test_a_canary_never_decides_about_administration() -> None:
    """Neither does it give the right to end or to approve it, nor does it take that from those who may."""

    async def test(place: Place) -> None:
        rows = [f"g, {MIA}, role:policy-admin, prod", f"p, {ADA}, policy.*, policy/main, *, , , deny"]
        made = await approved(place, *rows)
        await canary(place, made)
        world, now_ms = place.replica.world, place.clock.now_ms()
        for who, may in ((MIA, False), (ADA, True)):
            decision = ask(world, now_ms, who, action="policy.approve", resource="policy/main", point="edge")
            assert (decision.allowed, decision.candidate) == (may, "")
        assert await refusal(place.policies.end(made.id, Mode.CANARY, who=place.acting(MIA))) is Reason.NO_GRANT
        await place.policies.end(made.id, Mode.CANARY, who=place.acting(OLGA))
        assert place.replica.world.candidate is None

    at_place(test)


# That never ends.


def test_a_canary_is_over_at_its_end_though_nobody_says_so() -> None:
    async def test(place: Place) -> None:
        trial = await canary(place, await approved(place, PROD))
        world = place.replica.world
        before, after = ask(world, trial.end_ms - 1), ask(world, trial.end_ms)
        assert (before.allowed, before.recheck_after_s) == (True, 0.001)
        assert (after.allowed, after.candidate) == (False, "")

    at_place(test)


def test_a_clock_that_cannot_be_trusted_ends_it_too() -> None:
    async def test(place: Place) -> None:
        await canary(place, await approved(place, PROD))
        decision = ask(place.replica.world, place.clock.now_ms(), clock_off=True)
        assert (decision.allowed, decision.candidate) == (False, "")

    at_place(test)


def test_a_trial_never_outlasts_its_proposal() -> None:
    async def test(place: Place) -> None:
        made = await approved(place, PROD)
        place.clock.wall_ms = made.expires_ms - 1_000
        trial = await canary(place, made, duration_ms=HOUR_MS)
        assert trial.end_ms == made.expires_ms
        place.clock.wall_ms = made.expires_ms + 1
        await proposed(place, DEV)  # what has expired gives way, and is tried no longer
        assert place.replica.world.candidate is None

    at_place(test)


def test_an_end_is_an_entry_with_its_reason() -> None:
    async def test(place: Place) -> None:
        made = await approved(place, PROD)
        trial = await canary(place, made)
        await place.policies.end(made.id, Mode.CANARY, who=place.acting(ADA))
        ended = canonical.loads(place.log.entries[-1].payload)
        assert (ended["trial"], ended["why"], ended["by"]) == (trial.seq, Ended.STOPPED, [ADA])
        assert await refusal(place.policies.end(made.id, Mode.CANARY, who=place.acting(ADA))) is Reason.NOT_FOUND
        told = [(one.mode, one.why, one.author) async for one in History(place.log).trials()]
        assert told == [("canary", "started", ADA), ("canary", "stopped", ADA)]
        await canary(place, made)
        await place.policies.activate(made.id, who=place.acting(ADA))
        assert PROD in place.rows()
        assert place.replica.world.trials == NO_TRIALS

    at_place(test)
