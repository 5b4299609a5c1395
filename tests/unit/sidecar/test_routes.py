import pytest

from sidecar.routes import Mapped, Placement, RouteTable, Row, Scope, Served, Unmapped, oip
from sidecar.target import Target

TABLE = oip.table(
    served={
        "fraud": Served(resource="endpoint/fraud-prod", model="model/fraud@12"),
        "free": Served(resource="endpoint/free", model=""),
    },
    server="endpoint/server",
)


def ask(method: str, path: str, query: str = "") -> Mapped | Unmapped:
    return TABLE.map(method, Target(path=path, query=query))


@pytest.mark.parametrize(
    ("method", "path", "name", "action", "resource"),
    [
        ("POST", "/v2/models/fraud/infer", "oip.infer", "endpoint.invoke", "endpoint/fraud-prod"),
        ("POST", "/v2/models/fraud/versions/12/infer", "oip.infer", "endpoint.invoke", "endpoint/fraud-prod"),
        ("POST", "/v2/models/fraud/generate", "oip.generate", "endpoint.invoke", "endpoint/fraud-prod"),
        ("POST", "/v2/models/free/infer_stream", "oip.infer_stream", "endpoint.invoke", "endpoint/free"),
        ("GET", "/v2/models/fraud", "oip.model_metadata", "endpoint.read_metadata", "endpoint/fraud-prod"),
        ("GET", "/v2/models/fraud/versions/12", "oip.model_metadata", "endpoint.read_metadata", "endpoint/fraud-prod"),
        ("GET", "/v2/models/fraud/ready", "oip.model_ready", "endpoint.read_metadata", "endpoint/fraud-prod"),
        ("GET", "/v2/models/fraud/config", "oip.model_config", "endpoint.read_config", "endpoint/fraud-prod"),
        ("GET", "/v2/models/fraud/stats", "oip.model_stats", "endpoint.observe", "endpoint/fraud-prod"),
        ("GET", "/v2/models/stats", "oip.server_stats", "endpoint.observe", "endpoint/server"),
        ("GET", "/metrics", "oip.server_metrics", "endpoint.observe", "endpoint/server"),
        ("GET", "/v2", "oip.server_metadata", "endpoint.read_metadata", "endpoint/server"),
        ("GET", "/v2/health/live", "oip.server_live", "endpoint.read_metadata", "endpoint/server"),
        ("POST", "/v2/repository/models/fraud/load", "oip.load_model", "endpoint.load_model", "endpoint/fraud-prod"),
        ("POST", "/v2/logging", "oip.logging_write", "endpoint.configure", "endpoint/server"),
        ("GET", "/v2/models/fraud/trace/setting", "oip.trace_read", "endpoint.configure", "endpoint/server"),
    ],
)
def test_a_row_says_what_a_request_asks(method: str, path: str, name: str, action: str, resource: str) -> None:
    mapped = ask(method, path)
    assert isinstance(mapped, Mapped)
    assert (mapped.row.name, mapped.row.action, mapped.resource) == (name, action, resource)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v2/models/fraud/infer"),
        ("PUT", "/v2/models/fraud/infer"),
        ("post", "/v2/models/fraud/infer"),
        ("POST", "/V2/models/fraud/infer"),
        ("POST", "/v2/models/Fraud/infer"),
        ("POST", "/v2/models/other/infer"),
        ("POST", "/v2/models/fraud/versions/13/infer"),
        ("POST", "/v2/models/free/versions/1/infer"),
        ("POST", "/v2/models/fraud/infer/"),
        ("POST", "/v2/models/fraud/infer\n"),
        ("POST", "/prefix/v2/models/fraud/infer"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("GET", "/v2/cudasharedmemory/region/x/status"),
        ("GET", "/demo/streams"),
    ],
)
def test_what_no_row_allows_is_unmapped(method: str, path: str) -> None:
    assert isinstance(ask(method, path), Unmapped)


@pytest.mark.holds("N3", "adv_query_fragment")
def test_a_query_that_nobody_decided_on_is_unmapped() -> None:
    assert isinstance(ask("POST", "/v2/models/fraud/infer", "model=other"), Unmapped)


def test_only_streams_and_lists_are_decided_by_ext_proc() -> None:
    streams = {row.name for row in oip.ROWS if row.placement is Placement.EXT_PROC}
    assert streams == {"oip.infer_stream", "oip.generate_stream", "oip.models", "oip.repository_index"}


def test_server_wide_rows_need_a_server_resource() -> None:
    table = oip.table(served={})
    assert isinstance(table.map("GET", Target(path="/v2", query="")), Unmapped)


def test_a_name_that_reads_like_a_word_of_the_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="stats"):
        oip.table(served={"stats": Served(resource="endpoint/x", model="")})


def test_two_rows_of_one_name_are_refused() -> None:
    row = Row(name="a", method="GET", path="/a", action="endpoint.observe", scope=Scope.SERVER)
    with pytest.raises(ValueError, match="one name"):
        RouteTable(rows=(row, row), served={})
