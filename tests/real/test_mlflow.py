"""MLflow's own client with our plug-ins, against a real MLflow server: token, purpose, and the gate in front of models."""

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.real_server,
    pytest.mark.timeout(180),
    # MLflow's own: connections that it leaves to the garbage collector, and what it still uses of others.
    pytest.mark.filterwarnings("default"),
]
pytest.importorskip("mlflow.server", reason="needs the environment of `make test-real`")

import mlflow  # noqa: E402 - after the skip
from mlflow import MlflowClient  # noqa: E402

from pdp.errors import ConfigError  # noqa: E402
from pdp.sdk import AccessDenied  # noqa: E402
from pdp.sdk.mlflow_plugin import asking  # noqa: E402
from tests.support.mlflow_server import mlflow_server  # noqa: E402
from tests.support.pages import SDK_PAGE, blocks  # noqa: E402
from tests.support.pdp import BOB  # noqa: E402
from tests.support.pdp_thread import threaded_pdp  # noqa: E402

ASSETS = """
model/fraud@1: {environment: dev}
model/fraud@2: {environment: prod}
"""


class Front(ThreadingHTTPServer):
    """Passes everything on to the tracking server, and remembers the headers: what a gate there would see."""

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Pass)
        self.upstream = upstream
        self.seen: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Pass(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def _pass(self) -> None:
        server: Any = self.server
        server.seen.append({name.lower(): value for name, value in self.headers.items()})
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        upstream = http.client.HTTPConnection(server.upstream, timeout=30)
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        answer = upstream.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        upstream.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815 - the library's names


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Run `mlflow server`, and the front before it."""
    directory = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(directory) as port:
        server = Front(f"127.0.0.1:{port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        server.server_close()


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "token"
    file.write_text("a.b.c")
    monkeypatch.setenv("PDP_TOKEN_FILE", str(file))
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "pdp")
    for name in ("PDP_SERVER", "PDP_PURPOSE", "PDP_TICKET"):
        monkeypatch.delenv(name, raising=False)
    return file


@pytest.fixture
def client(front: Front, token: Path) -> MlflowClient:  # noqa: ARG001 - its environment
    mlflow.set_tracking_uri(front.url)
    front.seen.clear()
    return MlflowClient(front.url)


@pytest.fixture(scope="module")
def models(front: Front) -> list[str]:
    """Register two versions of a model, once, before anybody is asked."""
    client = MlflowClient(front.url)
    mlflow.set_tracking_uri(front.url)
    client.create_registered_model("fraud")
    found = []
    for _ in range(2):
        with mlflow.start_run() as run:
            mlflow.log_text("weights", "model/weights.txt")
        source = f"{run.info.artifact_uri}/model"
        found.append(client.create_model_version("fraud", source, run.info.run_id).version)
    client.set_registered_model_alias("fraud", "champion", "1")
    client.set_registered_model_alias("fraud", "next", "2")
    return [str(version) for version in found]


def test_each_request_carries_the_token_of_now(client: MlflowClient, front: Front, token: Path) -> None:
    client.search_experiments()
    token.write_text("x.y.z")
    client.search_experiments()
    assert [seen["authorization"] for seen in front.seen] == ["Bearer a.b.c", "Bearer x.y.z"]


def test_a_token_is_never_sent_in_the_clear_to_another_machine(token: Path) -> None:  # noqa: ARG001 - its environment
    with pytest.raises(mlflow.MlflowException, match="not sent in the clear"):
        MlflowClient("http://tracking.invalid:5000").search_experiments()


def test_requests_say_what_they_are_for(client: MlflowClient, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    client.search_experiments()
    assert not [name for name in front.seen[-1] if name.startswith("pdp-ask")]
    monkeypatch.setenv("PDP_TICKET", "OPS-7")
    with asking(purpose="training"):
        client.search_experiments()
    assert front.seen[-1]["pdp-ask-purpose"] == "training"
    assert front.seen[-1]["pdp-ask-ticket"] == "OPS-7"
    with asking(purpose="audit"), mlflow.start_run() as run:
        mlflow.log_param("a", 1)
        assert front.seen[-1]["pdp-ask-run"] == run.info.run_id
    client.search_experiments()
    assert "pdp-ask-purpose" not in front.seen[-1]


@pytest.mark.parametrize("purpose", ["a\r\nx-evil: 1", "ä", " x", "x" * 257])
def test_a_purpose_that_no_header_can_carry_is_refused(purpose: str) -> None:
    with pytest.raises(ConfigError), asking(purpose=purpose):
        pytest.fail("entered")


@pytest.mark.usefixtures("client")
def test_without_a_pdp_models_are_mlflows_alone(models: list[str], tmp_path: Path) -> None:
    got = mlflow.artifacts.download_artifacts(f"models:/fraud/{models[1]}", dst_path=str(tmp_path))
    assert Path(got, "weights.txt").read_text() == "weights"


@pytest.mark.usefixtures("client")
def test_a_model_is_downloaded_only_if_granted(
    models: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with threaded_pdp(tmp_path / "pdp", assets=ASSETS) as pdp:
        (tmp_path / "token").write_text(pdp.token(BOB))
        monkeypatch.setenv("PDP_SERVER", pdp.server)
        monkeypatch.setattr("pdp.sdk.mlflow_plugin._OWN", {})
        monkeypatch.delenv("MLFLOW_TRACKING_AUTH")
        for uri in (f"models:/fraud/{models[0]}", "models:/fraud@champion"):
            (tmp_path / "got").mkdir(exist_ok=True)
            got = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "got"))
            assert Path(got, "weights.txt").read_text() == "weights"
        for uri in (f"models:/fraud/{models[1]}", "models:/fraud@next", "models:/fraud/latest"):
            (tmp_path / "none").mkdir(exist_ok=True)
            with pytest.raises(AccessDenied, match="model/fraud@2"):
                mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "none"))
            assert not list((tmp_path / "none").iterdir())
            with pytest.raises(AccessDenied):
                mlflow.artifacts.list_artifacts(artifact_uri=uri)


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_a_logged_model_without_a_name_is_decided_by_its_experiment(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    model = client.create_logged_model("0", name="nameless")
    (tmp_path / "weights.txt").write_text("weights")
    client.log_model_artifact(model.model_id, str(tmp_path / "weights.txt"))
    client.finalize_logged_model(model.model_id, "READY")
    with threaded_pdp(tmp_path / "pdp", assets=f"artifact/mlflow/0: {{environment: {environment}}}") as pdp:
        (tmp_path / "token").write_text(pdp.token(BOB))
        monkeypatch.setenv("PDP_SERVER", pdp.server)
        monkeypatch.setattr("pdp.sdk.mlflow_plugin._OWN", {})  # a process knows one PDP; this one is the second
        monkeypatch.delenv("MLFLOW_TRACKING_AUTH")
        (tmp_path / "to").mkdir()

        def download() -> str:
            return str(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}", dst_path=str(tmp_path / "to")))

        if environment == "dev":
            assert Path(download(), "weights.txt").read_text() == "weights"
        else:
            with pytest.raises(AccessDenied, match="artifact/mlflow/0"):
                download()


@pytest.mark.usefixtures("client", "models")
def test_the_block_of_the_page_runs(tmp_path: Path, front: Front) -> None:
    for block in blocks(SDK_PAGE):
        if block.needs == "mlflow":
            block.run({"directory": str(tmp_path)})
    assert list(tmp_path.rglob("weights.txt"))
    assert front.seen[-1]["pdp-ask-ticket"] == "OPS-7"
