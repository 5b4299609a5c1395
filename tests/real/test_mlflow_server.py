"""A real `mlflow server --app-name pdp` with two workers, beside a real PDP: every route, MLflow's own client, and attackers."""

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
from mlflow.exceptions import MlflowException  # noqa: E402
from requests.exceptions import HTTPError  # noqa: E402

from sidecar.routes.assembly import assemble  # noqa: E402
from tests.support.mlflow_server import Guarded, guarded_mlflow  # noqa: E402
from tests.support.pdp import BOB, EVE  # noqa: E402

RITA = "rita@demo.portcullis"
TABLE = assemble(served={}, server="workspace/mlflow", protocols=("mlflow",))
REFUSED = (MlflowException, HTTPError)
# The last is what the client makes of a directory that it may not list.
SAID = "PERMISSION_DENIED|403|Failed to download artifacts"
API, FILES = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"

# Asks the application itself, in a process of its own: importing it changes the process.
_ROUTES = """
import json
from mlflow.server import app as flask
from mlflow.server.fastapi_app import app

def routes(found, prefix=""):
    for one in found:
        if hasattr(one, "original_router"):
            yield from routes(one.original_router.routes, prefix + one.include_context.prefix)
        elif getattr(one, "methods", None):
            yield from ((method, prefix + one.path) for method in one.methods)
        else:
            assert type(one).__name__ == "Mount" and one.path == "", one

told = [*routes(app.routes), *((method, rule.rule) for rule in flask.url_map.iter_rules() for method in rule.methods)]
print(json.dumps(sorted(set(told))))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_mlflow(tmp_path_factory.mktemp("mlflow")) as found:
        yield found


@pytest.fixture
def acting(server: Guarded, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes MLflow's client act for somebody."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_AUTH", raising=False)
    mlflow.set_tracking_uri(server.url)

    @contextmanager
    def act(who: str) -> Iterator[MlflowClient]:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", server.token(who))
        yield MlflowClient(server.url)

    return act


@pytest.fixture(scope="module")
def routes() -> list[tuple[str, str]]:
    told = json.loads(subprocess.check_output([sys.executable, "-W", "ignore", "-c", _ROUTES], text=True))
    found = [(method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)) for method, path in told]
    assert len(found) > 600  # or nothing was enumerated
    return found


def raw(server: Guarded, method: str, target: str, **headers: str) -> tuple[int, bytes]:
    """Send one request as it is written, and read the answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.putrequest(method, target, skip_host=True)
        for name, value in {"host": f"127.0.0.1:{server.port}", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()


def _run(client: MlflowClient, experiment: str, text: str = "weights") -> str:
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "depth", 3)
    client.log_batch(run, metrics=[mlflow.entities.Metric("loss", 0.5, 1, 1)])
    client.log_text(run, text, "model/weights.txt")
    return str(run)


def _version(
    server: Guarded, client: MlflowClient, name: str, experiment: str, text: str = "weights"
) -> tuple[str, str]:
    """Make a run and a version of it; return its number and the run."""
    run = _run(client, experiment, text)
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    assert server.url
    return str(client.create_model_version(name, f"runs:/{run}/model", run).version), run


# -- every route -----------------------------------------------------------------------------------------------------


def test_every_route_of_the_real_server_has_a_row(routes: list[tuple[str, str]]) -> None:
    # HEAD and OPTIONS are what Flask adds to a rule by itself: they have no row, so they are denied.
    missing = [one for one in routes if one[0] not in {"HEAD", "OPTIONS"} and not TABLE.knows(*one)]
    assert missing == []


def test_no_route_answers_without_a_credential(server: Guarded, routes: list[tuple[str, str]]) -> None:
    opened = []
    for method, template in routes:
        path = re.sub(r"\{[^}]*\}", "x", template)
        status, _ = raw(server, method, path)
        if status not in {401, 403}:
            opened.append((method, path, status))
    assert opened == []


# -- with MLflow's own client ----------------------------------------------------------------------------------------


