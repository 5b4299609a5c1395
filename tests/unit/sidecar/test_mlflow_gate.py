"""What the gate inside MLflow asks, refuses, shows and writes down, before an application that answers like a registry."""

import asyncio
import re
from typing import Any

import pytest

from pdp.errors import Reason
from sidecar.mlflow.meanings import MEANINGS, meaning_of
from sidecar.routes import Scope
from sidecar.routes.mlflow import ROWS
from tests.support.mlflow_fake import MODEL, OTHER_RUN, RUN, Bench, Tracking

API, FILES = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"
DEV = {"environment": "dev"}
FRAUD = {
    "model/fraud": DEV,
    "model/fraud@1": {**DEV, "approvals": ["user:ana", "user:eve"], "artifacts": [f"{RUN}/model"]},
}


def ask(bench: Bench, *words: Any, **more: Any) -> tuple[int, dict[str, Any]]:
    return asyncio.run(bench.ask(*words, **more))


def test_every_row_that_is_no_deliberate_deny_has_a_meaning_and_no_meaning_is_without_a_row() -> None:
    looked_up = [row for row in ROWS if row.scope is Scope.LOOKED_UP]
    assert {meaning_of(row) for row in looked_up}
    assert {row.name.partition(".")[2] for row in looked_up} == set(MEANINGS)


