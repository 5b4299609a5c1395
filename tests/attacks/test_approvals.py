"""Insiders against the second pair of eyes: each attack named, each refused by what it runs into."""

import asyncio
from pathlib import Path

import grpc
import pytest

from pdp.errors import PortcullisError, Reason
from pdp.model import canonical
from pdp.service.drafts import from_pack, from_rows
from pdp.service.policy import Draft
from pdp.v1 import decision_pb2, decision_pb2_grpc, policy_pb2, policy_pb2_grpc, types_pb2
from tests.support.changes import ADA, EVE, MIA, OLGA, PEOPLE, Place, at_place, files, refusal
from tests.support.logs import lock_payload
from tests.support.pdp import ADA as FIRST
from tests.support.pdp import GATE, ROWS, RunningPdp, detail, running_pdp

PROD = f"g, {MIA}, role:app, prod"
BOT, SPIFFE_BOT = "agent:etl-bot", "workload:spiffe://x.org/ns/ml/sa/etl"


def rows(*add: str) -> Draft:
    return from_rows(add, [], message="why")


async def proposed(place: Place, *by: str, draft: Draft | None = None) -> tuple[str, str]:
    outcome = await place.policies.propose(draft or rows(PROD), place.acting(*by))
    assert outcome.proposal is not None
    return outcome.proposal.id, outcome.proposal.digest


@pytest.mark.parametrize(
    ("authors", "approver"),
    [
        ((ADA,), (ADA,)),
        ((ADA,), (ADA, BOT)),  # an agent that acts for the author is the author
        ((ADA, BOT), (ADA,)),
        ((ADA, BOT), (OLGA, BOT)),  # the same agent, now in somebody else's name
        ((OLGA, BOT), (ADA, SPIFFE_BOT, BOT)),
    ],
)
def test_nobody_approves_their_own_change_by_whatever_detour(
    authors: tuple[str, ...], approver: tuple[str, ...]
) -> None:
    people = PEOPLE + "".join(f"g, {name}, role:policy-admin, prod\n" for name in (BOT, SPIFFE_BOT))

    async def test(place: Place) -> None:
        found, digest = await proposed(place, *authors)
        doing = place.policies.approve(found, expected=digest, message="", who=place.acting(*approver))
        assert await refusal(doing) is Reason.SELF_APPROVAL
        # Nor does a PDP that would seal it: every replica folds, and refuses.
        payload = {"proposal": found, "digest": digest, "approves": True, "by": list(approver), "message": ""}
        with pytest.raises(PortcullisError) as refused:
            await place.publisher.publish("verdict", payload, author=approver[0])
        assert refused.value.reason is Reason.POLICY_REFUSED

    at_place(test, people)


def test_an_agent_without_rights_of_its_own_approves_for_nobody() -> None:
    async def test(place: Place) -> None:
        found, digest = await proposed(place, ADA)
        doing = place.policies.approve(found, expected=digest, message="", who=place.acting(EVE, BOT))
        assert await refusal(doing) is Reason.DELEGATION_DENIED

    at_place(test)


def test_two_yeses_of_one_person_are_one() -> None:
    """Two approvals are wanted; Eve says yes herself and through her agent."""
    two = files(people_csv=PEOPLE + f"g, {BOT}, role:policy-admin, prod\n")
    two["grants.csv"] = two["grants.csv"].replace(b"approvals=1", b"approvals=2")

    async def test(place: Place) -> None:
        found, digest = await proposed(place, ADA, draft=await from_pack(two, message=""))
        await place.policies.approve(found, expected=digest, message="", who=place.acting(EVE))
        await place.policies.activate(found, who=place.acting(ADA))
        found, digest = await proposed(place, ADA)
        for who in ((EVE,), (EVE, BOT), (EVE,)):
            await place.policies.approve(found, expected=digest, message="", who=place.acting(*who))
        assert await refusal(place.policies.activate(found, who=place.acting(ADA))) is Reason.APPROVAL_MISSING
        await place.policies.approve(found, expected=digest, message="", who=place.acting(OLGA))
        await place.policies.activate(found, who=place.acting(ADA))
        assert PROD in place.rows()

    at_place(test)


