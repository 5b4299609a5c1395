"""Run by MLServer's own interpreter: MLServer with two scikit-learn models, one of which streams.

python mlserver_feed.py HTTP_PORT GRPC_PORT METRICS_PORT    # in an empty directory
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import joblib
import mlserver.grpc
from mlserver import MLServer
from mlserver.cli.serve import load_settings
from mlserver_sklearn import SKLearnModel
from sklearn.linear_model import LogisticRegression
from told import tell_gone, tell_routes

RUNTIMES = {"fraud": "mlserver_sklearn.SKLearnModel", "feed": "mlserver_feed.Feed"}


class Feed(SKLearnModel):
    """Answers each message of a stream, and then the last one again and again."""

    async def predict_stream(self, payloads: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Classify until nobody listens."""
        last = None
        try:
            async for last in payloads:
                yield await self.predict(last)
            while last is not None:
                await asyncio.sleep(0.02)  # the pace of the feed
                yield await self.predict(last)
        finally:
            tell_gone()


def write_repository(http_port: int, grpc_port: int, metrics_port: int) -> None:
    """Write the models, and the settings under which MLServer can stream."""
    classifier = LogisticRegression().fit([[0.0, 0.0], [1.0, 1.0]], [0, 1])
    for name, runtime in RUNTIMES.items():
        Path(name).mkdir()
        joblib.dump(classifier, f"{name}/model.joblib")
        told = {"name": name, "implementation": runtime, "parameters": {"uri": "./model.joblib", "version": "12"}}
        Path(name, "model-settings.json").write_text(json.dumps(told))
    ports = {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port}
    streams = {"parallel_workers": 0, "gzip_enabled": False, "metrics_endpoint": os.environ.get("METRICS")}
    Path("settings.json").write_text(json.dumps({"host": "127.0.0.1", "debug": False, **ports, **streams}))


async def main() -> None:
    """Serve until told to end."""
    write_repository(*(int(port) for port in sys.argv[1:4]))
    settings, models = await load_settings(".")
    server = MLServer(settings)
    apart = server._metrics_server._app.routes if server._metrics_server else []
    tell_routes([*server._rest_server._app.routes, *apart], mlserver.grpc)
    await server.start(models)


if __name__ == "__main__":
    asyncio.run(main())
