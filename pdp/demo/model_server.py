"""A small, real model server on the loopback: Open Inference Protocol v2 (REST, gRPC) and OpenAI-compatible chat.

It stands for the server a team already runs (KServe, MLServer, Triton, vLLM) and therefore knows nothing about Portcullis: no
tokens, no policy, and no door but the loopback one. `/demo/streams` says how many streams began, ended and were
cancelled, so that the story can prove what a cut does to the model behind it; the sidecar does not map that path, hence
nobody reaches it from outside.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import grpc.aio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pdp.demo.chat import DONE, PATH, chunks, completion, parse_chat
from pdp.demo.classifier import DigitClassifier, train
from pdp.demo.limits import LIMITS
from pdp.demo.oip import BadRequestError, Json, StreamRequest, infer_answer, model_metadata, parse_infer, parse_stream
from pdp.demo.oip_grpc import serve

LOOPBACK: Final = "127.0.0.1"
SERVER_NAME: Final = "portcullis-demo-model-server"
SERVER_VERSION: Final = "1"


@dataclass(slots=True, kw_only=True)
class StreamCounts:
    """How the streams of this process went; the one mutable thing in it, touched only from its event loop."""

    started: int = 0
    finished: int = 0
    cancelled: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What the routes share: one classifier, and the names it is served under."""

    classifier: DigitClassifier
    models: frozenset[str]
    version: str
    streams: StreamCounts


