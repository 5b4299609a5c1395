"""Run in place of vLLM, which wants a GPU, by the test of `docs/gates.md`: a chat server that loads `--middleware` as it does."""

import argparse
import importlib

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route


async def chat(request: Request) -> JSONResponse:
    """Say which model was asked."""
    asked = await request.json()
    return JSONResponse({"object": "chat.completion", "model": asked["model"], "choices": []})


async def health(_: Request) -> PlainTextResponse:
    """Live."""
    return PlainTextResponse("")


def main() -> None:
    """Serve, with the words of `vllm serve`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--middleware", action="append", default=[])
    told = parser.parse_args()
    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/health", health)])
    for named in told.middleware:
        module, _, name = named.rpartition(".")
        app.add_middleware(getattr(importlib.import_module(module), name))
    uvicorn.run(app, host=told.host, port=told.port, log_level="warning")


if __name__ == "__main__":
    main()