def test_an_approval_of_one_change_is_none_of_another() -> None:
    """An approved proposal cannot be edited, and its approval cannot be replayed on the next."""

    async def test(place: Place) -> None:
        first, digest = await proposed(place, ADA)
        await place.policies.approve(first, expected=digest, message="", who=place.acting(EVE))
        second, other = await proposed(place, ADA, draft=rows(f"g, {MIA}, role:release-manager, prod"))
        doing = place.policies.approve(second, expected=digest, message="", who=place.acting(EVE))
        assert await refusal(doing) is Reason.CONFLICT
        replayed = canonical.loads(place.log.entries[2].payload)
        with pytest.raises(PortcullisError):
            await place.publisher.publish("verdict", {**replayed, "proposal": second}, author=EVE)
        assert other != digest
        assert await refusal(place.policies.activate(second, who=place.acting(ADA))) is Reason.APPROVAL_MISSING

    at_place(test)


def test_a_proposal_that_was_activated_is_not_activated_again() -> None:
    async def test(place: Place) -> None:
        found, digest = await proposed(place, ADA)
        await place.policies.approve(found, expected=digest, message="", who=place.acting(EVE))
        await place.policies.activate(found, who=place.acting(ADA))
        await place.policies.apply(from_rows([], [PROD], message="taken back"), place.acting(ADA))
        assert await refusal(place.policies.activate(found, who=place.acting(ADA))) is Reason.NOT_FOUND

    at_place(test)


@pytest.mark.parametrize(
    "row",
    [
        f"g, {ADA}, role:data-scientist, dev",
        "p, role:policy-admin, dataset.read, dataset/**, prod, , , allow",
        "p, role:member, dataset.read, dataset/**, prod, , , allow",
        "p, role:policy-admin, replica.*, replica/all, prod, , , allow",  # administration for its own author
    ],
)
def test_nobody_gives_themselves_more_however_many_say_yes(row: str) -> None:
    async def test(place: Place) -> None:
        assert await refusal(place.policies.apply(rows(row), place.acting(ADA))) is Reason.DENIED_BY_RULE
        found, digest = await proposed(place, ADA, draft=rows(row))
        # Olga gains by some of these too: then her yes does not count either.
        for who in (EVE, OLGA):
            try:
                await place.policies.approve(found, expected=digest, message="", who=place.acting(who))
            except PortcullisError as error:
                assert error.reason is Reason.SELF_APPROVAL  # noqa: PT017 - only some of them gain
        for who in (ADA, OLGA):
            assert await refusal(place.policies.activate(found, who=place.acting(who))) is Reason.DENIED_BY_RULE

    at_place(test)


def test_who_gains_by_a_change_does_not_approve_it() -> None:
    async def test(place: Place) -> None:
        found, digest = await proposed(place, ADA, draft=rows(f"g, {EVE}, role:app, prod"))
        doing = place.policies.approve(found, expected=digest, message="", who=place.acting(EVE))
        assert await refusal(doing) is Reason.SELF_APPROVAL

    at_place(test)


def test_groups_of_the_author_are_remembered_until_somebody_else_activates() -> None:
    """The author's token said `group:admins` when she proposed; who activates has another token."""

    async def test(place: Place) -> None:
        outcome = await place.policies.propose(
            rows("g, group:admins, role:data-scientist, dev"), place.acting(ADA, groups=("group:admins",))
        )
        assert outcome.proposal is not None
        doing = place.policies.activate(outcome.proposal.id, who=place.acting(OLGA))
        assert await refusal(doing) is Reason.DENIED_BY_RULE

    at_place(test)


