"""Plug-ins for MLflow's client: our credential, what an access is for, and a gate in front of registered models.

They are found by their entry points, and do nothing until they are asked to:

- `MLFLOW_TRACKING_AUTH=pdp`: requests to the tracking server carry the token of `PDP_TOKEN_FILE`, read for each, and never in
  the clear to another machine.
- `PDP_PURPOSE`, `PDP_TICKET`, or `with asking(purpose="training"):`: requests say what they are for, in `pdp-ask-purpose`,
  `pdp-ask-ticket` and `pdp-ask-run`. The caller asserts these, and a gate at the server decides what they are worth.
- `PDP_SERVER`: downloading `models:/name/7` or `models:/name@champion` needs `model.download` on `model/name@7`; an alias is
  looked up first, and the version that it names is the one that is decided and fetched. A logged model that has no name in the
  registry needs `artifact.read` on `artifact/mlflow/<experiment>`, as it does at the gate in MLflow's server.

Honest limit: the gate stands in this process and guides; artifacts can be fetched around it (`mlflow-artifacts:`, the bucket).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

import mlflow
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

from pdp.errors import ConfigError, Reason
from pdp.limits import MAX_ASK_BYTES
from pdp.sdk._settings import Settings, is_local
from pdp.sdk.client import Client
from pdp.sdk.errors import CredentialRefused
from pdp.sdk.values import AttributeValue

_NAMES: Final = {"purpose": "PDP_PURPOSE", "ticket": "PDP_TICKET"}
_ASKING: Final[ContextVar[dict[str, str]]] = ContextVar("asking", default={})  # noqa: B039 - never changed, only replaced


class TokenAuth(RequestAuthProvider):  # type: ignore[misc] # mlflow has no types
    """`MLFLOW_TRACKING_AUTH=pdp`: our credential with each request to the tracking server."""

    def get_name(self) -> str:
        """Return the name by which it is chosen."""
        return "pdp"

    def get_auth(self) -> "_Bearer":
        """Return what puts the token on a request."""
        return _Bearer()


class _Bearer:
    """Puts the token of now on one request; what `requests` takes for an authentication."""

    def __call__(self, request: Any) -> Any:
        address = urlsplit(request.url)
        if address.scheme != "https" and not is_local(address.netloc):
            raise CredentialRefused(
                Reason.CREDENTIAL_MISSING,
                f"the token is not sent in the clear to {address.hostname}",
                advice="give the tracking server's https address",
            )
        token = _token()
        if not token:
            raise CredentialRefused(
                Reason.CREDENTIAL_MISSING, "there is no token for MLflow", advice="set PDP_TOKEN_FILE"
            )
        request.headers["Authorization"] = f"Bearer {token}"
        return request


class AskHeaders(RequestHeaderProvider):  # type: ignore[misc] # mlflow has no types
    """Says what each request is for."""

    def in_context(self) -> bool:
        """Tell whether there is anything to say."""
        return bool(asked())

    def request_headers(self) -> dict[str, str]:
        """Return the headers."""
        run = mlflow.active_run()
        more = {"pdp-ask-run": run.info.run_id} if run is not None else {}
        return {f"pdp-ask-{name}": value for name, value in asked().items()} | more


class GatedModels(ModelsArtifactRepository):  # type: ignore[misc] # mlflow has no types
    """`models:/…`, decided before anything is listed or fetched; the version was resolved, and is fixed, when it was made."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        self._tracking_uri = tracking_uri
        pool = getattr(self.repo, "thread_pool", None)
        if pool is not None:
            # Files are fetched by threads of the inner repository, which must say what they are for as well.
            self.repo.thread_pool = _Carrying(pool)

    def list_artifacts(self, path: str | None = None) -> Any:
        """List the files of a model."""
        self._allowed()
        return super().list_artifacts(path)

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None, **options: Any) -> Any:
        """Download a model, or a file of it."""
        self._allowed()
        return super().download_artifacts(artifact_path, dst_path, **options)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._allowed()
        super()._download_file(remote_file_path, local_path)

    def _allowed(self) -> None:
        client = _client()
        if client is None:
            return
        about: dict[str, AttributeValue] = {}
        purpose = asked().get("purpose")
        if purpose:
            about["request.purpose"] = purpose
        if self.model_name is None:
            client.require("artifact.read", f"artifact/mlflow/{self._experiment}", attributes=about)
        else:
            client.require("model.download", f"model/{self.model_name}@{self.model_version}", attributes=about)

    @cached_property
    def _experiment(self) -> str:
        """Where a logged model without a name belongs; the server never moves it."""
        model = str(self.artifact_uri).rpartition("/")[2]
        return str(mlflow.MlflowClient(self._tracking_uri).get_logged_model(model).experiment_id)


class _Carrying:
    """A thread pool whose threads know the context of whoever hands them work."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def submit(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        return self._pool.submit(copy_context().run, work, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


@contextmanager
def asking(*, purpose: str = "", ticket: str = "") -> Iterator[None]:
    """Say what MLflow is used for inside this block: in this thread or task, and in those that fetch `models:/` for it.

    What MLflow does in other threads of its own (logging in the background) knows only the environment.

    Raises:
        ConfigError: a value that no header can carry.
    """
    given = {"purpose": purpose, "ticket": ticket}
    for name, value in given.items():
        _check(name, value)
    token = _ASKING.set({**_ASKING.get(), **{name: value for name, value in given.items() if value}})
    try:
        yield
    finally:
        _ASKING.reset(token)


def asked() -> dict[str, str]:
    """Return what is said of the purpose now: inside `asking`, else by the environment."""
    told = {name: os.environ.get(variable, "") for name, variable in _NAMES.items()} | _ASKING.get()
    for name, value in told.items():
        _check(name, value)
    return {name: value for name, value in told.items() if value}


def _check(name: str, value: str) -> None:
    if len(value) > MAX_ASK_BYTES or (
        value and not (value.isascii() and value.isprintable() and value == value.strip())
    ):
        raise ConfigError(f"{name}: {MAX_ASK_BYTES} printable ASCII characters are what a header can carry")


_OWN: dict[int, Client] = {}


def _client() -> Client | None:
    """Return this process's client, or None: nobody told where the PDP is."""
    if not os.environ.get("PDP_SERVER"):
        return None
    if os.getpid() not in _OWN:
        _OWN[os.getpid()] = Client()
    return _OWN[os.getpid()]


def _token() -> str:
    """Return the token that the environment names; the PDP itself need not be known for that."""
    settings = Settings.resolve(
        os.environ.get("PDP_SERVER") or "127.0.0.1:1", token=None, ca=None, cert=None, key=None, timeout_s=None
    )
    return settings.read_token()
