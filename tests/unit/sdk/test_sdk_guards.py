"""Guards in front of functions, web endpoints and RPCs, over a world made of the shipped pack."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pdp.errors import ConfigError, Reason
from pdp.sdk import AccessDenied, BadQuestion, Guards, PdpUnavailable
from pdp.sdk.grpc_guard import OPEN, GrpcGuard, Rule
from pdp.sdk.guards import Template, bearer_token
from pdp.sdk.testing import PackClient, PackWorld

PACK = Path(__file__).parents[3] / "policies"
ROWS = "g, user:bob, role:data-scientist, dev\ng, user:svc, role:member, prod\n"
ASSETS = {"model/fraud@7": {"environment": "dev"}, "model/fraud@8": {"environment": "prod"}}


@pytest.fixture
def world() -> PackWorld:
    return PackWorld(PACK, rows=ROWS, assets=ASSETS)


@pytest.fixture
def bob(world: PackWorld) -> PackClient:
    return world.client("user:bob")


# Functions.


def test_a_function_runs_only_if_granted(bob: PackClient) -> None:
    ran: list[str] = []

    @Guards(bob).requires("model.download", resource="model/{name}@{version}")
    def download(name: str, version: int = 7) -> str:
        """Fetch it."""
        ran.append(f"{name}@{version}")
        return "bytes"

    assert download("fraud") == "bytes"
    with pytest.raises(AccessDenied, match="model/fraud@8"):
        download("fraud", version=8)
    assert ran == ["fraud@7"]
    assert (download.__name__, download.__doc__) == ("download", "Fetch it.")


def test_a_coroutine_is_guarded_by_a_blocking_client_too(bob: PackClient) -> None:
    @Guards(bob).requires("model.download", resource="model/{name}")
    async def download(name: str) -> str:
        return name

    with pytest.raises(BadQuestion):
        asyncio.run(download("fraud@7"))


def test_a_function_is_decided_for_whom_it_says(world: PackWorld) -> None:
    guards = Guards(world.client("user:svc"))

    @guards.requires("model.download", resource="model/fraud@7", subject=lambda user: f"user:{user}")
    def download(user: str) -> str:
        return user

    assert download("bob") == "bob"
    with pytest.raises(AccessDenied):
        download("eve")


def test_a_template_its_function_cannot_fill_is_refused_at_once(bob: PackClient) -> None:
    with pytest.raises(ConfigError, match="no argument `name`"):

        @Guards(bob).requires("model.download", resource="model/{name}")
        def download(model: str) -> None: ...


def test_blocking_code_behind_an_async_client_is_refused_at_once() -> None:
    class Awaits:
        async def check(self, action: str, resource: str, **_: Any) -> Any: ...

    with pytest.raises(ConfigError, match="blocks"):

        @Guards(Awaits()).requires("model.download", resource="model/x@1")
        def download() -> None: ...


def test_a_blocking_web_endpoint_is_refused_at_once_rather_than_decided_for_the_service(bob: PackClient) -> None:
    with pytest.raises(ConfigError, match="blocking web endpoint"):

        @Guards(bob).requires("model.download", resource="model/fraud@7")
        def download(request: Request) -> Response:
            raise AssertionError(request)


@pytest.mark.parametrize("value", ["a/b", "a@1", "..", "", "a b", "{x}", "a\n", None, 1.5, True, "*", "ä"])
def test_no_value_spells_another_resource(value: Any) -> None:
    with pytest.raises(BadQuestion):
        Template("dataset/{tenant}/{table}").fill({"tenant": value, "table": "t"})


def test_a_path_takes_several_segments_and_stands_last() -> None:
    assert Template("dataset/{team}/{rest:path}").fill({"team": "a", "rest": "b/c"}) == "dataset/a/b/c"
    with pytest.raises(BadQuestion):
        Template("dataset/{rest:path}").fill({"rest": "b/../c"})
    for bad in ("dataset/{rest:path}/x", "dataset/{", "dataset/{x!r}", "dataset/{0}"):
        with pytest.raises(ConfigError):
            Template(bad)


# The web.


class Web:
    """Calls an application in the process."""

    __test__ = False

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def get(self, path: str, *, headers: dict[str, str]) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(call())


@pytest.fixture
def web(world: PackWorld) -> Web:
    guards = Guards(world.client("user:svc"))

    @guards.requires("model.download", resource="model/{name}@{version}")
    async def download(request: Request) -> Response:
        return PlainTextResponse(f"{request.path_params['name']}")

    return Web(Starlette(routes=[Route("/models/{name}/{version}", download)]))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_an_endpoint_is_decided_for_the_bearer_of_the_request(world: PackWorld, web: Web) -> None:
    answer = web.get("/models/fraud/7", headers=bearer(world.token("user:bob")))
    assert (answer.status_code, answer.text) == (200, "fraud")
    denied = web.get("/models/fraud/8", headers=bearer(world.token("user:bob")))
    assert denied.status_code == 403
    assert denied.text.startswith("forbidden, decision ")


def test_n10_unknown_and_forbidden_are_the_same_words(world: PackWorld, web: Web) -> None:
    token = world.token("user:bob")
    texts = {
        web.get(path, headers=bearer(token)).text.partition(",")[0]
        for path in ("/models/fraud/8", "/models/nothing/1", "/models/fr%40ud/8")
    }
    assert texts == {"forbidden"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic dTpw"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer a,Bearer b"},
        {"Authorization": "Bearer a b"},
        bearer("not-a-token"),
    ],
)
def test_without_one_good_token_it_is_401(web: Web, headers: dict[str, str]) -> None:
    answer = web.get("/models/fraud/7", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_ex12_two_authorization_headers_are_none() -> None:
    assert bearer_token(["Bearer a", "Bearer b"]) is None
    assert bearer_token(["bearer a"]) == "a"


def test_what_nobody_can_decide_is_503(world: PackWorld) -> None:
    class Away:
        def check(self, *_: Any, **__: Any) -> Any:
            raise PdpUnavailable(Reason.PDP_UNREACHABLE, "10.0.0.7:8181: gone")

    @Guards(Away()).requires("model.download", resource="model/x@1")  # type: ignore[arg-type]
    async def download(request: Request) -> Response:
        raise AssertionError(request)

    answer = Web(Starlette(routes=[Route("/", download)])).get("/", headers=bearer(world.token("user:bob")))
    assert (answer.status_code, answer.text) == (503, "unavailable")


# gRPC.


class Models(grpc.GenericRpcHandler):
    """Four methods that answer `<name>` in bytes, one of each kind."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.go_on = threading.Event()

    def service(self, details: Any) -> Any:
        def unary(message: bytes, _: Any) -> bytes:
            self.seen.append(message)
            return message

        def answers(message: bytes, _: Any) -> Iterator[bytes]:
            yield message
            assert self.go_on.wait(10)
            while True:  # until it is cut
                yield b"after"

        def questions(messages: Iterator[bytes], _: Any) -> bytes:
            self.seen += messages
            return b",".join(self.seen)

        def both(messages: Iterator[bytes], _: Any) -> Iterator[bytes]:
            yield from messages

        return {
            "/m.Models/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/m.Models/Open": grpc.unary_unary_rpc_method_handler(unary),
            "/m.Models/Unlisted": grpc.unary_unary_rpc_method_handler(unary),
            "/m.Models/Answers": grpc.unary_stream_rpc_method_handler(answers),
            "/m.Models/Questions": grpc.stream_unary_rpc_method_handler(questions),
            "/m.Models/Both": grpc.stream_stream_rpc_method_handler(both),
        }.get(details.method)


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def channel(world: PackWorld, models: Models) -> Iterator[grpc.Channel]:
    rule = Rule("model.download", lambda message: f"model/{message.decode()}")
    methods = ("Unary", "Answers", "Questions", "Both")
    rules = {f"/m.Models/{method}": rule for method in methods} | {"/m.Models/Open": OPEN}
    guard = GrpcGuard(world.client("user:svc"), rules)
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, handlers=[models], interceptors=[guard])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as made:
            yield made
        models.go_on.set()
        server.stop(None).wait()