def test_the_rules_of_approval_are_loosened_by_nobody_whom_they_bind() -> None:
    """An administrator gains by fewer approvals: only approvers propose that, and two of them are needed."""
    loose = files(people_csv=PEOPLE + f"g, {MIA}, role:policy-approver, prod\n")
    loose["grants.csv"] = b"\n".join(line for line in loose["grants.csv"].splitlines() if b"approvals=1" not in line)

    async def test(place: Place) -> None:
        draft = await from_pack(loose, message="tidy")
        assert await refusal(place.policies.apply(draft, place.acting(ADA))) is Reason.DENIED_BY_RULE
        found, digest = await proposed(place, EVE, draft=draft)
        assert await refusal(place.policies.activate(found, who=place.acting(ADA))) is Reason.APPROVAL_MISSING
        doing = place.policies.approve(found, expected=digest, message="", who=place.acting(OLGA))
        assert await refusal(doing) is Reason.SELF_APPROVAL
        await place.policies.approve(found, expected=digest, message="", who=place.acting(MIA))
        await place.policies.activate(found, who=place.acting(ADA))

    at_place(test, PEOPLE + f"g, {MIA}, role:policy-approver, prod\n")


def test_an_approver_who_is_locked_out_meanwhile_does_not_count() -> None:
    async def test(place: Place) -> None:
        found, digest = await proposed(place, ADA)
        await place.policies.approve(found, expected=digest, message="", who=place.acting(EVE))
        lock = lock_payload(1, target={"kind": "principal", "principal": EVE})
        await place.publisher.publish("lock", lock, author=ADA)
        assert await refusal(place.policies.activate(found, who=place.acting(ADA))) is Reason.APPROVAL_MISSING

    at_place(test)


# Through the door.


def test_what_a_change_touches_is_not_for_callers_to_say(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            question = decision_pb2.Question(
                action="policy.activate",
                resource="policy/main",
                supports_all=True,
                attributes={"change.production": types_pb2.Value(bool_value=False)},
            )
            request = decision_pb2.EvaluateRequest(question=question)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Evaluate(request, metadata=pdp.metadata(GATE), timeout=20)
            assert detail(refused.value).reason == "bad_request"

    asyncio.run(run())


async def _through(pdp: RunningPdp, who: str, name: str, request: object) -> str:
    """Return how an RPC of PolicyService ended for `who`: a reason, or nothing."""
    stub = policy_pb2_grpc.PolicyServiceStub(pdp.channel())
    try:
        await getattr(stub, name)(request, metadata=pdp.metadata(who), timeout=20)
    except grpc.aio.AioRpcError as error:
        return detail(error).reason
    return ""


def test_the_whole_way_through_the_door(tmp_path: Path) -> None:
    people = (
        ROWS + f"g, user:{FIRST}, role:policy-admin, prod\ng, user:olga@demo.portcullis, role:policy-approver, prod\n"
    )

    async def run() -> None:
        async with running_pdp(tmp_path, rows=people) as pdp:
            stub = policy_pb2_grpc.PolicyServiceStub(pdp.channel())
            edit = policy_pb2.Edit(add=["g, user:mia@demo.portcullis, role:app, prod"])
            request = policy_pb2.ProposeRequest(edit=edit, activate=True)
            told = await stub.Propose(request, metadata=pdp.metadata(FIRST), timeout=20)
            assert (told.proposal_id, told.approvals_needed, told.world_seq) == ("p2", 1, 0)
            yes = policy_pb2.ApproveRequest(proposal_id="p2", digest=told.digest)
            activate = policy_pb2.ActivateRequest(proposal_id="p2")
            assert await _through(pdp, FIRST, "Activate", activate) == "approval_missing"
            assert await _through(pdp, FIRST, "Approve", yes) == "self_approval"
            assert await _through(pdp, "bob@demo.portcullis", "Approve", yes) == "no_grant"
            assert await _through(pdp, "olga@demo.portcullis", "Approve", yes) == ""
            assert await _through(pdp, "olga@demo.portcullis", "Activate", activate) == "no_grant"
            assert await _through(pdp, FIRST, "Activate", activate) == ""
            records = [canonical.loads(record) for record in await pdp.records()]
            asked = [
                (one["principal"], one["action"], one["effect"])
                for one in records
                if "policy." in str(one.get("action"))
            ]
            assert ("user:olga@demo.portcullis", "policy.approve", "allow") in asked
            assert ("user:olga@demo.portcullis", "policy.activate", "deny") in asked

    asyncio.run(run())
