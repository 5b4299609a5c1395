"""MLflow's client and server: with our plug-in, without any authorization, and with MLflow's own basic-auth.

Run by `tests.bench.sdk` with the Python of `make test-real`'s environment, because MLflow lives there; prints JSON. One round
trip is a run as training code makes it: create, a parameter, two metrics, a tag, a batch, a file up, the file down, get, search,
end. The three servers are asked in turns, so that none has the quieter machine.
"""

import contextlib
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric

from tests.support.mlflow_server import guarded_mlflow, mlflow_server
from tests.support.pdp import BOB

_ROUNDS = 20
_WARM = 2


def main() -> None:
    """Print the medians of a round trip, in milliseconds, by the server's kind."""
    logging.disable(logging.WARNING)
    os.environ |= {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trips = {
            "none": stack.enter_context(_plain(directory / "none")),
            "pdp": stack.enter_context(_guarded(directory / "pdp")),
            "basic-auth": stack.enter_context(_basic(directory / "basic")),
        }
        times: dict[str, list[float]] = {kind: [] for kind in trips}
        for number in range(_WARM + _ROUNDS):
            for kind, trip in trips.items():
                start = time.perf_counter()
                trip()
                if number >= _WARM:
                    times[kind].append((time.perf_counter() - start) * 1000)
    json.dump({kind: statistics.median(found) for kind, found in times.items()}, sys.stdout)


@contextlib.contextmanager
def _plain(directory: Path) -> Iterator[Callable[[], None]]:
    directory.mkdir()
    with mlflow_server(directory) as port:
        yield _trip(f"http://127.0.0.1:{port}", dict)


@contextlib.contextmanager
def _guarded(directory: Path) -> Iterator[Callable[[], None]]:
    directory.mkdir()
    with guarded_mlflow(directory, workers=1) as server:
        yield _trip(server.url, lambda: {"MLFLOW_TRACKING_TOKEN": server.token(BOB)})


@contextlib.contextmanager
def _basic(directory: Path) -> Iterator[Callable[[], None]]:
    directory.mkdir()
    given = {
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-one-benchmark",
        "MLFLOW_AUTH_ADMIN_USERNAME": "somebody",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "of-one-benchmark-only",
    }
    with mlflow_server(directory, "--app-name", "basic-auth", environment=given) as port:
        who = {"MLFLOW_TRACKING_USERNAME": "somebody", "MLFLOW_TRACKING_PASSWORD": "of-one-benchmark-only"}
        yield _trip(f"http://127.0.0.1:{port}", lambda: who)


def _trip(url: str, credential: Callable[[], dict[str, str]]) -> Callable[[], None]:
    """Return one round trip to a server; MLflow's client reads its credential from the environment, for each request."""

    def client_with_credential() -> MlflowClient:
        for name in [name for name in os.environ if name.startswith("MLFLOW_TRACKING_")]:
            del os.environ[name]
        os.environ.update(credential())
        return MlflowClient(url)

    def trip() -> None:
        client = client_with_credential()
        run = client.create_run(experiment).info.run_id
        client.log_param(run, "depth", 3)
        client.log_metric(run, "loss", 0.5)
        client.log_metric(run, "loss", 0.4, step=1)
        client.set_tag(run, "by", "bench")
        client.log_batch(run, metrics=[Metric(f"m{number}", 1.0, 1, 1) for number in range(50)])
        client.log_text(run, "x" * 10_000, "notes.txt")
        with tempfile.TemporaryDirectory() as to:
            client.download_artifacts(run, "notes.txt", to)
        client.get_run(run)
        client.search_runs([experiment], max_results=10)
        client.set_terminated(run)

    experiment = client_with_credential().create_experiment("bench")
    return trip


if __name__ == "__main__":
    main()
