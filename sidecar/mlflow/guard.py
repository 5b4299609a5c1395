"""The middleware around MLflow's application: each request is read, decided, passed on, and learnt from.

Every path of every answer begins with `Gate.admit` (route and credential) and goes through `Gate.judge`, as behind Envoy: there
is one decision path. Bytes stream through and are decided again while they do; where the answer itself must be looked at, it
comes whole first.

Source: ENFORCEMENT.md 3.3, 5.2.
"""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

from pdp.errors import BadNameError, Reason
from pdp.model.names import Resource
from sidecar.asgi import PolicyMiddleware, Request, replayed
from sidecar.asgi_door import Door
from sidecar.asgi_scope import Application, Receive, Scope, Send, asked, handed_on, refuse, with_length
from sidecar.asked import Admitted, Verdict
from sidecar.bodies import UNREAD, BadBody, Content
from sidecar.exchange import NotPassableError
from sidecar.limits import LIMITS
from sidecar.mlflow import lists, words
from sidecar.mlflow.facts import Facts, Inventory
from sidecar.mlflow.meanings import meaning_of, narrowed
from sidecar.mlflow.plan import About, Plan, Want
from sidecar.mlflow.upstream import Homes, Reply, Upstream, whole
from sidecar.mlflow.words import RefusedError, Words
from sidecar.replies import Denial
from sidecar.routes import Body, Placement, Row
from sidecar.routes import Scope as Scoped

_LOG: Final = logging.getLogger(__name__)
_WORKSPACE: Final = "x-mlflow-workspace"
_CODES: Final = MappingProxyType(
    {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "REQUEST_LIMIT_EXCEEDED", 503: "TEMPORARILY_UNAVAILABLE"}
)
_MALFORMED: Final = (KeyError, TypeError, AttributeError, ValueError)
"""What an answer of another shape than MLflow's makes our own code raise."""


