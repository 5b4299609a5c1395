"""Lists in the SDK: whole or an error, whatever the PDP sends."""

import asyncio
from typing import Any

import grpc
import pytest
from scripted_pdp import ScriptedPdp, refusal

from pdp.sdk import Access, Asserted, AsyncClient, BadQuestion, Client, Conflict, Dpop, Listed, PdpFault
from pdp.v1 import decision_pb2 as pb
from pdp.v1 import types_pb2

WHO = "DecisionService/SearchSubjects"
WHAT = "DecisionService/SearchResources"
ACTIONS = "DecisionService/SearchActions"
READ = ("dataset.read", "dataset/a")
AGAIN = refusal(grpc.StatusCode.ABORTED, "conflict")


def entry(subject: str, access: int = pb.ACCESS_ALLOW, **fields: Any) -> pb.SearchEntry:
    return pb.SearchEntry(subject=subject, action=READ[0], resource=READ[1], access=access, **fields)  # type: ignore[arg-type]


def page(*entries: pb.SearchEntry, total: int = 0, cursor: str = "", seq: int = 7) -> pb.SearchResponse:
    return pb.SearchResponse(entries=entries, total=total or len(entries), next_cursor=cursor, world_seq=seq)


def test_pages_become_one_list(pdp: ScriptedPdp, client: Client) -> None:
    duty = types_pb2.Obligation(name="max_rows", value="1")
    second = entry("user:b", pb.ACCESS_CONDITIONAL, depends_on=["x"], sources=["none"], obligations=[duty])
    pdp.script(WHO, page(entry("user:a", determining=["g.csv:1"]), total=2, cursor="more"), page(second, total=2))
    listing = client.who_can(*READ)
    assert listing.world_seq == client.world_seq == 7
    assert [(one.subject, one.access) for one in listing.entries] == [
        ("user:a", Access.ALLOW),
        ("user:b", Access.CONDITIONAL),
    ]
    assert (listing.entries[0].rules, listing.entries[1].depends_on) == (("g.csv:1",), ("x",))
    assert [message.terms.cursor for message in pdp.asked(WHO)] == ["", "more"]


def test_the_async_client_lists_alike(pdp: ScriptedPdp, client: Client) -> None:
    for method in (WHO, WHAT, ACTIONS):
        pdp.script(method, page(entry("user:a")))

    async def run() -> tuple[tuple[Listed, ...], ...]:
        async with AsyncClient(pdp.address, token="t", timeout_s=10) as aio:
            lists = (await aio.who_can(*READ), await aio.what_can(), await aio.actions(READ[1], "user:a"))
        return tuple(listing.entries for listing in lists)

    assert asyncio.run(run()) == tuple(
        listing.entries for listing in (client.who_can(*READ), client.what_can(), client.actions(READ[1], "user:a"))
    )


def test_a_world_that_moves_on_starts_the_list_again(pdp: ScriptedPdp, client: Client) -> None:
    first, last = page(entry("user:a"), total=2, cursor="more"), page(entry("user:c"), entry("user:d"), seq=8)
    pdp.script(WHO, first, AGAIN, last)
    assert [one.subject for one in client.who_can(*READ).entries] == ["user:c", "user:d"]
    assert [message.terms.cursor for message in pdp.asked(WHO)] == ["", "more", ""]
    pdp.script(WHO, AGAIN)
    with pytest.raises(Conflict):
        client.who_can(*READ)


@pytest.mark.holds("S11", "adv_list_partial")
@pytest.mark.parametrize(
    "pages",
    [
        (page(entry("user:a"), total=2),),
        (page(entry("user:a"), total=2, cursor="more"), page(entry("user:b"), total=2, seq=8)),
        (page(entry("user:a"), entry("user:b"), total=1),),
        (page(entry("user:a"), total=1, cursor="more"),),
        (page(total=2, cursor="more"),),
        (page(entry("user:a", pb.ACCESS_UNSPECIFIED)),),
    ],
)
def test_a_list_that_is_not_whole_is_an_error(
    pdp: ScriptedPdp, client: Client, pages: tuple[pb.SearchResponse, ...]
) -> None:
    pdp.script(WHO, *pages)
    with pytest.raises(PdpFault, match="not whole"):
        client.who_can(*READ)


def test_subject_and_terms_travel(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(WHAT, page())
    asserted = Asserted(principal="user:a", groups=["group:g"])
    client.what_can(asserted, workload="none", attributes={"request.purpose": "x"})
    (message,) = pdp.asked(WHAT)
    assert (message.subject.asserted.principal, message.terms.workload) == ("user:a", "none")
    assert message.terms.attributes["request.purpose"].string_value == "x"
    assert not pdp.script(ACTIONS, page())
    client.actions("dataset/a")
    assert pdp.asked(ACTIONS)[0].subject.WhichOneof("who") is None


@pytest.mark.parametrize("bad", [{"workload": "nowhere"}, {"attributes": {"purpose": "x"}}])
def test_terms_that_no_pdp_would_accept_are_not_sent(pdp: ScriptedPdp, client: Client, bad: Any) -> None:
    for call in (
        lambda: client.who_can(*READ, **bad),
        lambda: client.what_can(**bad),
        lambda: client.actions("dataset/a", **bad),
    ):
        with pytest.raises(BadQuestion):
            call()
    with pytest.raises(BadQuestion):
        client.who_can("read", "dataset/a")
    assert pdp.calls == []


def test_a_proof_that_is_taken_once_lists_nothing(pdp: ScriptedPdp, client: Client) -> None:
    subject = Dpop(token="a.b.c", proof="d.e.f", method="GET", url="https://models.example/")
    for ask in (lambda: client.what_can(subject), lambda: client.actions(READ[1], subject)):
        with pytest.raises(BadQuestion, match="of one request"):
            ask()
    assert pdp.asked(WHAT) == pdp.asked(ACTIONS) == []
