"""The three lists over the wire: whole, paged, of one world, and only for whom they are."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest

from pdp.limits import MAX_PAGE
from pdp.v1 import decision_pb2 as pb
from pdp.v1 import decision_pb2_grpc, lock_pb2, lock_pb2_grpc, types_pb2
from tests.support.pdp import ADA, BOB, EVE, GATE, ROWS, RunningPdp, detail, running_pdp

ASSETS = """
dataset/open: {environment: dev}
dataset/shut: {environment: prod}
endpoint/prod: {environment: prod, segment: "segment:serving"}
model/fraud@7: {environment: prod, signature_verified: true, approvals: ["user:a", "user:b"]}
"""
MORE = """
g, group:releases, role:release-manager, prod
g, workload:spiffe://d/ns/web/**, role:app, prod
g3, workload:spiffe://d/ns/web/**, segment:apps
"""
Test = Callable[[RunningPdp, Any], Coroutine[Any, Any, None]]


def with_pdp(directory: Path, test: Test) -> None:
    async def run() -> None:
        async with running_pdp(directory, assets=ASSETS, rows=ROWS + MORE) as pdp:
            await test(pdp, decision_pb2_grpc.DecisionServiceStub(pdp.channel()))

    asyncio.run(run())


def subject(name: str, *groups: str) -> pb.Subject:
    return pb.Subject(asserted=pb.AssertedSubject(principal=name, groups=groups))


async def pages(call: Any, request: Any, metadata: Any) -> list[pb.SearchResponse]:
    found = [await call(request, metadata=metadata, timeout=10)]
    while found[-1].next_cursor:
        request.terms.cursor = found[-1].next_cursor
        found.append(await call(request, metadata=metadata, timeout=10))
    return found


async def refused(call: Any, request: Any, metadata: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(request, metadata=metadata, timeout=10)
    return error.value.code().name, detail(error.value).reason


def test_who_can_names_groups_and_workloads_and_from_where(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        request = pb.SearchSubjectsRequest(action="endpoint.invoke", resource="endpoint/prod")
        (page,) = await pages(stub.SearchSubjects, request, pdp.metadata(ADA))
        (entry,) = page.entries
        assert (entry.subject, entry.access) == ("workload:spiffe://d/ns/web/**", pb.ACCESS_CONDITIONAL)
        assert list(entry.sources) == ["none", "workload:spiffe://d/ns/web/**"]
        assert list(entry.role_path) == ["workload:spiffe://d/ns/web/**", "role:app"]
        assert (page.total, page.world_seq) == (1, pdp.app.replica.world.seq)
        request = pb.SearchSubjectsRequest(
            action="dataset.read", resource="dataset/open", terms=pb.SearchTerms(workload="none")
        )
        (page,) = await pages(stub.SearchSubjects, request, pdp.metadata(ADA))
        assert [(one.subject, one.access) for one in page.entries] == [(f"user:{BOB}", pb.ACCESS_ALLOW)]

    with_pdp(tmp_path, test)


@pytest.mark.holds("adv_list_partial")
def test_a_list_comes_in_pages_that_are_one_list(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        whole = await pages(stub.SearchResources, pb.SearchResourcesRequest(), pdp.metadata(BOB))
        request = pb.SearchResourcesRequest(terms=pb.SearchTerms(page_size=3))
        some = await pages(stub.SearchResources, request, pdp.metadata(BOB))
        assert len(whole) == 1
        assert len(some) == -(-whole[0].total // 3) > 1
        assert [entry for page in some for entry in page.entries] == list(whole[0].entries)
        assert {page.total for page in some} == {len(whole[0].entries)}
        assert ("dataset/open", "dataset.read") in {(one.resource, one.action) for one in whole[0].entries}
        assert not any(one.resource == "dataset/shut" for one in whole[0].entries)
        actions = pb.SearchActionsRequest(resource="dataset/open")
        (page,) = await pages(stub.SearchActions, actions, pdp.metadata(BOB))
        assert list(page.entries) == [one for one in whole[0].entries if one.resource == "dataset/open"]

    with_pdp(tmp_path, test)


@pytest.mark.holds("S11", "adv_cursor")
def test_a_cursor_serves_its_own_list_on_its_own_world_only(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        first = pb.SearchResourcesRequest(terms=pb.SearchTerms(page_size=2))
        page = await stub.SearchResources(first, metadata=pdp.metadata(BOB), timeout=10)
        next_page = pb.SearchResourcesRequest(terms=pb.SearchTerms(page_size=2, cursor=page.next_cursor))
        other = pb.SearchActionsRequest(resource="dataset/open", terms=next_page.terms)
        assert await refused(stub.SearchActions, other, pdp.metadata(BOB)) == ("INVALID_ARGUMENT", "bad_request")
        assert await refused(stub.SearchResources, next_page, pdp.metadata(GATE)) == ("INVALID_ARGUMENT", "bad_request")
        target = lock_pb2.LockTarget(principal="user:gone")
        locks = lock_pb2_grpc.LockServiceStub(pdp.channel())
        await locks.Lock(lock_pb2.LockRequest(target=target, reason="x"), metadata=pdp.metadata(ADA), timeout=10)
        assert await refused(stub.SearchResources, next_page, pdp.metadata(BOB)) == ("ABORTED", "conflict")
        garbage = pb.SearchResourcesRequest(terms=pb.SearchTerms(cursor="x" * 50))
        assert (await refused(stub.SearchResources, garbage, pdp.metadata(BOB)))[0] == "INVALID_ARGUMENT"
        many = pb.SearchResourcesRequest(terms=pb.SearchTerms(page_size=MAX_PAGE + 1))
        assert (await refused(stub.SearchResources, many, pdp.metadata(BOB)))[0] == "INVALID_ARGUMENT"

    with_pdp(tmp_path, test)


def test_lists_are_for_whom_they_are(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        who = pb.SearchSubjectsRequest(action="dataset.read", resource="dataset/open")
        about_bob = pb.SearchResourcesRequest(subject=subject(f"user:{BOB}"))
        denied = ("PERMISSION_DENIED", "no_grant")
        assert await refused(stub.SearchSubjects, who, pdp.metadata(BOB)) == denied
        assert await refused(stub.SearchResources, about_bob, pdp.metadata(BOB)) == denied
        assert await refused(stub.SearchResources, pb.SearchResourcesRequest(), pdp.metadata(EVE)) == denied
        elsewhere = pb.SearchResourcesRequest(terms=pb.SearchTerms(workload="workload:spiffe://d/ns/web/x"))
        assert await refused(stub.SearchResources, elsewhere, pdp.metadata(BOB)) == denied
        (page,) = await pages(stub.SearchResources, about_bob, pdp.metadata(GATE))
        assert "dataset/open" in {one.resource for one in page.entries}
        released = pb.SearchActionsRequest(subject=subject("user:x", "group:releases"), resource="model/fraud@7")
        (page,) = await pages(stub.SearchActions, released, pdp.metadata(GATE))
        assert "model.promote" not in {one.action for one in page.entries}  # nobody reaches segment:none in prod
        expired = pdp.token(BOB, now_s=1_700_000_000)
        old = pb.SearchResourcesRequest(subject=pb.Subject(credential=f"Bearer {expired}"))
        assert (await refused(stub.SearchResources, old, pdp.metadata(GATE)))[1] == "token_expired"

    with_pdp(tmp_path, test)


@pytest.mark.holds("N10")
def test_what_is_not_there_is_an_error_where_the_caller_may_know_and_nothing_where_not(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        who = pb.SearchSubjectsRequest(action="dataset.read", resource="dataset/shadow")
        assert await refused(stub.SearchSubjects, who, pdp.metadata(ADA)) == ("NOT_FOUND", "not_found")
        (page,) = await pages(stub.SearchActions, pb.SearchActionsRequest(resource="dataset/shadow"), pdp.metadata(BOB))
        assert page.total == 0
        wrong = pb.SearchTerms(attributes={"request.purpose": types_pb2.Value(int_value=3)})
        request = pb.SearchActionsRequest(resource="dataset/open", terms=wrong)
        assert (await refused(stub.SearchActions, request, pdp.metadata(BOB)))[0] == "INVALID_ARGUMENT"

    with_pdp(tmp_path, test)
