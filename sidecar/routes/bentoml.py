"""BentoML: a function of a service is a path of one word, which is its served name; and what else its server answers.

A function may answer in a stream, which its path does not tell: every call is followed while it runs. A function under a route
of two words or more, and what a service mounts, are rows of the server's own. A task's result is found by an id in the query
alone, so that whoever may call could read everybody's: tasks are never allowed.

Source: ENFORCEMENT.md 3.2; BentoML's `ServiceAppFactory`.
"""

from sidecar.routes import Placement, Row, Scope


def _of_server(name: str, path: str, action: str, scope: Scope = Scope.SERVER) -> Row:
    return Row(name=f"bentoml.{name}", method="GET", path=path, action=f"endpoint.{action}", scope=scope)


def _of_task(verb: str, method: str, action: str) -> Row:
    return Row(
        name=f"bentoml.task_{verb}",
        method=method,
        path=f"/{{m}}/{verb}",
        action=f"endpoint.{action}",
        scope=Scope.NEVER,
    )


ROWS: tuple[Row, ...] = (
    *(_of_server(name, f"/{name}", "read_metadata") for name in ("livez", "readyz", "healthz")),
    _of_server("metrics", "/metrics", "observe"),
    _of_server("schema", "/schema.json", "observe"),
    _of_server("openapi", "/docs.json", "observe"),
    # The page for people works without its caller's token only.
    _of_server("page", "/", "read_metadata", Scope.NEVER),
    _of_server("page_parts", "/static_content/{rest}", "read_metadata", Scope.NEVER),
    _of_server("new_page_parts", "/assets/{rest}", "read_metadata", Scope.NEVER),
    _of_task("submit", "POST", "invoke"),
    _of_task("retry", "POST", "invoke"),
    _of_task("status", "GET", "read_result"),
    _of_task("get", "GET", "read_result"),
    _of_task("cancel", "PUT", "cancel"),
    Row(
        name="bentoml.call",
        method="POST",
        path="/{m}",
        action="endpoint.invoke",
        placement=Placement.EXT_PROC,
        stream=True,
    ),
)