def metadata(world: PackWorld, subject: str = "user:bob") -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {world.token(subject)}"),)


def status(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    return error.code().name, error.details()


def test_an_rpc_is_decided_by_its_message(world: PackWorld, channel: grpc.Channel, models: Models) -> None:
    call = channel.unary_unary("/m.Models/Unary")
    assert call(b"fraud@7", metadata=metadata(world)) == b"fraud@7"
    for refused in (b"fraud@8", b"nothing@1", b"..", b"fraud"):
        message = refused
        assert status(lambda m=message: call(m, metadata=metadata(world))) == ("PERMISSION_DENIED", "permission_denied")
    assert models.seen == [b"fraud@7"]


def test_an_rpc_without_a_good_token_is_unauthenticated(world: PackWorld, channel: grpc.Channel) -> None:
    call = channel.unary_unary("/m.Models/Unary")
    assert status(lambda: call(b"fraud@7")) == ("UNAUTHENTICATED", "credential_missing")
    twice = metadata(world) * 2
    assert status(lambda: call(b"fraud@7", metadata=twice)) == ("UNAUTHENTICATED", "credential_missing")
    bad = (("authorization", "Bearer nonsense"),)
    assert status(lambda: call(b"fraud@7", metadata=bad))[0] == "UNAUTHENTICATED"


def test_a_method_without_a_rule_is_refused_and_an_open_one_is_open(
    world: PackWorld, channel: grpc.Channel, models: Models
) -> None:
    unlisted = channel.unary_unary("/m.Models/Unlisted")
    assert status(lambda: unlisted(b"x", metadata=metadata(world)))[0] == "PERMISSION_DENIED"
    assert not models.seen
    assert channel.unary_unary("/m.Models/Open")(b"x") == b"x"


def test_answers_that_stream_end_with_access(world: PackWorld, channel: grpc.Channel, models: Models) -> None:
    answers = channel.unary_stream("/m.Models/Answers")(b"fraud@7", metadata=metadata(world))
    assert next(answers) == b"fraud@7"
    world.lock("resource:model/fraud@7")
    models.go_on.set()
    assert status(lambda: list(answers))[0] == "PERMISSION_DENIED"
    denied = channel.unary_stream("/m.Models/Answers")(b"fraud@8", metadata=metadata(world))
    assert status(lambda: next(denied))[0] == "PERMISSION_DENIED"


def test_each_message_of_a_stream_is_decided(world: PackWorld, channel: grpc.Channel, models: Models) -> None:
    good = iter([b"fraud@7", b"fraud@7"])
    assert channel.stream_unary("/m.Models/Questions")(good, metadata=metadata(world)) == b"fraud@7,fraud@7"
    mixed = iter([b"fraud@7", b"fraud@8"])
    call = channel.stream_unary("/m.Models/Questions")
    assert status(lambda: call(mixed, metadata=metadata(world)))[0] == "PERMISSION_DENIED"
    both = channel.stream_stream("/m.Models/Both")(iter([b"fraud@7", b"fraud@8"]), metadata=metadata(world))
    assert next(both) == b"fraud@7"
    assert status(lambda: next(both))[0] == "PERMISSION_DENIED"
    assert b"fraud@8" not in models.seen