@pytest.mark.parametrize(
    ("method", "target", "body", "asked"),
    [
        ("GET", f"{API}/experiments/get?experiment_id=1", None, ["experiment.read experiment/mlflow/1"]),
        ("POST", f"{API}/runs/create", {"experiment_id": "1"}, ["run.create run/mlflow/1"]),
        ("GET", f"{API}/runs/get?run_id={RUN}", None, ["run.read run/mlflow/1"]),
        ("POST", f"{API}/runs/log-metric", {"run_id": OTHER_RUN, "key": "a"}, ["run.log run/mlflow/2"]),
        (
            "POST",
            f"{API}/runs/log-batch",
            {"run_id": OTHER_RUN, "metrics": [{"key": "a", "model_id": MODEL}]},
            ["run.log run/mlflow/1", "run.log run/mlflow/2"],
        ),
        ("GET", f"{API}/logged-models/{MODEL}", None, ["run.read run/mlflow/1"]),
        ("DELETE", f"{API}/logged-models/{MODEL}/tags/a/b", None, ["run.log run/mlflow/1"]),
        (
            "GET",
            f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?run_id={RUN}&run_id={OTHER_RUN}&metric_key=a",
            None,
            ["run.read run/mlflow/1", "run.read run/mlflow/2"],
        ),
        ("GET", f"{FILES}/1/{RUN}/artifacts/notes.txt", None, ["artifact.read artifact/mlflow/1"]),
        (
            "GET",
            f"{FILES}/1/{RUN}/artifacts/model/weights.bin",
            None,
            ["model.download model/fraud@1", "artifact.read artifact/mlflow/1"],
        ),
        (
            "PUT",
            f"{FILES}/1/{RUN}/artifacts/model/weights.bin",
            None,
            ["model.update model/fraud@1", "artifact.write artifact/mlflow/1"],
        ),
        (
            "DELETE",
            f"{FILES}/1/{RUN}/artifacts",
            None,
            ["model.update model/fraud@1", "artifact.delete artifact/mlflow/1"],
        ),
        ("GET", f"{FILES}?path=1/{RUN}/artifacts", None, ["artifact.list artifact/mlflow/1"]),
        ("GET", f"/get-artifact?run_id={RUN}&path=a.txt", None, ["artifact.read artifact/mlflow/1"]),
        (
            "GET",
            f"/ajax-api/2.0/mlflow/logged-models/{MODEL}/artifacts/files?artifact_file_path=a",
            None,
            ["artifact.read artifact/mlflow/1"],
        ),
        ("GET", f"/api/2.0/mlflow-artifacts/presigned/1/{RUN}/artifacts/a", None, ["artifact.presign artifact/mlflow/1"]),
        ("POST", f"{API}/registered-models/create", {"name": "new"}, ["model.register model/mlflow"]),
        ("POST", f"{API}/registered-models/create", {"name": "fraud"}, ["model.register model/fraud"]),
        ("GET", f"{API}/model-versions/get-download-uri?name=fraud&version=1", None, ["model.download model/fraud@1"]),
        ("POST", f"{API}/registered-models/alias", {"name": "fraud", "version": "1", "alias": "champion"}, [
            "model.promote model/fraud@1",
        ]),
        ("POST", f"{API}/registered-models/alias", {"name": "fraud", "version": "1", "alias": "candidate"}, [
            "model.tag model/fraud@1",
        ]),
        ("POST", f"{API}/model-versions/transition-stage", {"name": "fraud", "version": "1", "stage": "Production"}, [
            "model.promote model/fraud@1",
        ]),
        ("POST", f"{API}/model-versions/transition-stage", {"name": "fraud", "version": "1", "stage": "Archived"}, [
            "model.archive model/fraud@1",
        ]),
        ("GET", "/health", None, ["workspace.read_metadata workspace/mlflow"]),
    ],
)  # fmt: skip
def test_a_request_asks_for_all_that_it_touches(method: str, target: str, body: Any, asked: list[str]) -> None:
    bench = Bench(assets=FRAUD)
    status, _ = ask(bench, method, target, body)
    assert (status, bench.policy.asked) == (200, asked)
    for question in asked:  # and each of them alone refuses it
        other = Bench(assets=FRAUD)
        other.policy.denied = {question}
        status, told = ask(other, method, target, body)
        assert (status, told["error_code"], other.app.seen) == (403, "PERMISSION_DENIED", [])


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", f"{API}/experiments/get?experiment_id=01", None),
        ("GET", f"{API}/experiments/get?experiment_id=1&experiment_id=2", None),
        ("GET", f"{API}/experiments/get?experimentId=2", None),
        ("GET", f"{API}/experiments/get?experiment_id=1&experimentId=2", None),
        ("GET", f"{API}/experiments/get", {"experiment_id": "1"}),
        ("GET", f"{API}/experiments/get?experiment_id=1", {"experiment_id": "2"}),
        ("POST", f"{API}/runs/create?experiment_id=1", {"experiment_id": "2"}),
        ("POST", f"{API}/runs/create", b'{"experiment_id":"1","experiment_id":"2"}'),
        ("POST", f"{API}/runs/create", b'{"experiment_id":"1","experimentId":"2"}'),
        ("POST", f"{API}/runs/create", b'"{\\"experiment_id\\":\\"2\\"}"'),
        ("POST", f"{API}/runs/create", {"experiment_id": 1}),
        ("POST", f"{API}/runs/create", {}),
        ("GET", f"{API}/runs/get?run_id={RUN}&run_uuid={OTHER_RUN}", None),
        ("GET", f"{API}/runs/get?run_id={RUN.upper()}", None),
        ("GET", f"{API}/runs/get?run_id={'d' * 32}", None),
        ("POST", f"{API}/runs/search", {"experiment_ids": []}),
        ("GET", f"{FILES}/2/{RUN}/artifacts/a", None),  # the run is of experiment 1
        ("GET", f"{FILES}/1/{OTHER_RUN}/artifacts/a", None),
        ("GET", f"{FILES}/1/traces/tr-1/artifacts/a", None),
        ("GET", f"{FILES}/elsewhere/a", None),
        ("GET", f"{FILES}?path=1", None),
        ("GET", f"{FILES}?path=", None),
        ("GET", f"{FILES}", None),
        ("GET", f"{FILES}?path=1/{RUN}/artifacts/../../2", None),
        ("GET", f"{FILES}?path=1/{RUN}/artifacts/%252e%252e/a", None),
        ("GET", f"/get-artifact?run_id={RUN}&path=../{OTHER_RUN}/artifacts/a", None),
        ("GET", f"/get-artifact?run_id={RUN}&path=a%5Cb", None),
        ("GET", f"/get-artifact?run_id={RUN}&path=file:%2F%2F%2Fetc%2Fpasswd", None),
        ("GET", f"{FILES}/1/{RUN}/artifacts/a/", None),
        ("GET", f"{FILES}//1/{RUN}/artifacts/a", None),
        ("HEAD", f"{FILES}/1/{RUN}/artifacts/a", None),
        ("OPTIONS", f"{API}/runs/search", None),
        ("GET", f"{API}/experiments/get/?experiment_id=1", None),
        ("GET", "/API/2.0/mlflow/experiments/get?experiment_id=1", None),
        ("POST", "/graphql", {"query": "{ mlflowGetRun }"}),
        ("GET", "/graphql", None),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact", {"a": 1}),
        ("POST", f"{API}/registered-models/rename", {"name": "fraud", "new_name": "mine"}),
        ("POST", f"{API}/registered-models/create", {"name": "mlflow"}),
        ("POST", f"{API}/registered-models/create", {"name": "a b"}),
        ("GET", f"{API}/model-versions/get?name=fraud&version=01", None),
        ("POST", f"{API}/model-versions/transition-stage", {
            "name": "fraud", "version": "1", "stage": "Staging", "archive_existing_versions": True,
        }),
        ("POST", f"{API}/registered-models/alias", {"name": "fraud", "version": "latest", "alias": "champion"}),
        ("GET", "/api/3.0/mlflow/traces/tr-1", None),
        ("POST", "/api/3.0/mlflow/gateway/secrets/create", {"name": "a"}),
        ("POST", "/v1/traces", {"a": 1}),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_or_leads_elsewhere_is_refused(method: str, target: str, body: Any) -> None:
    bench = Bench(assets=FRAUD)
    status, told = ask(bench, method, target, body)
    assert (status, bench.app.seen) == (403, [])
    assert told["error_code"] in {"PERMISSION_DENIED", "INVALID_PARAMETER_VALUE"}
    assert bench.policy.refusals  # on record


