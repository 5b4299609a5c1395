"""A stored answer is its asker's alone: learned from the reply, kept by whoever was given it first, and bounded."""

import asyncio
import json
from typing import Any

import pytest

from pdp.errors import Reason
from pdp.model.names import Principal
from pdp.model.request import Party
from sidecar import bodies
from sidecar.asked import Ask, Identified, Unidentified, Verdict
from sidecar.bodies import BadBody, Content
from sidecar.exchange import Exchange
from sidecar.gate import Gate
from sidecar.limits import LIMITS
from sidecar.results import Giver, Results
from sidecar.routes import Placement, Row, Served
from sidecar.routes.assembly import assemble
from tests.support.enforcement import Decider

BOB, EVE = Principal.parse("user:bob@x.org"), Principal.parse("user:eve@x.org")
SERVED = {"llama": Served(resource="endpoint/chat", model="model/llama@3")}
TABLE = assemble(served=SERVED, server="endpoint/all", protocols=("openai",))
JSON = {"content-type": "application/json"}


async def identify(authorization: str | None, *_: Any) -> Identified | Unidentified:
    """Take a credential that names its subject, and behind it, each after a space, who acts for it."""
    if authorization is None:
        return Unidentified(reason=Reason.CREDENTIAL_MISSING)
    subject, *actors = (Party(principal=Principal.parse(name)) for name in authorization.split())
    return Identified(party=subject, actors=tuple(actors))


def gate() -> Gate:
    return Gate(table=TABLE, identify=identify, decider=Decider())


def asked(of: Gate, who: Principal | str, target: str, method: str = "GET") -> Verdict:
    return asyncio.run(of.decide(Ask(method=method, target=target, route=None, authorization=str(who)), Placement.ASGI))


def created(of: Gate, who: Principal | str, **body: Any) -> tuple[Verdict, Content | BadBody]:
    """Return the answer to a `/v1/responses` of `who`."""

    async def run() -> tuple[Verdict, Content | BadBody]:
        ask = Ask(method="POST", target="/v1/responses", route=None, authorization=str(who))
        admitted = await of.admit(ask, Placement.ASGI)
        assert not isinstance(admitted, Verdict)
        content = bodies.read(admitted.row, json.dumps({"model": "llama", **body}).encode(), JSON)
        return await of.judge(admitted, content), content

    return asyncio.run(run())


def answered(of: Gate, who: Principal | str, reply: bytes, kind: str = "application/json") -> bytes | None:
    """Let `who` ask, and the model reply."""
    verdict, content = created(of, who)
    assert isinstance(content, Content)
    exchange = Exchange(verdict, content, results=of.results)
    exchange.headers({"content-type": kind})
    return exchange.chunk(reply, 0.0, last=True)


def test_who_made_an_answer_reads_cancels_and_continues_it_and_nobody_else() -> None:
    door = gate()
    reply = b'{"id": "resp_1",  "output": []}'
    assert answered(door, BOB, reply) == reply  # as it came
    for path, method in (("/v1/responses/resp_1", "GET"), ("/v1/responses/resp_1/cancel", "POST")):
        assert asked(door, BOB, path, method).allowed
        assert asked(door, EVE, path, method).reason is Reason.UNMAPPED_ROUTE
    assert asked(door, BOB, "/v1/responses/resp_2").reason is Reason.UNMAPPED_ROUTE
    assert created(door, BOB, previous_response_id="resp_1")[0].allowed
    assert not created(door, EVE, previous_response_id="resp_1")[0].allowed
    assert not created(door, BOB, previous_response_id="resp_2")[0].allowed


