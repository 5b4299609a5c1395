"""The tables of the protocols, put together: what is mapped, where it is decided, and what is refused when it is written down."""

import asyncio
import re

import pytest

from sidecar.asked import Ask
from sidecar.bodies import Content
from sidecar.duties import supported
from sidecar.gate import Gate
from sidecar.routes import Body, Mapped, Placement, RouteTable, Row, Scope, Served, Unmapped
from sidecar.routes.assembly import PROTOCOLS, assemble
from sidecar.target import Target
from tests.support.enforcement import Decider, identify

SERVED = {"m": Served(resource="endpoint/m", model="model/m@1")}
ALL = assemble(served=SERVED, server="endpoint/all", protocols=tuple(PROTOCOLS))


def ask(method: str, path: str, table: RouteTable = ALL) -> Mapped | Unmapped:
    return table.map(method, Target(path=path, query=""))


@pytest.mark.parametrize(
    ("method", "path", "name", "action", "scope"),
    [
        ("POST", "/v1/models/m:predict", "v1.predict", "endpoint.invoke", Scope.SERVED),
        ("POST", "/v1/models/m:explain", "v1.explain", "endpoint.explain", Scope.SERVED),
        ("GET", "/v1/models/m", "v1.model", "endpoint.read_metadata", Scope.SERVED),
        ("POST", "/v1/chat/completions", "openai.chat", "endpoint.invoke", Scope.BODY),
        ("POST", "/openai/v1/chat/completions", "kserve_openai.chat", "endpoint.invoke", Scope.BODY),
        ("POST", "/v1/embeddings", "openai.embeddings", "endpoint.invoke", Scope.BODY),
        ("POST", "/v1/audio/transcriptions", "openai.transcriptions", "endpoint.invoke", Scope.BODY),
        ("GET", "/v1/responses/r1", "openai.response", "endpoint.read_result", Scope.RESULT),
        ("POST", "/v1/responses/r1/cancel", "openai.cancel", "endpoint.cancel", Scope.RESULT),
        ("POST", "/tokenize", "openai.tokenize", "endpoint.tokenize", Scope.BODY),
        ("POST", "/v1/load_lora_adapter", "openai.load_adapter", "endpoint.load_adapter", Scope.SERVER),
        ("POST", "/update_weights", "openai.update_weights", "endpoint.update_weights", Scope.SERVER),
        ("POST", "/pause", "openai.pause", "endpoint.manage", Scope.SERVER),
        ("GET", "/version", "openai.version", "endpoint.observe", Scope.SERVER),
        ("GET", "/health", "openai.probe_health", "endpoint.read_metadata", Scope.SERVER),
        ("GET", "/livez", "openai.probe_livez", "endpoint.read_metadata", Scope.SERVER),
        ("POST", "/v1/systemone", "openai.systemone", "endpoint.invoke", Scope.BODY),
        ("POST", "/adapters", "openai.sagemaker_load_adapter", "endpoint.load_adapter", Scope.SERVER),
        ("DELETE", "/adapters/a", "openai.sagemaker_unload_adapter", "endpoint.load_adapter", Scope.SERVER),
        ("POST", "/ping", "openai.probe_ping_post", "endpoint.read_metadata", Scope.SERVER),
        ("POST", "/is_scaling_elastic_ep", "openai.is_scaling_elastic_ep", "endpoint.manage", Scope.SERVER),
        ("POST", "/m", "bentoml.call", "endpoint.invoke", Scope.SERVED),
        ("GET", "/docs.json", "bentoml.openapi", "endpoint.observe", Scope.SERVER),
        ("POST", "/generate_stream", "tgi.generate_stream", "endpoint.invoke", Scope.SERVER),
        ("POST", "/gateway/m/mlflow/invocations", "gateway.invocations", "endpoint.invoke", Scope.SERVED),
        ("GET", "/v2/models/m/docs", "oip.model_docs", "endpoint.read_metadata", Scope.SERVED),
        ("GET", "/v2/docs/dataplane.json", "oip.server_docs", "endpoint.read_metadata", Scope.SERVER),
        ("GET", "/", "v1.live", "endpoint.read_metadata", Scope.SERVER),
        ("GET", "/openai/v1/models", "kserve_openai.models", "endpoint.list", Scope.LIST),
        ("POST", "/openai/v1/rerank", "kserve_openai.rerank", "endpoint.invoke", Scope.BODY),
        (
            "POST",
            "/inference.model_repository.ModelRepositoryService/RepositoryModelLoad",
            "oip_grpc.repository.RepositoryModelLoad",
            "endpoint.load_model",
            Scope.BODY,
        ),
        ("POST", "/inference.GRPCInferenceService/ModelInfer", "oip_grpc.ModelInfer", "endpoint.invoke", Scope.BODY),
        (
            "POST",
            "/inference.GRPCInferenceService/ServerLive",
            "oip_grpc.ServerLive",
            "endpoint.read_metadata",
            Scope.SERVER,
        ),
    ],
)
def test_a_request_finds_its_row(method: str, path: str, name: str, action: str, scope: Scope) -> None:
    mapped = ask(method, path)
    assert isinstance(mapped, Mapped)
    assert (mapped.row.name, mapped.row.action, mapped.row.scope) == (name, action, scope)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/collective_rpc"),
        ("DELETE", "/v1/responses/r1"),
        ("GET", "/v1/responses/r1/input_items"),
        ("POST", "/inference.GRPCInferenceService/SystemSharedMemoryRegister"),
        ("POST", "/inference.GRPCInferenceService/RepositoryIndex"),
        ("POST", "/gateway/proxy/m/x"),
        ("GET", "/v1/realtime"),
        ("GET", "/docs"),
        ("POST", "/v1/models/other:predict"),
    ],
)
def test_the_rest_is_denied(method: str, path: str) -> None:
    assert isinstance(ask(method, path), Unmapped)