@pytest.mark.parametrize(
    "headers",
    [
        {"x-mlflow-workspace": "other"},
        {"content-encoding": "gzip"},
        {"content-type": "text/plain"},
        {"authorization": ""},
        {"authorization": "Basic YWRtaW46cGFzc3dvcmQ="},
        {"transfer-encoding": "chunked", "x_http_method": "GET"},
    ],
)
def test_a_header_that_changes_what_is_meant_or_who_asks_is_refused(headers: dict[str, str]) -> None:
    bench = Bench()
    status, _ = ask(bench, "POST", f"{API}/runs/create", {"experiment_id": "1"}, headers=headers)
    assert status in {401, 403}
    assert bench.app.seen == []


def test_an_unknown_run_looks_like_a_forbidden_one() -> None:
    bench = Bench()
    bench.policy.denied = {"run.read run/mlflow/1"}
    found = [ask(bench, "GET", f"{API}/runs/get?run_id={run}")[1] for run in (RUN, "d" * 32)]
    same = [re.sub("decision [^ ]*", "", one["message"]) for one in found]
    assert same[0] == same[1]


def test_taking_an_alias_away_needs_a_right_on_the_version_that_loses_it() -> None:
    bench = Bench(Tracking(aliases={"champion": "2"}), assets=FRAUD)
    body = {"name": "fraud", "version": "1", "alias": "champion"}
    bench.policy.denied = {"model.undeploy model/fraud@2"}
    assert ask(bench, "POST", f"{API}/registered-models/alias", body)[0] == 403
    assert ask(bench, "DELETE", f"{API}/registered-models/alias", {"name": "fraud", "alias": "champion"})[0] == 403
    assert bench.app.seen == []


def test_an_artifact_location_or_a_bucket_as_source_is_for_those_who_manage_the_server() -> None:
    bench = Bench(assets=FRAUD)
    bench.policy.denied = {"workspace.manage workspace/mlflow"}
    location = {"name": "mine", "artifact_location": f"mlflow-artifacts:/2/{OTHER_RUN}/artifacts"}
    assert ask(bench, "POST", f"{API}/experiments/create", location)[0] == 403
    for source in ("s3://secret/model", "file:///etc", "mlflow-artifacts://elsewhere/1", "mlflow-artifacts:/1/..", "x"):
        body = {"name": "fraud", "source": source}
        assert ask(bench, "POST", f"{API}/model-versions/create", body)[0] == 403, source
    assert bench.app.seen == []