def test_an_agent_reads_for_somebody_what_it_was_given_itself_and_not_what_others_were() -> None:
    """One of a person's agents is no way into what that person asks elsewhere; the person reads what an agent made."""
    door = gate()
    agent, other = f"{BOB} agent:summary", f"{BOB} agent:other"
    answered(door, BOB, b'{"id": "resp_own"}')
    answered(door, agent, b'{"id": "resp_agent"}')
    readers = {
        made: [who for who in (str(BOB), agent, other) if asked(door, who, f"/v1/responses/{made}").allowed]
        for made in ("resp_own", "resp_agent")
    }
    assert readers == {"resp_own": [str(BOB)], "resp_agent": [str(BOB), agent]}
    assert created(door, agent, previous_response_id="resp_agent")[0].allowed
    assert not created(door, agent, previous_response_id="resp_own")[0].allowed


def test_what_is_refused_says_the_same_of_anothers_answer_and_of_none() -> None:
    door = gate()
    answered(door, BOB, b'{"id": "resp_1"}')
    first, second = (asked(door, EVE, f"/v1/responses/{name}").denial for name in ("resp_1", "resp_9"))
    assert (first.status, first.body.replace(b"d2", b""), first.headers) == (
        second.status,
        second.body.replace(b"d3", b""),
        second.headers,
    )


def test_the_right_is_asked_for_as_well() -> None:
    decider = Decider()
    door = Gate(table=TABLE, identify=identify, decider=decider)
    answered(door, BOB, b'{"id": "resp_1"}')
    decider.reason = Reason.NO_GRANT
    assert asked(door, BOB, "/v1/responses/resp_1").reason is Reason.NO_GRANT
    assert str(decider.questions[-1].action) == "endpoint.read_result"
    assert str(decider.questions[-1].resource) == "endpoint/chat"


def test_an_id_that_was_given_is_not_given_again() -> None:
    door = gate()
    answered(door, BOB, b'{"id": "resp_1"}')
    answered(door, EVE, b'{"id": "resp_1"}')
    assert asked(door, BOB, "/v1/responses/resp_1").allowed
    assert not asked(door, EVE, "/v1/responses/resp_1").allowed


@pytest.mark.parametrize(
    "body",
    [
        {"request_id": "resp_1"},  # vLLM takes it for the answer's id
        {"conversation": "c"},
        {"previous_response_id": ["resp_1"]},
        {"previousResponseId": "resp_1"},
    ],
)
def test_no_body_names_what_is_not_its_askers(body: dict[str, Any]) -> None:
    door = gate()
    answered(door, BOB, b'{"id": "resp_1"}')
    assert not created(door, BOB, **body)[0].allowed


def test_where_nothing_is_stored_nothing_is_continued() -> None:
    row: Row = next(row for row in TABLE.rows if row.name == "openai.chat")
    assert isinstance(bodies.read(row, b'{"model":"llama","previous_response_id":"resp_1"}', JSON), BadBody)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_streams_first_event_gives_the_id_before_it_has_gone_on(size: int) -> None:
    given: list[str] = []
    giver = Giver(given.append)
    text = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1"}}\n\n'
    for at in range(0, len(text), size):
        giver.events(text[at : at + size])
    assert given == ["resp_1"]
    giver.events(b'data: {"response":{"id":"resp_2"}}\n\n')
    assert given == ["resp_1"]


@pytest.mark.parametrize(
    "reply", [b"no json", b"[]", b"{}", b'{"id": 7}', b'{"id": ""}', b'{"id": "../x"}', b'{"id": "%s"}' % (b"a" * 200)]
)
def test_a_reply_that_gives_no_id_is_nobodys_and_goes_on(reply: bytes) -> None:
    door = gate()
    assert answered(door, BOB, reply) == reply
    assert not door.results._made


def test_an_endless_first_event_is_not_held_for_ever() -> None:
    giver = Giver(lambda _: None)
    for _ in range(5):
        giver.events(b"x" * (LIMITS.body_bytes // 4))
    assert giver._done


def test_the_oldest_id_is_forgotten_first() -> None:
    results = Results()
    for number in range(LIMITS.results + 1):
        results.note(f"resp_{number}", chain=(Party(principal=BOB),), name="llama")
    assert results.name("resp_0", (Party(principal=BOB),)) == ""
    assert results.name("resp_1", (Party(principal=BOB),)) == "llama"
