"""Attacks on the gate that reached the model, or outlived the decision, before they stood here."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from pdp.errors import Reason
from pdp.model.decision import Answer
from pdp.model.request import Question
from sidecar import envoy_routes
from sidecar.limits import LIMITS
from tests.e2e.sidecar.test_streams import PATIENCE_S, STREAM, noted, opened
from tests.e2e.sidecar.test_unary import INFER, status
from tests.support.upstream import Exchange


async def talk(gone: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin to answer before the request has ended, and do not stop."""
    exchange = Exchange(head=(await reader.readuntil(b"\r\n\r\n")).decode(), writer=writer)
    await exchange.start_stream()
    await exchange.emit(b"data: secret\n\n")
    with contextlib.suppress(ConnectionError):
        while await reader.read(1_024):
            pass
    gone.set()
    raise asyncio.IncompleteReadError(b"", None)


@pytest.mark.holds("F21")
def test_a_request_that_never_ends_does_not_keep_a_unary_answer_open(
    in_lab: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy's route timeout starts when the request has ended; ext_authz decides once, so nothing else would cut it."""
    monkeypatch.setattr(envoy_routes, "LIMITS", replace(LIMITS, unary_s=0.5))

    async def body(lab: Any) -> None:
        gone = asyncio.Event()
        lab.model._one = partial(talk, gone)
        reader, writer = await asyncio.open_connection(lab.address.host, lab.address.port)
        head = (
            f"POST {INFER} HTTP/1.1\r\nhost: model\r\nauthorization: Bearer good\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        writer.write(head.encode() + b"2\r\n{}\r\n")
        rest = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert b"data: secret" in rest
        assert not rest.endswith(b"0\r\n\r\n")  # cut, not complete
        await asyncio.wait_for(gone.wait(), PATIENCE_S)
        writer.close()

    in_lab(body)


def test_a_cut_that_meets_the_last_chunk_is_no_clean_end(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        reader, writer, exchange = await opened(lab)
        await exchange.emit(b"data: 1\n\n")
        await reader.readuntil(b"data: 1\n\n\r\n")
        await lab.revoke()
        await exchange.finish()  # within the time in which the cut waits for a chunk to carry its event
        rest = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert not rest.endswith(b"0\r\n\r\n")
        assert (await noted(lab))[0] == "cut"
        writer.close()

    in_lab(body)


@pytest.mark.holds("N10", "adv_existence")
@pytest.mark.parametrize("name", ["fraud", "other", "fraud/versions/12", "fraud/versions/13"])
def test_without_a_credential_served_names_look_like_any_other(in_lab: Callable[..., None], name: str) -> None:
    async def body(lab: Any) -> None:
        for route in ("infer", "generate_stream"):
            answer = await lab.post(f"/v2/models/{name}/{route}", token=None)
            assert status(answer) == 401, route
            assert b"credential_missing" in answer
        assert lab.model.seen == []

    in_lab(body)


@pytest.mark.holds("N10", "adv_existence")
def test_a_name_that_is_not_served_looks_like_one_that_is_forbidden(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        lab.decider.reason = Reason.NO_GRANT
        known, unknown = [await lab.post(f"/v2/models/{name}/infer") for name in ("fraud", "other")]
        assert status(known) == status(unknown) == 403
        assert body_of(known).replace(b"d1", b"d2") == body_of(unknown)
        assert [reason for reason, _ in lab.decider.refusals] == [Reason.UNMAPPED_ROUTE]

    in_lab(body)


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.holds("N7", "adv_bypass_header")
def test_no_header_turns_a_method_or_an_adapter_into_another(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        names = ("x-http-method-override", "x-http-method", "X-Method-Override", "X-Amzn-SageMaker-Adapter-Identifier")
        assert status(await lab.post(INFER, *(f"{name}: DELETE" for name in names))) == 200
        assert not {name.lower() for name in names} & set(lab.model.seen[0].headers)

    in_lab(body)


def test_a_refused_stream_says_as_much_as_a_refused_unary_request(in_lab: Callable[..., None]) -> None:
    """Envoy drops the headers of a refusal that its mutation rules do not name; a 401 must say how to authenticate."""

    async def body(lab: Any) -> None:
        for target in (INFER, STREAM):
            missing = (await lab.post(target, token=None)).lower()
            assert b"\r\nwww-authenticate: bearer\r\n" in missing, target
            assert b"\r\ncontent-type: application/json\r\n" in missing, target
            lab.decider.reason = Reason.TOKEN_EXPIRED
            expired = (await lab.post(target)).lower()
            assert b'\r\nwww-authenticate: bearer error="invalid_token"\r\n' in expired, target
        lab.decider.reason = Reason.WORLD_STALE
        assert b"\r\nretry-after: 1\r\n" in (await lab.post(STREAM)).lower()

    in_lab(body)


def test_an_allow_that_a_new_world_overtakes_is_recorded_as_cut(in_lab: Callable[..., None]) -> None:
    """Else the record would say that somebody had access who was refused."""

    async def body(lab: Any) -> None:
        answer = lab.decider.answer

        async def overtaken(question: Question, *, door: str, caller: str = "") -> Answer:
            allowed = await answer(question, door=door, caller=caller)
            lab.decider.reason = Reason.LOCKED
            return allowed

        lab.decider.answer = overtaken
        assert status(await lab.post(STREAM)) == 403
        assert await noted(lab) == ("cut", "d1", {"messages": 0, "size_bytes": 0, "reason": "locked"})
        assert lab.model.seen == []

    in_lab(body)
