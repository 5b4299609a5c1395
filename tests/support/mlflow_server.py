"""A real `mlflow server --app-name pdp` beside a real PDP, each on a free port."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.pdp import ADA, BOB, GATE
from tests.support.pdp_thread import ThreadedPdp, threaded_pdp

RITA = "rita@demo.portcullis"
"""A release manager."""
ROWS = f"""
g, user:{BOB}, role:data-scientist, dev
g, user:{BOB}, role:member, prod
g, user:{RITA}, role:release-manager, *
g, user:{GATE}, role:enforcement-point, prod
g, user:{GATE}, role:registrar, prod
g, user:{ADA}, role:operator, prod
p, role:release-manager, workspace.read_metadata, workspace/**, *, , , allow
p, role:release-manager, experiment.list|read, experiment/**, *, , , allow
p, role:release-manager, run.list|read, run/**, *, , , allow
p2, segment:none, *, segment:none, , allow
"""
ASSETS = """
workspace/mlflow: {environment: dev}
experiment/mlflow: {environment: dev}
model/mlflow: {environment: dev}
experiment/mlflow/0: {environment: prod}
run/mlflow/0: {environment: prod}
artifact/mlflow/0: {environment: prod}
"""
ROUTES = """
server: workspace/mlflow
protocols: [mlflow]
mlflow:
  new: {environment: dev}
  plain_aliases: [candidate]
"""


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """The server, the PDP behind it, and where both keep what they have."""

    url: str
    port: int
    pdp: ThreadedPdp
    directory: Path

    def token(self, who: str) -> str:
        return self.pdp.token(who)


@contextmanager
def guarded_mlflow(directory: Path, *, workers: int = 2) -> Iterator[Guarded]:
    """Run both until the block ends."""
    with threaded_pdp(directory / "pdp", rows=ROWS, assets=ASSETS) as pdp:
        (directory / "routes.yaml").write_text(ROUTES)
        (directory / "gate.jwt").write_text(pdp.token(GATE))
        (directory / "sidecar.yaml").write_text(
            f"pdp: {{address: '{pdp.server}', root_digest: '{pdp.root_digest}', token_file: gate.jwt, plaintext: true}}\n"
            f"trust: {pdp.trust}\nroutes: routes.yaml\nstate_dir: state\n"
        )
        environment = {"PDP_SIDECAR_CONFIG": str(directory / "sidecar.yaml")}
        with mlflow_server(directory, "--app-name", "pdp", workers=workers, environment=environment) as port:
            yield Guarded(url=f"http://127.0.0.1:{port}", port=port, pdp=pdp, directory=directory)


@contextmanager
def mlflow_server(
    directory: Path, *options: str, workers: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run `mlflow server` until the block ends; it listens when it yields its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--workers", str(workers), "--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    words += ["--artifacts-destination", str(directory / "artifacts"), *options]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PDP_", "MLFLOW_"))}
    clean |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | dict(environment or {})
    log = directory / "mlflow.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(words, cwd=directory, env=clean, stdout=out, stderr=out, start_new_session=True) as process,
    ):
        try:
            _until_it_answers(port, process, log)
            yield port
        finally:
            os.killpg(process.pid, 15)


def _until_it_answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                connection.request("GET", "/health")
                if connection.getresponse().status in {200, 401}:
                    return
        except OSError:
            pass
        threading.Event().wait(0.2)
    pytest.fail(log.read_text())