def test_bytes_of_another_version_are_not_registered_under_ones_own_name() -> None:
    bench = Bench(assets=FRAUD)
    bench.policy.denied = {"model.download model/fraud@1"}
    for source in (
        f"runs:/{RUN}/model",
        f"runs:/{RUN}",
        f"mlflow-artifacts:/1/{RUN}/artifacts/model/a",
        "models:/fraud/1",
    ):
        status, _ = ask(bench, "POST", f"{API}/model-versions/create", {"name": "mine", "source": source})
        assert (status, bench.app.seen) == (403, []), source


def test_a_new_version_has_its_models_environment_its_places_and_none_of_its_numbers_old_approvals() -> None:
    made = {"name": "fraud", "version": "1", "source": f"models:/{MODEL}", "model_id": MODEL}
    bench = Bench(Tracking(answers={"model-versions/create": {"model_version": made}}), assets=FRAUD)
    assert ask(bench, "POST", f"{API}/model-versions/create", {"name": "fraud", "source": f"models:/{MODEL}"})[0] == 200
    assert bench.written[-1] == {"model/fraud@1": {"environment": "dev", "artifacts": [MODEL]}}
    bench.policy.denied = {"model.download model/fraud@1"}
    assert ask(bench, "GET", f"{FILES}/1/models/{MODEL}/artifacts/a")[0] == 403


def test_approvals_are_gone_before_a_version_is_and_without_the_pdp_it_stays() -> None:
    bench = Bench(assets=FRAUD)
    bench.reachable = False
    body = {"name": "fraud", "version": "1"}
    status, told = ask(bench, "DELETE", f"{API}/model-versions/delete", body)
    assert (status, told["error_code"], bench.app.seen) == (503, "TEMPORARILY_UNAVAILABLE", [])
    bench.reachable = True
    assert ask(bench, "DELETE", f"{API}/model-versions/delete", body)[0] == 200
    assert bench.written == [{"model/fraud@1": {"environment": "dev", "stage": "deleted"}}]


def test_an_alias_is_a_fact_of_the_version_it_names() -> None:
    assets = {"model/fraud@1": {**DEV, "aliases": ["champion"]}, "model/fraud@2": DEV}
    bench = Bench(Tracking(aliases={"champion": "1"}), assets=assets)
    body = {"name": "fraud", "version": "2", "alias": "champion"}
    assert ask(bench, "POST", f"{API}/registered-models/alias", body)[0] == 200
    assert bench.written == [
        {"model/fraud@1": {**DEV, "aliases": []}, "model/fraud@2": {**DEV, "aliases": ["champion"]}}
    ]


def test_the_registry_is_compared_before_the_first_bytes_go_out() -> None:
    old = {"name": "fraud", "version": "2", "source": f"runs:/{RUN}/model", "run_id": RUN}
    strange = {"name": "a b", "version": "1", "source": f"runs:/{RUN}/odd"}
    bench = Bench(Tracking(versions=[old, strange]), assets={"model/fraud@2": DEV})
    bench.policy.denied = {"model.download model/fraud@2"}
    assert ask(bench, "GET", f"{FILES}/1/{RUN}/artifacts/model/a")[0] == 403
    assert bench.written == [{"model/fraud@2": {**DEV, "artifacts": [f"{RUN}/model"], "aliases": []}}]
    assert ask(bench, "GET", f"{FILES}/1/{RUN}/artifacts/odd/a")[0] == 403  # no name of ours: nobody was granted it


def test_what_the_pdp_could_not_take_in_forbids_at_once() -> None:
    made = {"name": "fraud", "version": "2", "source": f"runs:/{RUN}/model"}
    bench = Bench(Tracking(answers={"model-versions/create": {"model_version": made}}), assets={"model/fraud": DEV})

    async def story() -> int:
        bench.reachable = False
        status, _ = await bench.ask("POST", f"{API}/model-versions/create", {"name": "fraud", "source": made["source"]})
        assert status == 200
        bench.policy.denied = {"model.download model/fraud@2"}
        return (await bench.ask("GET", f"{FILES}/1/{RUN}/artifacts/model/a"))[0]

    assert asyncio.run(story()) == 403


