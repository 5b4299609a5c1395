"""Run by KServe's own interpreter: its Python model server with one model, over REST and gRPC.

python kserve_model.py HTTP_PORT GRPC_PORT    # with PDP_SIDECAR_CONFIG set: behind our middleware
"""

import ast
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kserve.protocol.grpc
from fastapi.routing import iter_route_contexts
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.model_server import app
from kserve.protocol.rest import server as rest
from told import tell_routes

LIMIT = 0.5


class Threshold(Model):
    """Calls an amount above a limit a fraud."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Answer in the protocol in which it was asked."""
        del headers, response_headers
        if not isinstance(payload, InferRequest):
            return {"predictions": [int(amount > LIMIT) for amount in payload["instances"]]}
        found = [int(amount > LIMIT) for amount in payload.inputs[0].as_numpy().ravel()]
        output = InferOutput(name="fraud", shape=[len(found)], datatype="INT64", data=found)
        return InferResponse(response_id=payload.id or "1", model_name=self.name, infer_outputs=[output])

    async def explain(self, payload: Any, headers: Any = None) -> Any:
        """Say why."""
        del payload, headers
        return {"explanations": [f"above {LIMIT}"]}


class Described(rest.RESTServer):
    """Tells its routes as soon as it has made them."""

    def create_application(self) -> None:
        """Make the application as KServe does, and tell what it answers."""
        super().create_application()
        if "PDP_SIDECAR_CONFIG" in os.environ:
            from sidecar.asgi import PolicyMiddleware  # noqa: PLC0415 - only where it is asked for

            app.add_middleware(PolicyMiddleware)
        tell_routes([*iter_route_contexts(app.routes), *optional()], kserve.protocol.grpc)


def optional() -> Iterable[Any]:
    """Yield the routes that KServe opens only for models of vLLM or of transformers, as its source writes them down."""
    for name in ("openai", "timeseries"):
        tree = ast.parse((Path(rest.__file__).parent / name / "endpoints.py").read_text())
        prefix = "/openai" if name == "openai" else ""
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_api_route":
                methods = next(word.value for word in call.keywords if word.arg == "methods")
                path = prefix + ast.literal_eval(call.args[0])
                yield SimpleNamespace(path=path, methods=ast.literal_eval(methods))


if __name__ == "__main__":
    sys.modules["kserve.model_server"].RESTServer = Described
    ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), enable_grpc=True).start([Threshold("fraud")])
