"""Routes whose body names the model, through the real Envoy: what was decided is what the model sees, or nothing is."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from pdp.errors import Reason
from pdp.model.decision import Answer, Obligation
from pdp.model.request import Question
from sidecar.limits import LIMITS
from sidecar.routes import Body, Dialect, Placement, Row, Scope, Served
from sidecar.routes.assembly import assemble
from tests.e2e.sidecar.conftest import PATIENCE_S, InLab

SERVED = {
    "llama": Served(resource="endpoint/chat", model="model/llama@3"),
    "alias": Served(resource="endpoint/chat", model="model/llama@3", upstream="llama-3"),
    "fraud": Served(resource="endpoint/fraud", model="model/fraud@12"),
    "latest": Served(resource="endpoint/fraud", model="model/fraud@12", upstream="fraud", pinned=True),
}
TABLE = assemble(served=SERVED, server="endpoint/all", protocols=("oip", "kserve-v1", "openai"), watch=True)
CHAT = "/v1/chat/completions"
GOOD = {"authorization": "Bearer good"}


async def post(lab: Any, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        return await client.post(
            f"http://{lab.address.host}:{lab.address.port}{path}",
            content=content,
            headers={"content-type": "application/json", **GOOD, **headers},
        )


def obliged(lab: Any, **values: str) -> None:
    lab.decider.obligations = tuple(Obligation(name=name, value=value) for name, value in values.items())


def chat(**changes: Any) -> dict[str, Any]:
    return {"model": "llama", "messages": [{"role": "user", "content": "hi"}], **changes}


def test_the_body_names_the_model_and_its_bytes_go_on_untouched(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        text = b'{ "model" : "llama", "max_tokens": 5, "n": 2,  "messages": [] }'
        assert (await post(lab, CHAT, text)).status_code == 200
        assert lab.model.seen[0].body == text
        (question,) = lab.decider.questions
        assert (str(question.resource), str(question.serves)) == ("endpoint/chat", "model/llama@3")
        assert question.attributes["request.max_tokens"] == 5
        assert question.attributes["request.n"] == 2
        assert lab.model.seen[0].headers["x-pdp-decision-id"] == "d1"
        assert "authorization" not in lab.model.seen[0].headers

    in_lab(body, table=TABLE)


AMBIGUOUS = [
    b"",
    b"[]",
    b"not json",
    b'{"model":"llama","model":"other"}',
    b'{"model":"llama","Model":"other"}',
    b'{"model":"llama","a":{"b":1,"b":2}}',
    b'{"model":"llama","n":NaN}',
    b'{"model":"llama","temperature":1e999}',
    b'\xef\xbb\xbf{"model":"llama"}',
    b'{"model":"llama","stream":"true"}',
    b'{"model":"llama","max_tokens":"9"}',
    b'{"model":["llama"]}',
    b'{"model":"nobody"}',
    b'{"model":""}',
    b'{"messages":[]}',
    b'{"model":"llama","previous_response_id":"resp_of_somebody_else"}',
    b'{"model":"llama"}{"model":"other"}',
    b'{"model":"ll\xc0\xaeama"}',
    b"[" * 100_000,
]


def test_a_body_that_two_parsers_could_read_is_refused(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        for number, text in enumerate(AMBIGUOUS, start=1):
            assert (await post(lab, CHAT, text)).status_code == 403, text[:80]
            assert len(lab.decider.refusals) == number
        assert lab.model.seen == []

    in_lab(body, table=TABLE)


def test_other_types_and_encodings_are_refused(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        for headers in ({"content-type": "text/plain"}, {"content-encoding": "gzip"}, {"content-type": ""}):
            assert (await post(lab, CHAT, chat(), **headers)).status_code == 403, headers
        assert lab.model.seen == []

    in_lab(body, table=TABLE)


def test_a_credential_is_asked_for_before_the_body_is_read(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        answer = await lab.raw(
            f"POST {CHAT} HTTP/1.1\r\nhost: m\r\ncontent-type: application/json\r\ncontent-length: 4000000\r\n"
            "connection: close\r\n\r\n".encode()
        )
        assert answer.startswith(b"HTTP/1.1 401")  # not a byte of the body was sent

    in_lab(body, table=TABLE)


def test_a_body_above_the_limit_is_413(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        answer = await post(lab, CHAT, b'{"model":"llama","x":"' + b"x" * LIMITS.body_bytes + b'"}')
        assert answer.status_code == 413
        assert lab.model.seen == []
        assert lab.decider.questions == []
        assert lab.decider.refusals == [(Reason.BAD_REQUEST, "envoy refused the body: above the limit")]

    in_lab(body, table=TABLE)


def test_a_large_body_within_the_limit_goes_on(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        text = b'{"model":"llama","x":"' + b"x" * 2_000_000 + b'"}'
        assert (await post(lab, CHAT, text)).status_code == 200
        assert lab.model.seen[0].body == text

    in_lab(body, table=TABLE)


def test_an_alias_goes_up_under_the_name_the_server_knows(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        assert (await post(lab, CHAT, chat(model="alias"))).status_code == 200
        assert json.loads(lab.model.seen[0].body) == chat(model="llama-3")
        assert lab.decider.questions[0].attributes["request.alias"] == "alias"
        assert (await post(lab, "/v2/models/latest/infer", {"inputs": []})).status_code == 200
        assert lab.model.seen[1].head.startswith("POST /v2/models/fraud/versions/12/infer HTTP/1.1")

    in_lab(body, table=TABLE)


CLAMPED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"max_completion_tokens": 10}),
    ({"max_tokens": 99}, {"max_tokens": 10}),
    ({"max_completion_tokens": 7}, {"max_completion_tokens": 7}),
    ({"max_tokens": 99, "max_completion_tokens": 98}, {"max_tokens": 10, "max_completion_tokens": 10}),
    ({"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 10}),
]


def test_max_tokens_is_clamped_in_the_body(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        obliged(lab, max_tokens="10")
        for asked, sent in CLAMPED:
            assert (await post(lab, CHAT, chat(**asked))).status_code == 200
            exchange = lab.model.seen[-1]
            assert json.loads(exchange.body) == chat(**sent)
            assert int(exchange.headers["content-length"]) == len(exchange.body)

    in_lab(body, table=TABLE)


def test_pins_digests_and_purposes_are_met_or_denied(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        digest = "sha256:" + "a" * 64
        lab.decider.digests = {"model/fraud@12": digest}
        infer = {"inputs": []}
        for duties, wanted in (
            ({"pin_version": "12"}, 200),
            ({"pin_version": "13"}, 403),
            ({"require_digest": digest}, 200),
            ({"require_digest": "sha256:" + "b" * 64}, 403),
            ({"purpose": "fraud-detection"}, 403),
        ):
            obliged(lab, **duties)
            assert (await post(lab, "/v2/models/fraud/infer", infer)).status_code == wanted, duties
        obliged(lab, purpose="fraud-detection")
        told = {"pdp-ask-purpose": "fraud-detection"}
        assert (await post(lab, "/v2/models/fraud/infer", infer, **told)).status_code == 200
        assert lab.model.seen[0].head.startswith("POST /v2/models/fraud/versions/12/infer")
        assert lab.model.seen[1].head.startswith("POST /v2/models/fraud/infer")

    in_lab(body, table=TABLE)


def test_path_and_body_must_name_one_model(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        for text in ({"model_name": "llama"}, {"model": "llama"}, {"model_version": "13"}):
            assert (await post(lab, "/v2/models/fraud/infer", text)).status_code == 403, text
        assert (await post(lab, "/v2/models/fraud/infer", {"model_name": "fraud"})).status_code == 200
        assert len(lab.model.seen) == 1

    in_lab(body, table=TABLE)


OIP_REPLY = {
    "model_name": "fraud",
    "outputs": [
        {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]},
        {"name": "probabilities", "datatype": "FP64", "shape": [1, 3], "data": [0.123, 0.777, 0.1]},
        {"name": "embedding", "datatype": "FP32", "shape": [1, 2], "data": [[0.123, 0.456]]},
    ],
}


@pytest.mark.parametrize(
    ("strip", "names", "numbers"),
    [
        ("probabilities", ["label", "embedding"], {}),
        ("round:1", ["label", "probabilities", "embedding"], {"probabilities": [0.1, 0.8, 0.1]}),
        ("all-but-top-1", ["label", "probabilities", "embedding"], {"probabilities": [0.0, 0.777, 0.0]}),
    ],
)
def test_outputs_are_stripped_from_an_infer(in_lab: InLab, strip: str, names: list[str], numbers: Any) -> None:
    async def body(lab: Any) -> None:
        obliged(lab, strip_outputs=strip)
        lab.model.reply, lab.model.reply_type = json.dumps(OIP_REPLY).encode(), b"application/json"
        answer = await post(lab, "/v2/models/fraud/infer", {"inputs": []})
        assert answer.status_code == 200
        outputs = {one["name"]: one["data"] for one in answer.json()["outputs"]}
        assert list(outputs) == names
        assert {name: outputs[name] for name in numbers} == numbers

    in_lab(body, table=TABLE)


def test_a_reply_that_cannot_be_stripped_is_not_passed_on(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        obliged(lab, strip_outputs="probabilities")
        for reply, kind in ((b"0.123 0.456", b"text/plain"), (b'{"a":1,"a":2}', b"application/json")):
            lab.model.reply, lab.model.reply_type = reply, kind
            async with asyncio.timeout(PATIENCE_S):
                answer = await post(lab, "/v2/models/fraud/infer", {"inputs": []})
            assert answer.status_code in {403, 500, 503}
            assert reply not in answer.content

    in_lab(body, table=TABLE)


def test_a_chat_streams_and_its_cut_is_an_error_event(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        received = bytearray()
        url = f"http://{lab.address.host}:{lab.address.port}{CHAT}"
        first = asyncio.Event()

        async def consume() -> None:
            text = json.dumps(chat(stream=True), separators=(",", ":")).encode()
            async with (
                httpx.AsyncClient(timeout=PATIENCE_S) as client,
                client.stream(
                    "POST", url, content=text, headers={**GOOD, "content-type": "application/json"}
                ) as response,
            ):
                async for chunk in response.aiter_raw():
                    received.extend(chunk)
                    first.set()

        consumer = asyncio.create_task(consume())
        exchange = await asyncio.wait_for(lab.model.streams.get(), PATIENCE_S)
        await exchange.start_stream()
        flowing = asyncio.create_task(flow(exchange))
        await asyncio.wait_for(first.wait(), PATIENCE_S)
        await lab.revoke()
        with pytest.raises(httpx.RemoteProtocolError):
            await asyncio.wait_for(consumer, PATIENCE_S)
        last = received.rstrip().rpartition(b"data: ")[2]
        assert json.loads(last) == {
            "error": {"message": "access ended: forbidden", "type": "access_ended", "code": "forbidden"}
        }
        await asyncio.wait_for(exchange.gone.wait(), PATIENCE_S)
        flowing.cancel()

    in_lab(body, table=TABLE)


async def flow(exchange: Any) -> None:
    for number in range(100_000):
        await exchange.emit(b'data: {"i":%d}\n\n' % number)
        await asyncio.sleep(0.01)  # the pace of the stream, not a wait for anything


@dataclass
class Watched:
    """A chat stream as its client and its model see it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    exchange: Any

    async def event(self, number: int) -> None:
        """Let the model send one event and wait until the client has it."""
        await self.exchange.emit(b'data: {"i":%d}\n\n' % number)
        await asyncio.wait_for(self.reader.readuntil(b'{"i":%d}\n\n\r\n' % number), PATIENCE_S)

    async def rest(self) -> bytes:
        rest = await asyncio.wait_for(self.reader.read(), PATIENCE_S)
        self.writer.close()
        return rest


