"""Open Inference Protocol v2 over REST: KServe, Triton, MLServer.

Lists (`GET /v2/models`, `POST /v2/repository/index`) show what the caller may see. Shared memory from another pod is never
allowed.

Source: ENFORCEMENT.md 3.1; github.com/kserve/open-inference-protocol.
"""

from collections.abc import Mapping

from sidecar.routes import NO_TOKENS, Dialect, Placement, RouteTable, Row, Scope, Served

_MODEL = "/v2/models/{m}[/versions/{v}]"


def _row(name: str, method: str, path: str, action: str, scope: Scope = Scope.SERVED) -> Row:
    return Row(
        name=f"oip.{name}",
        method=method,
        path=path,
        action=f"endpoint.{action}",
        scope=scope,
        placement=Placement.EXT_PROC if scope is Scope.LIST else Placement.EXT_AUTHZ,
        dialect=Dialect.OIP,
        limit=None if action == "invoke" else NO_TOKENS,
    )


def _read(name: str, path: str, action: str, scope: Scope = Scope.SERVED) -> Row:
    return _row(name, "GET", path, action, scope)


def _post(name: str, path: str, action: str, scope: Scope = Scope.SERVED) -> Row:
    return _row(name, "POST", path, action, scope)


def _stream(name: str) -> Row:
    return Row(
        name=f"oip.{name}",
        method="POST",
        path=f"{_MODEL}/{name}",
        action="endpoint.invoke",
        placement=Placement.EXT_PROC,
        dialect=Dialect.OIP,
        stream=True,
    )


ROWS: tuple[Row, ...] = (
    _read("server_stats", "/v2/models/stats", "observe", Scope.SERVER),
    _post("infer", f"{_MODEL}/infer", "invoke"),
    _post("generate", f"{_MODEL}/generate", "invoke"),
    _stream("infer_stream"),
    _stream("generate_stream"),
    _read("model_metadata", _MODEL, "read_metadata"),
    _read("model_ready", f"{_MODEL}/ready", "read_metadata"),
    _read("model_config", f"{_MODEL}/config", "read_config"),
    _read("model_stats", f"{_MODEL}/stats", "observe"),
    _read("model_docs", f"{_MODEL}/docs[/dataplane.json]", "read_metadata"),
    _read("server_docs", "/v2/docs[/dataplane.json]", "read_metadata", Scope.SERVER),
    _read("server_openapi", "/openapi.json", "read_metadata", Scope.SERVER),
    _read("server_metadata", "/v2", "read_metadata", Scope.SERVER),
    _read("server_live", "/v2/health/live", "read_metadata", Scope.SERVER),
    _read("server_ready", "/v2/health/ready", "read_metadata", Scope.SERVER),
    _read("server_metrics", "/metrics", "observe", Scope.SERVER),
    # FastAPI's pages for people load code from elsewhere, and work without their caller's token only.
    _read("pages", "/docs[/oauth2-redirect]", "read_metadata", Scope.NEVER),
    _read("redoc", "/redoc", "read_metadata", Scope.NEVER),
    _read("models", "/v2/models", "list", Scope.LIST),
    _post("repository_index", "/v2/repository/index", "list", Scope.LIST),
    _post("load_model", "/v2/repository/models/{m}/load", "load_model"),
    _post("unload_model", "/v2/repository/models/{m}/unload", "unload_model"),
    _read("trace_read", "/v2[/models/{m}]/trace/setting", "configure", Scope.SERVER),
    _post("trace_write", "/v2[/models/{m}]/trace/setting", "configure", Scope.SERVER),
    _read("logging_read", "/v2/logging", "configure", Scope.SERVER),
    _post("logging_write", "/v2/logging", "configure", Scope.SERVER),
    _read("system_shared_memory", "/v2/systemsharedmemory[/region/{m}]/status", "shared_memory", Scope.NEVER),
    _read("cuda_shared_memory", "/v2/cudasharedmemory[/region/{m}]/status", "shared_memory", Scope.NEVER),
)


def table(*, served: Mapping[str, Served], server: str = "") -> RouteTable:
    """Return the protocol's table for the names that this server serves.

    Raises:
        ValueError: A served name reads like one of the protocol's own words.
    """
    check_names(served)
    return RouteTable(rows=ROWS, served=served, server=server)


def check_names(served: Mapping[str, Served]) -> None:
    """Refuse a served name that one of the protocol's own paths would shadow.

    Raises:
        ValueError: There is one.
    """
    reserved = {
        row.path.rpartition("/")[2] for row in ROWS if row.path.startswith("/v2/models/") and "{" not in row.path
    }
    if reserved & set(served):
        raise ValueError(
            f"a model cannot be served as `{min(reserved & set(served))}`: the protocol has a route of that name"
        )
