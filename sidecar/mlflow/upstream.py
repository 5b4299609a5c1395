"""Questions to the guarded server itself: an ASGI call of its own application, with no network between.

What a run or a logged model belongs to never changes, so it is remembered; whatever can change (aliases, versions) is asked
each time. A server that does not answer leaves the request undecided, hence refused.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from pdp.errors import Reason
from sidecar.asgi_scope import Application, Message, Receive, Scope
from sidecar.exchange import NotPassableError
from sidecar.limits import LIMITS
from sidecar.mlflow.words import RefusedError

_OK: Final = 200
_NO_SUCH: Final = frozenset({400, 404})
"""What MLflow says to a name of nothing: an unknown alias is an invalid parameter to it."""


@dataclass(slots=True, kw_only=True)
class Reply:
    """A whole response of the application."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)

    @property
    def ok(self) -> bool:
        """Whether the server did what it was asked."""
        return self.status == _OK

    def object(self) -> dict[str, Any]:
        """Return the object in the body.

        Raises:
            NotPassableError: There is none, so nobody can say what the caller would see.
        """
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise NotPassableError(Reason.OBLIGATION_UNSUPPORTED)
        return found

    def replaced(self, content: Mapping[str, Any]) -> None:
        """Put `content` in place of the body."""
        self.body = bytearray(json.dumps(content).encode())

    def messages(self) -> tuple[Message, Message]:
        """Return the messages that send it."""
        fields = [one for one in self.headers if one[0].lower() != b"content-length"]
        fields.append((b"content-length", str(len(self.body)).encode()))
        return (
            {"type": "http.response.start", "status": self.status, "headers": fields},
            {"type": "http.response.body", "body": bytes(self.body), "more_body": False},
        )


async def whole(app: Application, scope: Scope, receive: Receive, *, patience_s: float) -> Reply:
    """Return the application's whole response.

    Raises:
        NotPassableError: It is larger than what we read.
        TimeoutError: It takes too long.
    """
    reply = Reply()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            reply.status, reply.headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            reply.body += message.get("body", b"")
            if len(reply.body) > LIMITS.reply_bytes:
                raise NotPassableError(Reason.OBLIGATION_UNSUPPORTED)

    async with asyncio.timeout(patience_s):
        await app(scope, receive, send)
    return reply


class Upstream:
    """Asks the application.

    Args:
        app: It.
        host: The `Host` under which the caller reached it: MLflow answers no other name than its own.
        homes: What is remembered of where runs and logged models belong; shared by all requests.
    """

    def __init__(self, app: Application, *, host: bytes, homes: "Homes") -> None:
        self._app, self._host, self._homes = app, host, homes

    async def ask(self, path: str, query: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the server says to a GET below `/api/2.0/mlflow`.

        Raises:
            RefusedError: There is no such thing.
            NotPassableError: The server cannot say.
        """
        try:
            reply = await whole(
                self._app, self._scope(f"/api/2.0/mlflow/{path}", query), _nothing, patience_s=LIMITS.unary_s
            )
        except TimeoutError:
            raise NotPassableError(Reason.DEADLINE_EXCEEDED) from None
        if reply.status in _NO_SUCH:
            raise RefusedError(f"the server knows nothing of that ({path})", tell=False)
        if not reply.ok:
            raise NotPassableError(Reason.INTERNAL_ERROR)
        return reply.object()

    def _scope(self, path: str, query: Mapping[str, Any]) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("ascii"),
            "query_string": urlencode(query).encode("ascii"),
            "root_path": "",
            "headers": [(b"host", self._host)],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
            "extensions": {},
        }

    async def experiment_of_run(self, run: str) -> str:
        """Return the experiment of a run. Raises as `ask`."""
        return await self._home(run, "runs/get", {"run_id": run}, ("run", "info", "experiment_id"))

    async def experiment_of_logged(self, model: str) -> str:
        """Return the experiment of a logged model. Raises as `ask`."""
        return await self._home(model, f"logged-models/{model}", {}, ("model", "info", "experiment_id"))

    async def version_at(self, name: str, alias: str) -> str:
        """Return the version that an alias names now. Raises as `ask`."""
        told = await self.ask("registered-models/alias", {"name": name, "alias": alias})
        return str(_under(told, ("model_version", "version")))

    async def version(self, name: str, version: str) -> Mapping[str, Any]:
        """Return what the registry says of a version. Raises as `ask`."""
        told = await self.ask("model-versions/get", {"name": name, "version": version})
        found = _under(told, ("model_version",))
        return found if isinstance(found, dict) else {}

    def remember(self, of: str, experiment: str) -> None:
        """Note where a new run or logged model belongs."""
        self._homes.put(of, experiment)

    async def _home(self, of: str, path: str, query: Mapping[str, str], keys: tuple[str, ...]) -> str:
        known = self._homes.get(of)
        if known is None:
            known = str(_under(await self.ask(path, query), keys))
            self._homes.put(of, known)
        return known


def _under(told: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if not isinstance(told, dict) or key not in told:
            raise NotPassableError(Reason.INTERNAL_ERROR)
        told = told[key]
    return told


class Homes:
    """Where runs and logged models belong: the server never moves one, so there is nothing to invalidate."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def get(self, of: str) -> str | None:
        """Return the experiment of a run or logged model; None: not known."""
        if of in self._known:
            self._known.move_to_end(of)
        return self._known.get(of)

    def put(self, of: str, experiment: str) -> None:
        """Remember it."""
        self._known[of] = experiment
        while len(self._known) > LIMITS.homes:
            self._known.popitem(last=False)


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
