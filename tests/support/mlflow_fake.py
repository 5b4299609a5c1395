"""The gate for MLflow around an application that answers as a registry would: questions, facts and answers, without MLflow."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, quote

from pdp.errors import PortcullisError, Reason
from pdp.inventory import Asset
from pdp.model.decision import Answer, deny
from pdp.model.names import Resource
from pdp.model.request import Question
from pdp.world import empty_world
from sidecar.asgi_door import Door
from sidecar.gate import Gate
from sidecar.mlflow.facts import Inventory
from sidecar.mlflow.guard import MlflowMiddleware
from sidecar.rechecks import Rechecker
from sidecar.routes import Registry
from sidecar.routes.assembly import assemble
from tests.support.enforcement import Clock, Decider, identify

RUN, OTHER_RUN, MODEL = "a" * 32, "b" * 32, "m-" + "c" * 32
HOMES = {RUN: "1", OTHER_RUN: "2"}
REGISTRY = Registry(new={"environment": "dev"}, plain_aliases=frozenset({"candidate"}))


@dataclass
class Policy(Decider):
    """Allows everything but what is named here: `model.promote model/fraud@2`."""

    denied: set[str] = field(default_factory=set)

    async def answer(self, question: Question, *, door: str, caller: str = "") -> Answer:
        if f"{question.action} {question.resource}" in self.denied:
            self.questions.append(question)
            return Answer(decision=deny(Reason.NO_GRANT, world_seq=7), decision_id="no")
        return await super().answer(question, door=door, caller=caller)

    @property
    def asked(self) -> list[str]:
        return [f"{one.action} {one.resource}" for one in self.questions]


@dataclass
class Tracking:
    """An application with two experiments, a run in each, and whatever versions a test gives it."""

    versions: list[dict[str, Any]] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    models: list[str] = field(default_factory=lambda: ["fraud"])
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        query = dict(parse_qsl(scope["query_string"].decode()))
        if scope["headers"] != [(b"host", b"mlflow.example")] or scope["method"] != "GET":  # the gate's own questions
            self.seen.append((scope["method"], scope["path"], body))
        status, told = self._told(scope["path"].removeprefix("/ajax").partition("/mlflow/")[2], query)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})

    def _told(self, path: str, query: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        if path in self.answers:
            return 200, self.answers[path]
        if path == "registered-models/alias" and "alias" in query and query["alias"] not in self.aliases:
            return 400, {"error_code": "INVALID_PARAMETER_VALUE"}
        known = {
            "runs/get": {"run": {"info": {"experiment_id": HOMES.get(query.get("run_id", ""))}}},
            "runs/create": {"run": {"info": {"run_id": "e" * 32}}},
            f"logged-models/{MODEL}": {"model": {"info": {"experiment_id": "1", "model_id": MODEL}}},
            "registered-models/alias": {
                "model_version": {"name": query.get("name"), "version": self.aliases.get(query.get("alias", ""))}
            },
            "registered-models/search": self._page([{"name": name} for name in self.models], query),
            "model-versions/search": {"model_versions": self.versions},
        }
        unknown = path == "runs/get" and query.get("run_id") not in HOMES
        return (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}) if unknown else (200, known.get(path, {}))

    def _page(self, items: list[Any], query: Mapping[str, str]) -> dict[str, Any]:
        start, size = int(query.get("page_token", 0)), int(query.get("max_results", 100))
        more = {"next_page_token": str(start + size)} if start + size < len(items) else {}
        return {"registered_models": items[start : start + size], **more}


class Bench:
    """The gate, its policy, its inventory, and the application behind it."""

    def __init__(self, app: Tracking | None = None, assets: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.app, self.policy = app or Tracking(), Policy()
        self.world = empty_world("main")
        self.written: list[Mapping[str, Mapping[str, Any]]] = []
        self.reachable = True
        self._register(assets or {})
        table = assemble(served={}, server="workspace/mlflow", protocols=("mlflow",), registry=REGISTRY)
        self.inventory = Inventory(
            registry=REGISTRY, server="workspace/mlflow", world=lambda: self.world, reach=_reach, write=self._write
        )
        self._door = Door(
            gate=Gate(table=table, identify=identify, decider=self.policy),
            rechecker=Rechecker(decider=self.policy, time=Clock(), jitter=lambda: 0.0),
            notes=self.policy,
            time=Clock(),
        )
        self.behind(self.inventory)

    def behind(self, inventory: Inventory) -> None:
        """Put the gate before the application anew, with this inventory."""
        self.gate = MlflowMiddleware(self.app, door=replace(self._door, inventory=inventory))

    def _register(self, assets: Mapping[str, Mapping[str, Any]]) -> None:
        held = dict(self.world.assets)
        for name, given in assets.items():
            values = {
                f"resource.{key}": tuple(value) if isinstance(value, list) else value for key, value in given.items()
            }
            held[name] = Asset(resource=Resource.parse(name), attributes=values)
        self.world = replace(self.world, assets=MappingProxyType(held))

    async def _write(self, assets: Mapping[str, Mapping[str, Any]]) -> int:
        if not self.reachable:
            raise PortcullisError(Reason.PDP_UNREACHABLE, "gone")
        self.written.append(assets)
        self._register(assets)
        return 8

    async def ask(
        self, method: str, target: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Send one request as somebody with a good token; return the status and the object that came back."""
        path, _, query = target.partition("?")
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"host": "mlflow.example", "authorization": "Bearer good", "content-length": str(len(content))}
        given |= {"content-type": "application/json"} if content else {}
        given |= dict(headers or {})
        sent: list[Any] = []
        pending = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> Any:
            return pending.pop() if pending else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": quote(path).encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
            "client": ("127.0.0.1", 1),
        }
        await self.gate(scope, receive, send)
        return sent[0]["status"], json.loads(b"".join(one["body"] for one in sent[1:]) or b"{}")


async def _reach(seq: int, wait_s: float) -> bool:
    del seq, wait_s
    return True