def test_log_register_alias_download_and_search_where_it_is_granted(
    server: Guarded, acting: Any, tmp_path: Path
) -> None:
    with acting(BOB) as client:
        experiment = client.create_experiment("granted")
        version, run = _version(server, client, "granted", experiment)
        assert client.get_run(run).data.params == {"depth": "3"}
        client.set_registered_model_alias("granted", "candidate", version)
        assert client.get_model_version_by_alias("granted", "candidate").version == version
        for uri in (f"models:/granted/{version}", "models:/granted@candidate", f"runs:/{run}/model"):
            (tmp_path / "to").mkdir(exist_ok=True)
            got = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "to"))
            assert Path(got, "weights.txt").read_text() == "weights"
        assert [one.info.run_id for one in client.search_runs([experiment])] == [run]
        assert "granted" in [one.name for one in client.search_experiments()]
        assert [one.version for one in client.search_model_versions("name='granted'")] == [version]
    with server.pdp.admin() as admin:
        facts = admin.asset(f"model/granted@{version}").attributes
        owner = admin.asset(f"experiment/mlflow/{experiment}").attributes["owner"]
    assert (facts["aliases"], facts["artifacts"]) == (("candidate",), (f"{run}/model",))
    assert owner == f"user:{BOB}"
    assert any(b"run.create" in record and b"asgi" in record for record in server.pdp.records())


