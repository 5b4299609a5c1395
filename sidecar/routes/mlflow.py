"""MLflow's tracking server: tracking and registry REST under `/api` and, for its pages, `/ajax-api`; artifacts; static files.

What a request is about stands in its query or body, and often as an id (a run, a logged model) of which only the server knows
where it belongs. So these rows are decided inside the server (`mlflow server --app-name pdp`), where the same middleware can
ask it; `sidecar.mlflow.meanings` says of each row what it asks, by its name. Whole families are deliberate denies: what they
reach is not in the inventory (traces, prompts' optimisation, jobs), or goes around every other row (GraphQL).

Source: ENFORCEMENT.md 3.3; MLflow 3.17's handlers and routers.
"""

from collections.abc import Iterator
from typing import Final

from sidecar.routes import Body, Dialect, Placement, Row, Scope

TWINS: Final = ("/api", "/ajax-api")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def _row(name: str, method: str, path: str, action: str, scope: Scope = Scope.LOOKED_UP) -> Row:
    return Row(
        name=name,
        method=method,
        path=path,
        action=action,
        scope=scope,
        placement=Placement.ASGI,
        body=Body.UNREAD if method in {"GET", "HEAD"} or scope is Scope.NEVER or ".artifacts." in name else Body.JSON,
        dialect=Dialect.MLFLOW,
        query=method == "GET",
    )


def _twins(name: str, method: str, path: str, action: str) -> Iterator[Row]:
    for prefix, twin in zip(("mlflow", "mlflow_ajax"), TWINS, strict=True):
        yield _row(f"{prefix}.{name}", method, f"{twin}/2.0/{path}", action)