class EventStream(Response):
    """Server-sent events that end the moment the caller is gone, also between two events.

    Starlette's own streaming response leaves noticing that to the next `send`: a paced stream would compute for nobody.
    """

    media_type = "text/event-stream"

    def __init__(self, events: Iterator[Json], interval_s: float, counts: StreamCounts, *, last: bytes = b"") -> None:
        """Prepare a stream that ends with the bytes `last`; nothing is computed before it is called."""
        super().__init__(headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._events = events
        self._interval_s = interval_s
        self._counts = counts
        self._last = last

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Speak until the last event or until the caller is gone, whichever comes first."""
        self._counts.started += 1
        speaking = asyncio.create_task(self._speak(send))
        listening = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({speaking, listening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = speaking.done() and not speaking.cancelled() and speaking.exception() is None
            await _end(speaking, listening)
            self._record(finished=finished)

    async def _speak(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for event in self._events:
            data = f"data: {json.dumps(event)}\n\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
            self._counts.events += 1
            await asyncio.sleep(self._interval_s)
        await send({"type": "http.response.body", "body": self._last, "more_body": False})

    def _record(self, *, finished: bool) -> None:
        if finished:
            self._counts.finished += 1
            return
        self._counts.cancelled += 1
        _say(f"stream cancelled by its caller ({self._counts.cancelled} so far)")


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def build_app(serving: Serving) -> Starlette:
    """Return the ASGI application: the whole surface of the model server."""

    def bind(endpoint: Callable[[Serving, Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def call(request: Request) -> Response:
            return await _answer(endpoint, serving, request)

        return call

    return Starlette(
        routes=[
            Route("/v2", bind(_server), methods=["GET"]),
            Route("/v2/health/live", bind(_live), methods=["GET"]),
            Route("/v2/health/ready", bind(_ready), methods=["GET"]),
            Route("/v2/models/{model}", bind(_model), methods=["GET"]),
            Route("/v2/models/{model}/ready", bind(_model_ready), methods=["GET"]),
            Route("/v2/models/{model}/infer", bind(_infer), methods=["POST"]),
            Route("/v2/models/{model}/generate_stream", bind(_generate_stream), methods=["POST"]),
            Route(PATH, bind(_chat), methods=["POST"]),
            Route("/demo/streams", bind(_streams), methods=["GET"]),
        ]
    )


async def _answer(
    endpoint: Callable[[Serving, Request], Awaitable[Response]], serving: Serving, request: Request
) -> Response:
    model = request.path_params.get("model")
    if model is not None and model not in serving.models:
        return _error(404, f"unknown model `{model}`")
    try:
        return await endpoint(serving, request)
    except BadRequestError as fault:
        return _error(400, str(fault))


async def _server(_: Serving, __: Request) -> Response:
    return JSONResponse({"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": ["generate_stream"]})


async def _live(_: Serving, __: Request) -> Response:
    return JSONResponse({"live": True})


async def _ready(_: Serving, __: Request) -> Response:
    return JSONResponse({"ready": True})


async def _model(serving: Serving, request: Request) -> Response:
    return JSONResponse(model_metadata(_name(request), serving.version))


async def _model_ready(_: Serving, request: Request) -> Response:
    return JSONResponse({"name": _name(request), "ready": True})


async def _infer(serving: Serving, request: Request) -> Response:
    wanted = parse_infer(await _body(request))
    prediction = serving.classifier.predict(wanted.images)
    return JSONResponse(infer_answer(wanted, prediction, name=_name(request), version=serving.version))


async def _generate_stream(serving: Serving, request: Request) -> Response:
    wanted = parse_stream(await _body(request))
    return EventStream(_events(serving, _name(request), wanted), wanted.interval_s, serving.streams)


async def _chat(serving: Serving, request: Request) -> Response:
    asked = parse_chat(await _body(request))
    if asked.model not in serving.models:
        return _error(404, f"unknown model `{asked.model}`")
    if not asked.stream:
        return JSONResponse(completion(serving.classifier, asked))
    return EventStream(chunks(serving.classifier, asked), LIMITS.token_interval_s, serving.streams, last=DONE)


async def _streams(serving: Serving, _: Request) -> Response:
    return JSONResponse(asdict(serving.streams))


def _events(serving: Serving, name: str, wanted: StreamRequest) -> Iterator[Json]:
    """Classify held-out images one after the other, round and round."""
    held_out = serving.classifier.held_out
    for index in range(wanted.count):
        image = index % len(held_out.digits)
        prediction = serving.classifier.predict(held_out.images[image : image + 1])
        digit = int(prediction.digits[0])
        yield {
            "model_name": name,
            "model_version": serving.version,
            "index": index,
            "image": image,
            "digit": digit,
            "written": int(held_out.digits[image]),
            "probability": round(float(prediction.probabilities[0][digit]), 4),
        }


def _name(request: Request) -> str:
    return str(request.path_params["model"])


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LIMITS.body_bytes:
            raise BadRequestError(f"the body is larger than {LIMITS.body_bytes} bytes")
    return body


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class _AnnouncingServer(uvicorn.Server):
    """Says where it listens once it does: whoever started the process waits for that line instead of guessing."""

    def __init__(self, config: uvicorn.Config, second: Callable[[], Awaitable[tuple[grpc.aio.Server, int]]]) -> None:
        super().__init__(config)
        self.second = second
        self.grpc: grpc.aio.Server | None = None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.grpc is not None:
            await self.grpc.stop(None)
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.grpc, port = await self.second()
        _say(f"listening on grpc://{LOOPBACK}:{port}")
        for bound in sockets or []:
            host, port = bound.getsockname()
            _say(f"listening on http://{host}:{port}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, say how good the model is, and serve until interrupted."""
    options = _parser().parse_args(arguments)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # The loopback only: whoever must pass the gate finds no other door (ENFORCEMENT.md section 1).
            listener.bind((LOOPBACK, options.port))
        except OSError as fault:
            _say(f"cannot listen on {LOOPBACK}:{options.port}: {fault.strerror}; choose another --port, or 0 for any")
            return 1
        _serve(listener, frozenset(options.model or ["digits"]), options.model_version)
    return 0


def _serve(listener: socket.socket, models: frozenset[str], version: str) -> None:
    classifier = train()
    _say(
        f"trained on handwritten digits: {classifier.accuracy:.1%} right of {len(classifier.held_out.digits)} held-out images"
    )
    app = build_app(Serving(classifier=classifier, models=models, version=version, streams=StreamCounts()))
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    # uvicorn re-raises the signal that stopped it; a Ctrl-C is the ordinary end of this process, not a traceback.
    with contextlib.suppress(KeyboardInterrupt):
        _AnnouncingServer(config, lambda: serve(classifier.predict, models, version)).run(sockets=[listener])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pdp.demo.model_server", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one (default)")
    parser.add_argument("--model", action="append", help="served name, repeatable (default: digits)")
    parser.add_argument("--model-version", default="1", help="version told in every answer (default: 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