def test_pages_are_full_of_what_may_be_seen_and_their_tokens_reach_the_end() -> None:
    names = [f"n{number}" for number in range(250)]
    bench = Bench(Tracking(models=names))
    bench.policy.denied = {f"model.list model/{name}" for name in names if int(name[1:]) % 5}
    seen, token, pages = [], "", []
    while True:
        more = f"&page_token={token}" if token else ""
        status, told = ask(bench, "GET", f"{API}/registered-models/search?max_results=7{more}")
        assert status == 200
        pages.append(len(told["registered_models"]))
        seen += [one["name"] for one in told["registered_models"]]
        token = told.get("next_page_token", "")
        if not token:
            break
    assert seen == [name for name in names if not int(name[1:]) % 5]
    assert pages == [7, 7, 7, 7, 7, 7, 7, 1]


@pytest.mark.parametrize("token", ["x", "W10", "WyIiLCA1LCA0XQ==", "WyIiLCAwLCAxMDAwMDAwXQ==", "WzEsIDAsIDVd"])
def test_a_token_that_is_none_of_ours_is_refused(token: str) -> None:
    assert ask(Bench(), "GET", f"{API}/registered-models/search?max_results=7&page_token={token}")[0] == 403


def test_a_list_of_which_something_is_undecided_is_refused_rather_than_short() -> None:
    bench = Bench()
    bench.policy.reason = Reason.WORLD_STALE
    assert ask(bench, "GET", f"{API}/registered-models/search?max_results=7")[0] == 503


def test_a_search_over_experiments_is_narrowed_to_those_that_are_granted() -> None:
    bench = Bench()
    bench.policy.denied = {"run.list run/mlflow/2"}
    assert ask(bench, "POST", f"{API}/runs/search", {"experiment_ids": ["1", "2"], "filter": "a"})[0] == 200
    assert bench.app.seen[-1][2] == b'{"experiment_ids": ["1"], "filter": "a"}'
    assert ask(bench, "POST", f"{API}/runs/search", {"experiment_ids": ["2"]})[0] == 403


def test_an_answer_that_names_its_object_is_decided_before_it_goes_out() -> None:
    told = {"experiment": {"experiment_id": "2", "name": "secret"}}
    bench = Bench(Tracking(answers={"experiments/get-by-name": told}, aliases={"champion": "2"}), assets=FRAUD)
    bench.policy.denied = {"experiment.read experiment/mlflow/2", "model.read_metadata model/fraud@2"}
    status, seen = ask(bench, "GET", f"{API}/experiments/get-by-name?experiment_name=secret")
    assert status == 403
    assert "experiment" not in seen
    assert ask(bench, "GET", f"{API}/registered-models/alias?name=fraud&alias=champion")[0] == 403


def test_versions_inside_an_answer_are_shown_only_where_they_may_be_seen() -> None:
    versions = [{"name": "fraud", "version": "1"}, {"name": "fraud", "version": "2"}]
    told = {"registered_model": {"name": "fraud", "latest_versions": versions}}
    bench = Bench(Tracking(answers={"registered-models/get": told}))
    bench.policy.denied = {"model.read_metadata model/fraud@2"}
    _, seen = ask(bench, "GET", f"{API}/registered-models/get?name=fraud")
    assert seen["registered_model"]["latest_versions"] == versions[:1]


def test_an_answer_of_another_shape_is_withheld() -> None:
    bench = Bench(Tracking(answers={"experiments/get-by-name": {"experiment": 7}}))
    assert ask(bench, "GET", f"{API}/experiments/get-by-name?experiment_name=x")[0] == 503


def test_deleting_a_model_needs_the_right_on_each_of_its_versions() -> None:
    versions = [{"name": "fraud", "version": one, "source": ""} for one in ("1", "2")]
    bench = Bench(Tracking(versions=versions), assets=FRAUD)
    bench.policy.denied = {"model.delete model/fraud@2"}
    assert ask(bench, "DELETE", f"{API}/registered-models/delete", {"name": "fraud"})[0] == 403
    assert (bench.app.seen, bench.written) == ([], [])