async def watched(lab: Any) -> Watched:
    text = json.dumps(chat(stream=True), separators=(",", ":")).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: m\r\nauthorization: Bearer good\r\ncontent-type: application/json\r\n"
    reader, writer = await asyncio.open_connection(lab.address.host, lab.address.port)
    writer.write(head.encode() + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
    exchange = await asyncio.wait_for(lab.model.streams.get(), PATIENCE_S)
    await exchange.start_stream()
    return Watched(reader, writer, exchange)


def test_log_probabilities_are_stripped_from_a_stream_also_across_chunks(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        obliged(lab, strip_outputs="logprobs")
        stream = await watched(lab)
        await stream.exchange.emit(
            b'data: {"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"logprob":-0.12'
        )
        await stream.exchange.emit(b'345}]}}]}\n\ndata: {"choices":[{"delta":{"content":"b"}}]}\n\n')
        await stream.exchange.emit(b"data: [DONE]\n\n")
        await stream.exchange.finish()
        rest = await stream.rest()
        assert b"12345" not in rest
        assert b'{"choices":[{"delta":{"content":"a"},"logprobs":null}]}' in rest
        assert b"data: [DONE]\n\n" in rest
        assert rest.endswith(b"0\r\n\r\n")

    in_lab(body, table=TABLE)


def test_the_event_that_is_one_too_many_cuts(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        obliged(lab, max_messages="2")
        stream = await watched(lab)
        await stream.event(0)
        await stream.event(1)
        await stream.exchange.emit(b'data: {"i":2}\n\n')
        rest = await stream.rest()
        assert b'{"i":2}' not in rest
        assert not rest.endswith(b"0\r\n\r\n")
        assert await ended(lab) == ("cut", "budget_exceeded")

    in_lab(body, table=TABLE)


def test_every_so_many_messages_it_is_decided_again(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        obliged(lab, recheck_messages="2")
        stream = await watched(lab)
        for number in range(6):
            await stream.event(number)
        assert lab.rechecker.checks == 4  # at the opening, and at 2, 4 and 6
        lab.decider.reason = Reason.NO_GRANT
        await stream.event(6)
        await stream.exchange.emit(b'data: {"i":7}\n\n')  # the eighth: decided again
        assert b'{"i":7}' not in await stream.rest()
        assert await ended(lab) == ("cut", "no_grant")

    in_lab(body, table=TABLE)


def test_a_tightened_obligation_that_cannot_apply_mid_stream_is_a_cut(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        stream = await watched(lab)
        await stream.event(0)
        obliged(lab, max_tokens="1")
        await lab.rechecker.world_changed()
        assert not (await stream.rest()).endswith(b"0\r\n\r\n")
        assert await ended(lab) == ("cut", "obligation_unsupported")

    in_lab(body, table=TABLE)


def test_a_tightened_count_applies_from_here(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        stream = await watched(lab)
        await stream.event(0)
        obliged(lab, max_messages="2")
        await lab.rechecker.world_changed()
        await stream.event(1)
        await stream.exchange.emit(b'data: {"i":2}\n\n')
        assert b'{"i":2}' not in await stream.rest()
        assert await ended(lab) == ("cut", "budget_exceeded")

    in_lab(body, table=TABLE)


async def ended(lab: Any) -> tuple[str, str]:
    event, _, fields = await asyncio.wait_for(lab.decider.notes.get(), PATIENCE_S)
    return event, fields.get("reason", "")


FORM = (
    b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nllama\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n'
)
MODEL = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nllama\r\n'


FORMS = [
    (FORM, 200),
    (MODEL + FORM, 403),
    (FORM.replace(b'name="model"', b'name="model"; filename="x"'), 403),
    (FORM.replace(b'name="model"', b'name="model"; name="other"'), 403),
    (FORM.replace(b'name="model"', b"name*=utf-8''model"), 403),
    (FORM.replace(b"llama", b"nobody"), 403),
    (FORM.removesuffix(b"--b--\r\n"), 403),
    (FORM.replace(b'"model"', b'"Model"'), 403),
]


def test_a_form_names_its_model_once(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        kind = {"content-type": "multipart/form-data; boundary=b"}
        for form, status in FORMS:
            assert (await post(lab, "/v1/audio/transcriptions", form, **kind)).status_code == status, form
        assert [exchange.body for exchange in lab.model.seen] == [FORM]

    in_lab(body, table=TABLE)


def test_a_servers_own_routes_are_decided_like_any_other(in_lab: InLab) -> None:
    own = (
        Row(name="own.rank", method="POST", path="/rank/{m}", action="endpoint.invoke"),
        Row(
            name="own.ask",
            method="POST",
            path="/ask",
            action="endpoint.invoke",
            scope=Scope.BODY,
            placement=Placement.EXT_PROC,
            body=Body.JSON,
            dialect=Dialect.PLAIN,
        ),
        Row(name="own.admin", method="POST", path="/admin", action="endpoint.manage", scope=Scope.NEVER),
    )

    async def body(lab: Any) -> None:
        assert (await post(lab, "/rank/llama", {})).status_code == 200
        assert (await post(lab, "/ask", {"model": "llama"})).status_code == 200
        assert (await post(lab, "/ask", {"model": "nobody"})).status_code == 403
        assert (await post(lab, "/admin", {})).status_code == 403
        assert lab.decider.refusals[-1][0] is Reason.UNMAPPED_ROUTE

    in_lab(body, table=assemble(served=SERVED, own=own))


# The last name asked about is allowed: the scripted decider keeps its last answer, and a response is decided once more.
LISTING = assemble(served=dict(reversed(SERVED.items())), protocols=("oip", "openai"))
LISTS = {
    "/v1/models": {"object": "list", "data": [{"id": "llama"}, {"id": "llama-3"}, {"id": "fraud"}, {"id": "hidden"}]},
    "/v2/models": {"models": ["llama", "fraud", "hidden"]},
}


def test_a_list_shows_what_the_caller_may_see(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        answer = lab.decider.answer

        async def some(question: Question, *, door: str, caller: str = "") -> Answer:
            lab.decider.reason = Reason.NO_GRANT if str(question.resource) == "endpoint/fraud" else Reason.GRANTED
            return await answer(question, door=door, caller=caller)

        lab.decider.answer = some
        lab.model.reply_type = b"application/json"
        for path, reply in LISTS.items():
            lab.model.reply = json.dumps(reply).encode()
            shown = json.dumps((await listed(lab, path)).json())
            assert "llama" in shown
            assert "fraud" not in shown
            assert "hidden" not in shown
        assert {str(question.action) for question in lab.decider.questions} == {"endpoint.list"}

    in_lab(body, table=LISTING)


def test_a_list_that_cannot_be_read_or_shows_nothing_is_refused(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        for reply, kind in ((b"llama, fraud", b"text/plain"), (b'{"other":1}', b"application/json")):
            lab.model.reply, lab.model.reply_type = reply, kind
            assert (await listed(lab, "/v1/models")).status_code in {403, 500, 503}
        seen = len(lab.model.seen)
        lab.decider.reason = Reason.NO_GRANT
        assert (await listed(lab, "/v1/models")).status_code == 403
        assert len(lab.model.seen) == seen

    in_lab(body, table=LISTING)


async def listed(lab: Any, path: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        return await client.get(f"http://{lab.address.host}:{lab.address.port}{path}", headers=GOOD)