def test_a_whole_model_is_logged_registered_and_loaded(server: Guarded, acting: Any) -> None:
    class Twice(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
        def predict(self, context: Any, model_input: list[int]) -> list[int]:
            del context
            return [2 * one for one in model_input]

    with acting(BOB):
        mlflow.set_experiment("whole")
        with mlflow.start_run():
            mlflow.pyfunc.log_model(
                name="twice", python_model=Twice(), registered_model_name="twice", pip_requirements=[]
            )
        assert mlflow.pyfunc.load_model("models:/twice/1").predict([1, 2]) == [2, 4]
    with server.pdp.admin() as admin:
        assert any(one.startswith("m-") for one in admin.asset("model/twice@1").attributes["artifacts"])
        admin.register("model/twice@1", {"environment": "prod", **_places(server, "model/twice@1")})
    with acting(BOB), pytest.raises(REFUSED, match=SAID):
        mlflow.pyfunc.load_model("models:/twice/1")


def _places(server: Guarded, name: str) -> dict[str, Any]:
    with server.pdp.admin() as admin:
        return {"artifacts": list(admin.asset(name).attributes["artifacts"])}


def test_nobody_else_logs_registers_sets_an_alias_downloads_or_sees_it(
    server: Guarded, acting: Any, tmp_path: Path
) -> None:
    with acting(BOB) as client:
        experiment = client.create_experiment("private")
        version, run = _version(server, client, "private", experiment)
    refused = {
        "log": lambda client: client.log_metric(run, "loss", 1.0),
        "read": lambda client: client.get_run(run),
        "artifact": lambda client: client.download_artifacts(run, "model/weights.txt", str(tmp_path)),
        "upload": lambda client: client.log_text(run, "other", "model/weights.txt"),
        "create": lambda client: client.create_experiment("mine"),
        "register": lambda client: client.create_registered_model("mine"),
        "version": lambda client: client.create_model_version("private", f"runs:/{run}/model", run),
        "alias": lambda client: client.set_registered_model_alias("private", "champion", version),
        "stage": lambda client: client.transition_model_version_stage("private", version, "Production"),
        "delete": lambda client: client.delete_registered_model("private"),
        "download": lambda _: mlflow.artifacts.download_artifacts(f"models:/private/{version}", dst_path=str(tmp_path)),
        "search": lambda client: client.search_runs([experiment]),
    }
    with acting(EVE) as client:
        for attempt in refused.values():
            with pytest.raises(REFUSED, match=SAID):
                attempt(client)
        assert not list(tmp_path.iterdir())
        assert client.search_experiments() == []
        assert client.search_registered_models() == []
        assert client.search_model_versions("name='private'") == []


def test_a_promotion_needs_what_the_policy_says(server: Guarded, acting: Any) -> None:
    with acting(BOB) as client:
        version, run = _version(server, client, "promoted", client.create_experiment("promoted"))
        with pytest.raises(MlflowException, match=r"PERMISSION_DENIED: `model.promote`: access is denied"):
            client.set_registered_model_alias("promoted", "champion", version)
    name, held = f"model/promoted@{version}", {"environment": "prod", "artifacts": [f"{run}/model"]}
    approved = {"signature_verified": True, "approvals": ["user:ana", "user:eve"]}
    for more in ({}, {"signature_verified": True, "approvals": ["user:ana"]}):
        with server.pdp.admin() as admin:
            admin.register(name, {**held, **more})
        with acting(RITA) as client:
            for attempt in (
                lambda client: client.set_registered_model_alias("promoted", "champion", version),
                lambda client: client.transition_model_version_stage("promoted", version, "Production"),
            ):
                with pytest.raises(MlflowException, match="PERMISSION_DENIED"):
                    attempt(client)
    with server.pdp.admin() as admin:
        admin.register(name, {**held, **approved})
    with acting(RITA) as client:
        client.set_registered_model_alias("promoted", "champion", version)
    with server.pdp.admin() as admin:
        facts = admin.asset(name).attributes
    assert (facts["aliases"], facts["approvals"]) == (("champion",), ("user:ana", "user:eve"))


def test_a_version_in_prod_is_not_reached_by_where_its_bytes_lie(server: Guarded, acting: Any, tmp_path: Path) -> None:
    with acting(BOB) as client:
        experiment = client.create_experiment("bytes")
        version, run = _version(server, client, "bytes", experiment, "secret")
        with server.pdp.admin() as admin:
            admin.register(f"model/bytes@{version}", {"environment": "prod", "artifacts": [f"{run}/model"]})
        client.log_text(run, "mine", "notes.txt")  # beside the version, his own as before
        for way in (
            lambda: mlflow.artifacts.download_artifacts(f"runs:/{run}/model", dst_path=str(tmp_path)),
            lambda: mlflow.artifacts.download_artifacts(
                f"mlflow-artifacts:/{experiment}/{run}/artifacts/model", dst_path=str(tmp_path)
            ),
            lambda: client.download_artifacts(run, "model/weights.txt", str(tmp_path)),
            lambda: client.log_text(run, "poisoned", "model/weights.txt"),
            lambda: client.create_model_version("bytes", f"runs:/{run}/model", run),
            lambda: client.create_experiment("thief", artifact_location=f"mlflow-artifacts:/{experiment}/{run}"),
        ):
            with pytest.raises(REFUSED, match=SAID):
                way()
        assert not list(tmp_path.rglob("weights.txt"))
    token = f"Bearer {server.token(BOB)}"
    for target in (
        f"/get-artifact?run_id={run}&path=model/weights.txt",
        f"/model-versions/get-artifact?name=bytes&version={version}&path=weights.txt",
        f"{FILES}/{experiment}/{run}/artifacts/model/weights.txt",
        f"/ajax-api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/model/weights.txt",
    ):
        status, body = raw(server, "GET", target, authorization=token)
        assert (status, b"secret" in body) == (403, False), target


def test_pages_are_full_and_reach_the_end(server: Guarded, acting: Any) -> None:
    with acting(BOB) as client:
        for number in range(24):
            client.create_registered_model(f"page-{number:02}")
        with server.pdp.admin() as admin:
            admin.register_all({f"model/page-{number:02}": {"environment": "prod"} for number in range(0, 24, 2)})
        found, token, sizes = [], None, []
        while True:
            page = client.search_registered_models("name LIKE 'page-%'", max_results=5, page_token=token)
            found += [one.name for one in page]
            sizes.append(len(page))
            token = page.token
            if not token:
                break
    assert found == [f"page-{number:02}" for number in range(1, 24, 2)]
    assert sizes == [5, 5, 2]


# -- attackers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(server: Guarded) -> str:
    """Return where a file of Bob's lies, below the artifact root."""
    token = {"Authorization": f"Bearer {server.token(BOB)}", "Content-Type": "application/json"}

    def post(path: str, body: Any) -> Any:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
            connection.request("POST", f"{API}/{path}", json.dumps(body), token)
            return json.loads(connection.getresponse().read())

    experiment = post("experiments/create", {"name": "attacked"})["experiment_id"]
    run = post("runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"]
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("PUT", f"{FILES}/{experiment}/{run}/artifacts/a.txt", b"mine", token)
        assert connection.getresponse().status == 200
    return f"{experiment}/{run}/artifacts"


def test_his_own_file_is_his(server: Guarded, place: str) -> None:
    status, body = raw(server, "GET", f"{FILES}/{place}/a.txt", authorization=f"Bearer {server.token(BOB)}")
    assert (status, body) == (200, b"mine")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", FILES + "/{place}/../artifacts/a.txt"),
        ("GET", FILES + "/{place}/%2e%2e/artifacts/a.txt"),
        ("GET", FILES + "/{place}/x%2f..%2fa.txt"),
        ("GET", FILES + "/{place}%2fa.txt"),
        ("GET", FILES + "//{place}/a.txt"),
        ("GET", FILES + "/{place}/a.txt/"),
        ("GET", FILES + "/{place}/a.txt;x"),
        ("GET", FILES + "/{place}/a.txt%00"),
        ("GET", FILES + "/{place}/%c0%ae%c0%ae/a.txt"),
        ("GET", FILES + "/{place}/..%5ca.txt"),
        ("GET", FILES + "/0/{place}/a.txt"),
        ("GET", FILES + "/{place}/%252e%252e/a.txt"),
        ("GET", "/x/..{files}/{place}/a.txt"),
        ("GET", "/API/2.0/mlflow-artifacts/artifacts/{place}/a.txt"),
        ("HEAD", FILES + "/{place}/a.txt"),
        ("OPTIONS", FILES + "/{place}/a.txt"),
        ("TRACE", FILES + "/{place}/a.txt"),
        ("POST", FILES + "/{place}/a.txt"),
        ("GET", FILES + "?path={place}/.."),
        ("GET", FILES + "?path={place}&path=0"),
        ("GET", FILES + "?path=."),
        ("GET", API + "/experiments/search/"),
        ("GET", "/graphql?query=%7B__typename%7D"),
        ("POST", "/graphql"),
    ],
)
def test_no_second_spelling_gets_through(server: Guarded, place: str, method: str, target: str) -> None:
    token = f"Bearer {server.token(BOB)}"
    status, body = raw(server, method, target.format(place=place, files=FILES), authorization=token)
    assert (status in {400, 403, 404, 405}, b"mine" in body) == (True, False), status


@pytest.mark.parametrize(
    "headers",
    [
        {"x_http_method_override": "DELETE"},
        {"x_original_url": "/health"},
        {"x_forwarded_prefix": "/api"},
        {"x_pdp_subject": f"user:{RITA}"},
        {"x_envoy_auth_failure_mode_allowed": "true"},
        {"pdp_ask_purpose": "audit"},
    ],
)
def test_no_header_makes_another_request_or_another_person_of_it(
    server: Guarded, place: str, headers: dict[str, str]
) -> None:
    status, _ = raw(server, "GET", f"{FILES}/{place}/a.txt", authorization=f"Bearer {server.token(EVE)}", **headers)
    assert status == 403
    status, body = raw(server, "GET", f"{FILES}/{place}/a.txt", authorization=f"Bearer {server.token(BOB)}", **headers)
    assert status == 403 or (status, body) == (200, b"mine")


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer a.b.c", "Basic YWRtaW46cGFzc3dvcmQxMjM0"])
def test_a_credential_of_another_kind_is_none(server: Guarded, authorization: str) -> None:
    status, body = raw(server, "GET", f"{API}/experiments/search?max_results=5", authorization=authorization)
    assert status == 401
    assert json.loads(body)["error_code"] == "UNAUTHENTICATED"