_TRACKING: Final = (
    ("experiments.create", "POST", "experiments/create", "experiment.create"),
    ("experiments.search", "POST", "experiments/search", "experiment.list"),
    ("experiments.search_get", "GET", "experiments/search", "experiment.list"),
    ("experiments.get", "GET", "experiments/get", "experiment.read"),
    ("experiments.get_by_name", "GET", "experiments/get-by-name", "experiment.read"),
    ("experiments.delete", "POST", "experiments/delete", "experiment.delete"),
    ("experiments.restore", "POST", "experiments/restore", "experiment.update"),
    ("experiments.update", "POST", "experiments/update", "experiment.update"),
    ("experiments.set_tag", "POST", "experiments/set-experiment-tag", "experiment.update"),
    ("experiments.delete_tag", "POST", "experiments/delete-experiment-tag", "experiment.update"),
    ("runs.create", "POST", "runs/create", "run.create"),
    ("runs.search", "POST", "runs/search", "run.list"),
    ("runs.get", "GET", "runs/get", "run.read"),
    ("runs.update", "POST", "runs/update", "run.update"),
    ("runs.delete", "POST", "runs/delete", "run.delete"),
    ("runs.restore", "POST", "runs/restore", "run.update"),
    ("runs.set_tag", "POST", "runs/set-tag", "run.log"),
    ("runs.delete_tag", "POST", "runs/delete-tag", "run.log"),
    ("runs.log_metric", "POST", "runs/log-metric", "run.log"),
    ("runs.log_parameter", "POST", "runs/log-parameter", "run.log"),
    ("runs.log_batch", "POST", "runs/log-batch", "run.log"),
    ("runs.log_model", "POST", "runs/log-model", "run.log"),
    ("runs.log_inputs", "POST", "runs/log-inputs", "run.log"),
    ("runs.outputs", "POST", "runs/outputs", "run.log"),
    ("runs.metric_history", "GET", "metrics/get-history", "run.read"),
    ("runs.metric_history_interval", "GET", "metrics/get-history-bulk-interval", "run.read"),
    ("logged.create", "POST", "logged-models", "run.log"),
    ("logged.search", "POST", "logged-models/search", "run.list"),
    ("logged.get", "GET", "logged-models/{m}", "run.read"),
    ("logged.finalize", "PATCH", "logged-models/{m}", "run.log"),
    ("logged.delete", "DELETE", "logged-models/{m}", "run.delete"),
    ("logged.params", "POST", "logged-models/{m}/params", "run.log"),
    ("logged.set_tags", "PATCH", "logged-models/{m}/tags", "run.log"),
    ("logged.delete_tag", "DELETE", "logged-models/{m}/tags/{rest}", "run.log"),
    ("logged.artifacts", "GET", "logged-models/{m}/artifacts/directories", "artifact.list"),
    ("runs.artifacts_list", "GET", "artifacts/list", "artifact.list"),
)
_REGISTRY: Final = (
    ("models.create", "POST", "registered-models/create", "model.register"),
    ("models.get", "GET", "registered-models/get", "model.read_metadata"),
    ("models.search", "GET", "registered-models/search", "model.list"),
    ("models.latest", "GET", "registered-models/get-latest-versions", "model.read_metadata"),
    ("models.latest_post", "POST", "registered-models/get-latest-versions", "model.read_metadata"),
    ("models.update", "PATCH", "registered-models/update", "model.update"),
    ("models.delete", "DELETE", "registered-models/delete", "model.delete"),
    ("models.set_tag", "POST", "registered-models/set-tag", "model.tag"),
    ("models.delete_tag", "DELETE", "registered-models/delete-tag", "model.tag"),
    ("models.by_alias", "GET", "registered-models/alias", "model.read_metadata"),
    ("models.set_alias", "POST", "registered-models/alias", "model.promote"),
    ("models.delete_alias", "DELETE", "registered-models/alias", "model.undeploy"),
    ("versions.create", "POST", "model-versions/create", "model.register_version"),
    ("versions.get", "GET", "model-versions/get", "model.read_metadata"),
    ("versions.search", "GET", "model-versions/search", "model.list"),
    ("versions.download_uri", "GET", "model-versions/get-download-uri", "model.download"),
    ("versions.update", "PATCH", "model-versions/update", "model.update"),
    ("versions.set_tag", "POST", "model-versions/set-tag", "model.tag"),
    ("versions.delete_tag", "DELETE", "model-versions/delete-tag", "model.tag"),
    ("versions.delete", "DELETE", "model-versions/delete", "model.delete"),
    ("versions.stage", "POST", "model-versions/transition-stage", "model.promote"),
)
_ARTIFACTS: Final = (
    ("artifacts.read", "GET", "artifacts/{rest}", "artifact.read"),
    ("artifacts.write", "PUT", "artifacts/{rest}", "artifact.write"),
    ("artifacts.delete", "DELETE", "artifacts/{rest}", "artifact.delete"),
    ("artifacts.list", "GET", "artifacts", "artifact.list"),
    ("mpu.create", "POST", "mpu/create/{rest}", "artifact.write"),
    ("mpu.complete", "POST", "mpu/complete/{rest}", "artifact.write"),
    ("mpu.abort", "POST", "mpu/abort/{rest}", "artifact.write"),
    ("artifacts.presign", "GET", "presigned/{rest}", "artifact.presign"),
)
_PAGES: Final = (
    ("mlflow.pages.index", "/", "workspace.read_metadata"),
    ("mlflow.pages.health", "/health", "workspace.read_metadata"),
    ("mlflow.pages.version", "/version", "workspace.read_metadata"),
    ("mlflow.pages.static", "/static-files/{rest}", "workspace.read_metadata"),
    ("mlflow.pages.server_info", "/api/3.0/mlflow/server-info", "workspace.read_metadata"),
    ("mlflow_ajax.pages.server_info", "/ajax-api/3.0/mlflow/server-info", "workspace.read_metadata"),
    ("mlflow.bytes.run", "/get-artifact", "artifact.read"),
    ("mlflow.bytes.version", "/model-versions/get-artifact", "artifact.read"),
    ("mlflow_ajax.bytes.logged", "/ajax-api/2.0/mlflow/logged-models/{m}/artifacts/files", "artifact.read"),
    ("mlflow_ajax.runs.metric_history_bulk", "/ajax-api/2.0/mlflow/metrics/get-history-bulk", "run.read"),
)
_NEVER: Final = (
    # One document of GraphQL reads any experiment, run and model: no row could say which.
    "/graphql",
    # A name is an identity in the policy: its grants, approvals and locks would stay behind, for whoever takes it next.
    *(f"{twin}/2.0/mlflow/registered-models/rename" for twin in TWINS),
    # Addresses of the store that outlive every decision, and name their object in ways of their own.
    *(f"{twin}/2.0/mlflow/artifacts/presigned-{way}-url" for twin in TWINS for way in ("download", "upload")),
    # Datasets across experiments, uploads by the page, a run made by a page: the API has a decided way for each.
    *(
        f"/ajax-api/2.0/mlflow/{path}"
        for path in ("upload-artifact", "runs/create-promptlab-run", "experiments/search-datasets", "gateway-proxy")
    ),
    "/api/2.0mlflow/experiments/search-datasets",  # MLflow 3.17 lacks a slash here
    "/ajax-api/2.0mlflow/experiments/search-datasets",
    # Traces hold what people asked a model, and are no asset of the inventory; webhooks send data elsewhere.
    *(
        f"{twin}/2.0/mlflow/{path}"
        for twin in TWINS
        for path in (
            "traces[/{rest}]",
            "get-trace-artifact",
            "get-online-trace-details",
            "unified-traces",
            "webhooks[/{rest}]",
        )
    ),
    # Everything of the API's version 3 but the server's description: traces, scorers, evaluation datasets, the gateway's
    # administration with its secrets, jobs (which run code), workspaces, MCP servers.
    *(f"{twin}/3.0/{{rest}}" for twin in TWINS),
    "/v1/{rest}",
    "/gateway/{rest}",
    "/build/{rest}",
)


def _never() -> Iterator[Row]:
    for number, path in enumerate(_NEVER):
        for method in _METHODS:
            yield _row(f"mlflow.never.{method.lower()}_{number}", method, path, "workspace.manage", Scope.NEVER)


ROWS: Final = (
    *(
        _row(name, "GET", path, action, Scope.SERVER if ".pages." in name else Scope.LOOKED_UP)
        for name, path, action in _PAGES
    ),
    *(row for name, method, path, action in _TRACKING for row in _twins(name, method, f"mlflow/{path}", action)),
    *(row for name, method, path, action in _REGISTRY for row in _twins(name, method, f"mlflow/{path}", action)),
    *(
        row
        for name, method, path, action in _ARTIFACTS
        for row in _twins(name, method, f"mlflow-artifacts/{path}", action)
    ),
    *_never(),
)