def test_every_row_that_reads_a_body_or_lasts_is_followed_while_it_runs() -> None:
    for row in ALL.rows:
        if (row.body is not Body.UNREAD or row.stream) and row.scope is not Scope.NEVER:
            assert row.placement is not Placement.EXT_AUTHZ, row.name


def test_every_regex_matches_its_own_path_and_no_longer_one() -> None:
    for row in ALL.rows:
        path = re.sub(r"\[.*?\]", "", row.path).replace("{m}", "m").replace("{id}", "x")
        assert re.fullmatch(row.regex, path), row.name
        assert "{rest}" in row.path or not re.fullmatch(row.regex, path + "/"), row.name
        assert not re.fullmatch(row.regex, path + "\n"), row.name


def test_watching_moves_every_invocation_to_ext_proc() -> None:
    table = assemble(served=SERVED, watch=True)
    invokes = [row for row in table.rows if row.action == "endpoint.invoke"]
    assert invokes
    assert {row.placement for row in invokes} == {Placement.EXT_PROC}


def test_a_pinned_name_moves_its_rows_where_a_path_can_be_changed() -> None:
    table = assemble(served={"m": Served(resource="endpoint/m", model="model/m@1", pinned=True)})
    served = [row for row in table.rows if row.scope is Scope.SERVED]
    assert {row.placement for row in served} == {Placement.EXT_PROC}


def test_a_servers_own_row_comes_before_its_protocols() -> None:
    mine = Row(name="own.x", method="POST", path="/v2/models/{m}/infer", action="endpoint.explain")
    mapped = ask("POST", "/v2/models/m/infer", assemble(served=SERVED, own=(mine,)))
    assert isinstance(mapped, Mapped)
    assert mapped.row.name == "own.x"


@pytest.mark.parametrize(
    "path", ["/classify", "/v1/score", "/pooling", "/invocations", "/v1/systemone", "/cohere/v2/chat"]
)
def test_confidence_in_a_servers_own_shape_is_never_taken_for_stripped(path: str) -> None:
    mapped = ask("POST", path)
    assert isinstance(mapped, Mapped)
    assert "strip_outputs" not in supported(mapped.row, Placement.ASGI)
    chat = ask("POST", "/v1/chat/completions")
    assert isinstance(chat, Mapped)
    assert "strip_outputs" in supported(chat.row, Placement.ASGI)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocols": ("oip", "soap")}, "`soap` is none of"),
        ({"served": {"m": Served(resource="endpoint/m", model="", upstream="meta/llama")}}, "cannot stand in a path"),
        ({"own": (Row(name="own.a", method="GET", path="/a", action="endpoint.observe"),)}, "no `{m}`"),
        ({"own": (Row(name="own.a", method="GET", path="/a/{m}", action="look"),)}, "own.a: an action is"),
        (
            {
                "own": (
                    Row(
                        name="own.a",
                        method="GET",
                        path="/a",
                        action="endpoint.observe",
                        scope=Scope.FIXED,
                        resource="no resource",
                    ),
                )
            },
            "own.a",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assemble(**({"served": SERVED} | changes))


@pytest.mark.holds("P10", "adv_route_coverage")
@pytest.mark.parametrize("authorization", [None, "Bearer garbage", "Basic Ym9iOmJvYg=="])
def test_no_row_of_any_protocol_answers_the_unauthenticated(authorization: str | None) -> None:
    decider = Decider()
    gate = Gate(table=ALL, identify=identify, decider=decider)

    async def sweep() -> None:
        for row in ALL.rows:
            path = row.path.replace("{m}", "m").replace("{v}", "1").replace("{id}", "x")
            for target in {re.sub(r"\[.*?\]", "", path), path.replace("[", "").replace("]", "")}:
                ask = Ask(method=row.method, target=target, route=None, authorization=authorization)
                for placement in Placement:
                    verdict = await gate.decide(ask, placement, Content(name="m"))
                    assert not verdict.allowed, (row.name, placement)

    asyncio.run(sweep())
    assert decider.questions == []
