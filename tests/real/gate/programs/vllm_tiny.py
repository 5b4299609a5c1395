"""Run by vLLM's own interpreter: `vllm serve` with a Llama of random weights under three names, one of them its own.

python vllm_tiny.py HTTP_PORT UNUSED    # in an empty directory; with PDP_SIDECAR_CONFIG set: behind our middleware
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}

from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles
from tiny_llama import write_model
from told import tell_routes
from vllm_cpu import main

OPTIONAL = ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_ENABLE_COHERE_API")
FLAGS = ("enable_scale_out", "tokens_only", "enable_tokenizer_info_endpoint", "enable_fault_tolerance")
SERVED = ("tiny", "other")


def every_route() -> Iterable[Any]:
    """Yield the routes of the application with all its tasks and all that its options and environment can open."""
    from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415 - in the child that tells the routes alone
    from vllm.entrypoints.launchers.app import build_app  # noqa: PLC0415
    from vllm.entrypoints.launchers.cli_args import make_arg_parser  # noqa: PLC0415
    from vllm.tasks import FRONTEND_TASKS, GENERATION_TASKS, POOLING_TASKS  # noqa: PLC0415
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415

    args = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", "model", "--enable-offline-docs"])
    for flag in FLAGS:
        setattr(args, flag, True)
    config = AsyncEngineArgs.from_cli_args(args).create_model_config()
    for route in build_app(args, GENERATION_TASKS + POOLING_TASKS + FRONTEND_TASKS, config).routes:
        if isinstance(route, Mount):
            files = isinstance(route.app, StaticFiles)
            yield SimpleNamespace(path=f"{route.path}/{{file}}" if files else route.path, methods={"GET"})
        elif isinstance(route, WebSocketRoute):
            yield SimpleNamespace(path=route.path, methods={"WEBSOCKET"})
        else:
            yield route


def tell() -> None:
    """Tell every route, in a child: what it opens must not be open in the server."""
    child = os.fork()
    if child == 0:
        os.environ |= dict.fromkeys(OPTIONAL, "1")
        tell_routes(every_route())
        os._exit(0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    os.nice(15)  # it computes on the cores that its gate decides on, which elsewhere it does on a GPU
    write_model(Path("model"))
    tell()
    middleware = ["--middleware", "sidecar.asgi.PolicyMiddleware"] if "PDP_SIDECAR_CONFIG" in os.environ else []
    small = ["--enforce-eager", "--max-num-seqs", "4", "--max-model-len", "16384"]
    names = ["--served-model-name", *SERVED]
    sys.argv = ["vllm", "serve", "model", *names, "--host", "127.0.0.1", "--port", sys.argv[1], *small, *middleware]
    main()
