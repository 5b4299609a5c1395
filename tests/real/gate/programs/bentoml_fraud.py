"""Run by BentoML's own interpreter: `bentoml serve` with a service over a scikit-learn model, one function of which streams.

python bentoml_fraud.py HTTP_PORT UNUSED    # in an empty directory; with PDP_SIDECAR_CONFIG set: behind our middleware
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Iterable
from types import SimpleNamespace
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType
from sklearn.linear_model import LogisticRegression
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from told import tell_gone, tell_routes

page = Starlette(routes=[Route("/about", lambda _: PlainTextResponse("a page of its own"))])


@bentoml.service(name="fraud")
@bentoml.asgi_app(page, path="/pages")
class Fraud:
    """Calls a payment a fraud, or not."""

    def __init__(self) -> None:
        self.classifier = bentoml.sklearn.load_model("fraud:latest")

    def _classes(self, rows: list[list[float]]) -> list[int]:
        return [int(one) for one in self.classifier.predict(rows)]

    @bentoml.api
    def classify(self, rows: list[list[float]]) -> list[int]:
        """Classify each row."""
        return self._classes(rows)

    @bentoml.api
    async def feed(
        self, rows: list[list[float]]
    ) -> AsyncGenerator[Annotated[str, ContentType("text/event-stream")], None]:
        """Classify again and again, until nobody listens."""
        try:
            while True:
                yield f"data: {json.dumps(self._classes(rows))}\n\n"
                await asyncio.sleep(0.02)  # the pace of the feed
        finally:
            tell_gone()

    @bentoml.api(route="/internal/retrain")
    def retrain(self) -> str:
        """Do what no caller of the gate may."""
        return "retrained"

    @bentoml.task
    def review(self, rows: list[list[float]]) -> list[int]:
        """Classify some time later."""
        return self._classes(rows)


if "PDP_SIDECAR_CONFIG" in os.environ:
    from sidecar.asgi import PolicyMiddleware

    Fraud.add_asgi_middleware(PolicyMiddleware)


def flat(routes: Iterable[Any], prefix: str = "") -> Iterable[Any]:
    """Yield every route with its whole path; what stands below a mount of files is one."""
    for route in routes:
        if not isinstance(route, Mount):
            yield SimpleNamespace(path=prefix + route.path, methods=route.methods or {"GET"})
        elif route.routes:
            yield from flat(route.routes, prefix + route.path)
        else:
            yield SimpleNamespace(path=f"{prefix}{route.path}/{{file}}", methods={"GET"})


if __name__ == "__main__":
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    bentoml.sklearn.save_model("fraud", LogisticRegression().fit([[0.0, 0.0], [1.0, 1.0]], [0, 1]))
    tell_routes(flat(Fraud.to_asgi().routes))
    served = ["bentoml", "serve", "bentoml_fraud:Fraud", "--host", "127.0.0.1", "--port", sys.argv[1]]
    os.execv(sys.executable, [sys.executable, "-m", *served])  # noqa: S606 - the command is written above