class MlflowMiddleware(PolicyMiddleware):
    """`PolicyMiddleware` for MLflow's application."""

    def __init__(self, app: Application, *, door: Door | None = None) -> None:
        super().__init__(app, door=door)
        self._homes = Homes()
        self._known: tuple[Inventory, Facts] | None = None

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super()._lifespan(scope, receive, send)
        finally:
            if self._known is not None:
                await self._known[1].stop()

    async def _closed(self, send: Send, verdict: Verdict) -> None:
        await refuse(send, dressed(verdict.denial, what="every request", why=""))

    async def _request(self, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        if door.inventory is None:
            _LOG.error("the routes file does not name `mlflow` among its protocols: everything is denied")
            await self._closed(send, Verdict(allowed=False, reason=Reason.INTERNAL_ERROR))
            return
        if self._known is None or self._known[0] is not door.inventory:
            self._known = door.inventory, Facts(door.inventory)
        await MlflowRequest(self._app, door, scope, receive, send, facts=self._known[1], homes=self._homes).serve()


class MlflowRequest(Request):
    """One request to MLflow, and its answer."""

    def __init__(
        self, app: Application, door: Door, scope: Scope, receive: Receive, send: Send, *, facts: Facts, homes: Homes
    ) -> None:
        super().__init__(app, door, scope, receive, send)
        self._facts = facts
        host = next((value for name, value in scope["headers"] if name.lower() == b"host"), b"localhost")
        self._upstream = Upstream(app, host=host, homes=homes)
        self._what = f"{scope['method']} of this address"
        self._why = ""

    async def serve(self) -> None:
        """Decide, pass on, and answer."""
        headers, ask = asked(self._scope, self._scope["method"])
        admitted = await self._door.gate.admit(ask, Placement.ASGI)
        if isinstance(admitted, Verdict):
            await self._refused(admitted)
            return
        self._what = f"`{admitted.row.action}`"
        try:
            await self._serve(admitted, headers)
        except RefusedError as fault:
            self._why = fault.why if fault.tell else ""
            await self._refused(await self._door.gate.judge(admitted, BadBody(why=fault.why)))
        except (NotPassableError, TimeoutError) as fault:
            reason = fault.reason if isinstance(fault, NotPassableError) else Reason.DEADLINE_EXCEEDED
            recorded = await self._door.gate.judge(admitted, BadBody(why=f"MLflow or the PDP did not say: {reason}"))
            await self._refused(recorded.refused(reason))

    async def _refused(self, verdict: Verdict) -> None:
        await refuse(self._send, dressed(verdict.denial, what=self._what, why=self._why))

    async def _serve(self, admitted: Admitted, headers: Mapping[str, str]) -> None:
        await self._facts.caught_up()
        said, body = await self._read(admitted, headers)
        plan = await self._plan(admitted, said)
        granted = await self._each(admitted, plan.wants)
        if plan.some:
            chosen, granted = await self._some(admitted, plan)
            body = narrowed(said, plan.field, chosen)
            self._scope = with_length(self._scope, len(body))
        refused = [verdict for verdict in granted if not verdict.allowed]
        if refused:
            await self._refused(refused[0])
            return
        await self._facts.must(plan.first)
        if plan.shown is not None:
            await self._list(admitted, said, plan)
        elif plan.whole:
            await self._answer(admitted, plan, granted, body)
        else:
            await self._pass(granted[0], UNREAD, body, *granted[1:])

    # -- what is asked -----------------------------------------------------------------------------------------------

    async def _read(self, admitted: Admitted, headers: Mapping[str, str]) -> tuple[Words, bytes | None]:
        if headers.get(_WORKSPACE):
            # Everything is named the same in another workspace, and would be decided as if it lay in this one.
            raise RefusedError("workspaces are not known to the policy")
        found = admitted.mapped.found
        if admitted.row.method == "GET":
            if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
                raise RefusedError("a body on a GET")  # MLflow reads it, unless there is a query
            return Words(values=words.of_query(self._query, repeated=_repeated(admitted.row)), found=found), None
        if admitted.row.body is not Body.JSON:
            return Words(values={}, found=found), None
        body = await self._whole()
        if body is None:
            raise RefusedError("no whole body within the limits")
        return Words(values=words.of_body(body, headers), found=found), body

    @property
    def _query(self) -> str:
        return str(self._scope.get("query_string", b"").decode("latin-1"))

    async def _plan(self, admitted: Admitted, said: Words) -> Plan:
        row, inventory = admitted.row, self._door.inventory
        if row.scope is not Scoped.LOOKED_UP:
            return Plan(wants=(Want(action=row.action, resource=admitted.mapped.resource),))
        if inventory is None:
            raise NotPassableError(Reason.INTERNAL_ERROR)
        about = About(
            row=row,
            words=said,
            registry=inventory.registry,
            server=inventory.server,
            upstream=self._upstream,
            facts=self._facts,
            subject=str(admitted.who.party.principal),
        )
        return await meaning_of(row)(about)

    # -- what is answered --------------------------------------------------------------------------------------------

    async def _one(self, admitted: Admitted, want: Want) -> Verdict:
        try:
            Resource.parse(want.resource)
        except BadNameError:  # MLflow lets names be that the inventory has no place for
            return await self._door.gate.judge(admitted, BadBody(why="a name that the inventory cannot hold"))
        mapped = replace(admitted.mapped, resource=want.resource)
        content = Content(action=want.action, attributes=want.attributes)
        return await self._door.gate.judge(replace(admitted, mapped=mapped), content)

    async def _each(self, admitted: Admitted, wants: Sequence[Want]) -> tuple[Verdict, ...]:
        """Decide several questions; they share one flush of the audit chain."""
        found: list[Verdict] = []
        for start in range(0, len(wants), LIMITS.decide_at_once):
            part = wants[start : start + LIMITS.decide_at_once]
            found += await asyncio.gather(*(self._one(admitted, want) for want in part))
        return tuple(found)

    async def _some(self, admitted: Admitted, plan: Plan) -> tuple[list[str], tuple[Verdict, ...]]:
        """Return those of a list that are granted, with their verdicts; if none is, the refusals."""
        verdicts = await self._each(admitted, tuple(plan.some.values()))
        _sure(verdicts)
        allowed = [(word, verdict) for word, verdict in zip(plan.some, verdicts, strict=True) if verdict.allowed]
        return [word for word, _ in allowed], tuple(verdict for _, verdict in allowed) or verdicts

    async def _seen(self, admitted: Admitted, names: Sequence[str]) -> list[bool]:
        verdicts = await self._each(admitted, [Want(action=admitted.row.action, resource=name) for name in names])
        _sure(verdicts)
        return [verdict.allowed for verdict in verdicts]

    async def _list(self, admitted: Admitted, said: Words, plan: Plan) -> None:
        shown, last = plan.shown, Reply()
        if shown is None:
            raise NotPassableError(Reason.INTERNAL_ERROR)

        async def fetch(token: str, size: int) -> tuple[Sequence[Any], str]:
            nonlocal last
            last = await self._asked_again(said, {"max_results": size, "page_token": token})
            told = last.object() if last.ok else {}
            return told.get(shown.items, ()), str(told.get("next_page_token", ""))

        async def seen(items: Sequence[Any]) -> list[bool]:
            return await self._seen(admitted, [shown.named(item) for item in items])

        size, start = lists.wanted(said)
        page = await lists.filled(size, start, fetch=fetch, seen=seen)
        if last.ok:
            items = [await self._trimmed(admitted, item, plan.trims) for item in page.items]
            last.replaced({shown.items: items} | ({"next_page_token": page.token} if page.token else {}))
        await self._send_whole(last)

    async def _asked_again(self, said: Words, changed: Mapping[str, Any]) -> Reply:
        """Ask the application for a page of its own."""
        values = {key: value for key, value in ({**said.values, **changed}).items() if value != ""}
        scope = self._handed_on(())
        if scope["method"] == "GET":
            scope["query_string"] = urlencode(values, doseq=True).encode("ascii")
            return await whole(self._app, scope, replayed(b"", self._receive), patience_s=LIMITS.unary_s)
        body = json.dumps(values).encode()
        scope = with_length(scope, len(body))
        return await whole(self._app, scope, replayed(body, self._receive), patience_s=LIMITS.unary_s)

    async def _answer(self, admitted: Admitted, plan: Plan, granted: Sequence[Verdict], body: bytes | None) -> None:
        """Pass a request on whose answer decides, shows versions, or is learnt from."""
        scope = self._handed_on(granted[0].given if granted else ())
        receive = replayed(body or b"", self._receive)
        reply = await whole(self._app, scope, receive, patience_s=LIMITS.stream_idle_s)
        if reply.ok:
            refused = await self._looked_at(admitted, plan, reply)
            if refused is not None:
                await self._refused(refused)
                return
        await self._send_whole(reply)

    async def _looked_at(self, admitted: Admitted, plan: Plan, reply: Reply) -> Verdict | None:
        """Decide on an answer, trim it, learn from it; return the refusal if it may not be seen at all."""
        try:
            told = reply.object()
            if plan.names is not None:
                verdict = await self._one(admitted, plan.names(told))
                if not verdict.allowed:
                    return verdict
            if plan.trims:
                reply.replaced(await self._trimmed(admitted, told, plan.trims))
            if plan.learns is not None:
                await self._facts.learn(plan.learns(told))
        except _MALFORMED as fault:
            _LOG.warning("an answer of MLflow's has another shape than ours: %r", fault)
            raise NotPassableError(Reason.INTERNAL_ERROR) from None
        return None

    async def _trimmed(self, admitted: Admitted, told: Mapping[str, Any], trims: Sequence[str]) -> dict[str, Any]:
        """Return an answer with only those of its versions that the caller may see."""
        found = dict(told)
        for trim in trims:
            key, _, inner = trim.partition(".")
            value = found.get(key)
            if inner and isinstance(value, dict):
                found[key] = await self._trimmed(admitted, value, (inner,))
            elif not inner and isinstance(value, list):
                visible = await self._seen(admitted, [f"model/{one['name']}@{one['version']}" for one in value])
                found[key] = [one for one, may in zip(value, visible, strict=True) if may]
        return found

    def _handed_on(self, given: Sequence[tuple[str, str]]) -> Scope:
        scope = handed_on(self._scope, given=given, forward_credentials=self._door.forward_credentials)
        scope["headers"] = [field for field in scope["headers"] if field[0] != b"accept-encoding"]
        return scope

    async def _send_whole(self, reply: Reply) -> None:
        for message in reply.messages():
            await self._send(message)


def _sure(verdicts: Sequence[Verdict]) -> None:
    """Refuse a list of which something is undecided: it would be shown as if it did not exist.

    Raises:
        NotPassableError: Something is.
    """
    for verdict in verdicts:
        if not verdict.allowed and verdict.denial.status not in {401, 403}:
            raise NotPassableError(verdict.reason)


def _repeated(row: Row) -> frozenset[str]:
    several = {"run_id"} if row.name.endswith(".metric_history_bulk") else set()
    return words.REPEATED | several


def dressed(denial: Denial, *, what: str, why: str) -> Denial:
    """Return a refusal in the words of MLflow's own errors, which its client raises as they are."""
    said = json.loads(denial.body)
    words_of_it = [f"{what}: {said['error']} ({said['reason']})"]
    words_of_it += [why] if why else []
    words_of_it += [f"decision {said['decision_id']}"] if said["decision_id"] else []
    code = "INVALID_PARAMETER_VALUE" if why else _CODES[denial.status]
    body = {"error_code": code, "message": "; ".join(words_of_it), **said}
    return replace(denial, body=json.dumps(body).encode("ascii"))
