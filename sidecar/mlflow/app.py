"""`mlflow server --app-name pdp`: MLflow's own application, behind the gate that `PDP_SIDECAR_CONFIG` describes."""

import os

from pdp.errors import ConfigError
from sidecar.asgi_scope import Application
from sidecar.mlflow.guard import MlflowMiddleware


def create_app() -> Application:
    """Return the guarded application, which MLflow's command gives to uvicorn (entry point group `mlflow.app`).

    Raises:
        ConfigError: It would be served by something else, or could not be decided on.
    """
    if os.environ.get("_MLFLOW_SGI_NAME", "uvicorn") != "uvicorn":
        raise ConfigError(
            "the plug-in is an ASGI application",
            advice="leave --gunicorn-opts and --waitress-opts away: uvicorn serves it",
        )
    if os.environ.get("MLFLOW_ENABLE_WORKSPACES", "").lower() in {"true", "1"}:
        raise ConfigError(
            "MLflow's workspaces are not known to the policy", advice="leave MLFLOW_ENABLE_WORKSPACES away"
        )
    if os.environ.get("_MLFLOW_STATIC_PREFIX"):
        raise ConfigError("--static-prefix moves every route", advice="leave it away, and let a proxy move the address")
    from mlflow.server.fastapi_app import app  # noqa: PLC0415 - MLflow is there where its server runs, and only there

    return MlflowMiddleware(app)
