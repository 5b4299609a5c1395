"""KServe's first protocol, `predict` and `explain` by path, its time-series routes, and what else its Python server answers.

Source: ENFORCEMENT.md 3.1; KServe's V1 data plane.
"""

from sidecar.routes import NO_TOKENS, Body, Dialect, Placement, Row, Scope


def _of_server(name: str, path: str, action: str = "read_metadata") -> Row:
    return Row(name=f"v1.{name}", method="GET", path=path, action=f"endpoint.{action}", scope=Scope.SERVER)


ROWS: tuple[Row, ...] = (
    Row(name="v1.predict", method="POST", path="/v1/models/{m}:predict", action="endpoint.invoke"),
    Row(name="v1.explain", method="POST", path="/v1/models/{m}:explain", action="endpoint.explain"),
    Row(name="v1.model", method="GET", path="/v1/models/{m}", action="endpoint.read_metadata"),
    Row(
        name="v1.models",
        method="GET",
        path="/v1/models",
        action="endpoint.list",
        scope=Scope.LIST,
        placement=Placement.EXT_PROC,
    ),
    Row(
        name="v1.forecast",
        method="POST",
        path="/v1/timeseries/forecast",
        action="endpoint.invoke",
        scope=Scope.BODY,
        placement=Placement.EXT_PROC,
        body=Body.JSON,
        dialect=Dialect.PLAIN,
        limit=NO_TOKENS,
    ),
    Row(
        name="v1.timeseries_models",
        method="GET",
        path="/v1/timeseries/models",
        action="endpoint.list",
        scope=Scope.NEVER,
    ),
    _of_server("live", "/"),
    _of_server("metrics", "/metrics", "observe"),
    _of_server("openapi", "/openapi.json"),
)
