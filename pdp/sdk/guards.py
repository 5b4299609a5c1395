"""Guards: an access decided in front of a function, a web endpoint or an RPC, in one line.

    guards = Guards(client)

    @guards.requires("model.download", resource="model/{name}@{version}")
    def download(name: str, version: str) -> bytes: ...

    @app.get("/models/{name}/{version}", dependencies=[Depends(guards.dependency(
        "model.download", resource="model/{name}@{version}"))])
    async def endpoint(name: str, version: str): ...

The resource is a template over the function's arguments, or over the path's parameters; `{name:path}` takes several segments
and stands last. Each value is one whole segment, so that no caller can spell another resource with it. A function is decided
for whoever the client is, or for whom `subject` says; a web endpoint for whoever's bearer token came with the request, and
nobody else. `pdp.sdk.grpc_guard` is the same for gRPC servers.
"""

import asyncio
import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec, TypeVar, cast

from pdp.errors import MEANINGS, ConfigError, Reason
from pdp.sdk.errors import AccessDenied, BadQuestion, PdpError
from pdp.sdk.protocols import AsyncChecks, Checks
from pdp.sdk.values import AttributeValue, Bearer, Circumstances, Decision, Subject

if TYPE_CHECKING:
    from starlette.requests import Request

P = ParamSpec("P")
R = TypeVar("R")

_FIELD: Final = re.compile(r"\{([a-z_][a-z0-9_]*)(:path)?\}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*(:[A-Za-z0-9._-]+)?")
_RETRY_AFTER_S: Final = "1"


class Template:
    """The name of a resource with `{fields}` to fill in.

    Raises:
        ConfigError: `{x:path}` anywhere but at the end, or a brace that opens no field.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        fields = list(_FIELD.finditer(text))
        self.fields = tuple(match[1] for match in fields)
        wide = [match for match in fields if match[2]]
        # Two fields that may hold slashes would read one name in two ways.
        if any(match.end() != len(text) for match in wide):
            raise ConfigError(f"resource `{text}`: a field with `:path` stands last")
        if set(_FIELD.sub("", text)) & set("{}"):
            raise ConfigError(f"resource `{text}`: write fields as {{name}} or {{name:path}}")

    def fill(self, values: Mapping[str, Any]) -> str:
        """Return the name with `values` in it.

        Raises:
            BadQuestion: a value that is no segment of a name.
        """
        return _FIELD.sub(lambda match: self._value(match, values), self._text)

    def _value(self, match: re.Match[str], values: Mapping[str, Any]) -> str:
        value = values[match[1]]
        text = value if isinstance(value, str) else str(value) if type(value) is int else ""
        parts = text.split("/") if match[2] else [text]
        if not all(map(_SEGMENT.fullmatch, parts)):
            raise BadQuestion(Reason.BAD_NAME, f"`{match[1]}` is no part of a resource's name")
        return text


class Guards:
    """Makes guards that ask one client.

    Args:
        client: `Client` or `LocalClient`; for asyncio code also `AsyncClient`, which is better there.
    """

    def __init__(self, client: Checks | AsyncChecks) -> None:
        self._client = client
        self._awaits = inspect.iscoroutinefunction(client.check)

    def requires(
        self,
        action: str,
        *,
        resource: str,
        subject: Callable[..., Subject] | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator: the function runs only if the access is granted.

        On a web endpoint that takes Starlette's `request`, it decides for the bearer token that came with it and answers
        401, 403 or 503; on any other function it raises.

        Args:
            action: `<type>.<verb>`.
            resource: a template over the function's arguments, or the path's parameters.
            subject: called with the function's arguments by name; who asks. None: the client itself.
            attributes: `request.*` values.

        Raises:
            ConfigError: a field of the template that the function has no argument for, an `AsyncClient` in front of
                blocking code, or a web endpoint that blocks.
        """
        template = Template(resource)

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            signature = inspect.signature(function)
            web = _takes_request(signature)
            if web and not inspect.iscoroutinefunction(function):
                # Let through here, it would be decided for the service itself, and not for its caller.
                raise ConfigError(
                    f"{function.__qualname__} is a blocking web endpoint",
                    advice="make it `async def`, or use `dependency`",
                )
            if not web:
                self._check(function, template, signature)

            async def ask_first(*args: P.args, **kwargs: P.kwargs) -> R:
                bound = _arguments(signature, args, kwargs)
                if web:
                    await self._admit(bound["request"], action, template, attributes or {})
                else:
                    await self._ask_async(action, template.fill(bound), _about(bound, subject, attributes))
                return await cast("Awaitable[R]", function(*args, **kwargs))

            def ask_first_blocking(*args: P.args, **kwargs: P.kwargs) -> R:
                bound = _arguments(signature, args, kwargs)
                self._ask(action, template.fill(bound), _about(bound, subject, attributes))
                return function(*args, **kwargs)

            chosen = ask_first if inspect.iscoroutinefunction(function) else ask_first_blocking
            return cast("Callable[P, R]", functools.wraps(function)(chosen))

        return decorate

    def dependency(
        self, action: str, *, resource: str, attributes: Mapping[str, AttributeValue] | None = None
    ) -> Callable[..., Awaitable[Decision]]:
        """Return a dependency for FastAPI's `Depends`, whose value is the decision.

        It decides for the bearer token of the request; the template is filled from the path's parameters. It answers 401
        without a good token, 403 if access is denied, 503 if nobody can decide.
        """
        from starlette.requests import Request  # noqa: PLC0415 - of the extra `server`, or FastAPI's own

        template = Template(resource)

        async def decided(request: Request) -> Decision:
            return await self._admit(request, action, template, attributes or {})

        # FastAPI reads the annotation to know what to pass.
        decided.__annotations__["request"] = Request
        return decided

    # Asking.

    def _ask(self, action: str, resource: str, about: Circumstances) -> Decision:
        decision = cast("Checks", self._client).check(action, resource, **about)
        if not decision.allowed:
            raise AccessDenied(decision, action=action, resource=resource)
        return decision

    async def _ask_async(self, action: str, resource: str, about: Circumstances) -> Decision:
        if self._awaits:
            decision = await cast("AsyncChecks", self._client).check(action, resource, **about)
        else:
            decision = await asyncio.to_thread(cast("Checks", self._client).check, action, resource, **about)
        if not decision.allowed:
            raise AccessDenied(decision, action=action, resource=resource)
        return decision

    async def _admit(
        self, request: "Request", action: str, template: Template, attributes: Mapping[str, AttributeValue]
    ) -> Decision:
        """Decide for the bearer of a request, or answer it with a refusal."""
        token = bearer_token(request.headers.getlist("authorization"))
        if token is None:
            _refuse(Reason.CREDENTIAL_MISSING)
        try:
            return await self._ask_async(
                action, template.fill(request.path_params), {"subject": Bearer(token), "attributes": attributes}
            )
        except AccessDenied as denied:
            _refuse(denied.reason, denied.decision_id)
        except BadQuestion as error:
            _refuse(error.reason)
        except PdpError:
            # Ours, whatever it is: the caller's own credential comes back as a deny.
            _refuse(Reason.PDP_UNREACHABLE)

    def _check(self, function: Callable[..., Any], template: Template, signature: inspect.Signature) -> None:
        missing = [name for name in template.fields if name not in signature.parameters]
        if missing:
            raise ConfigError(
                f"{function.__qualname__} has no argument `{missing[0]}`", advice="the resource is a template over them"
            )
        if self._awaits and not inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"{function.__qualname__} blocks, and its guard would have to await", advice="give Guards a Client"
            )


def bearer_token(values: list[str]) -> str | None:
    """Return the token of the one `Authorization: Bearer` value; None: there is none, or more than one (EX-12)."""
    if len(values) != 1 or "," in values[0]:
        return None
    scheme, _, token = values[0].partition(" ")
    return token if scheme.lower() == "bearer" and token and token.isascii() and " " not in token else None


def status_of(reason: Reason) -> int:
    """Return the HTTP status of a refusal: 401 credential, 403 policy or malformed, 503 cannot decide."""
    status = MEANINGS[reason].http
    return status if status in {401, 403, 503} else 403


def _refuse(reason: Reason, decision_id: str = "") -> NoReturn:
    """Answer a request with a refusal; what is unknown and what is forbidden are the same words (FAILURE.md N10)."""
    from starlette.exceptions import HTTPException  # noqa: PLC0415 - of the extra `server`, or FastAPI's own

    status = status_of(reason)
    words = {401: reason.value, 403: "forbidden", 503: "unavailable"}[status]
    headers = {
        401: {"WWW-Authenticate": 'Bearer error="invalid_token"'},
        503: {"Retry-After": _RETRY_AFTER_S},
    }.get(status)
    told = f"{words}, decision {decision_id}" if decision_id else words
    raise HTTPException(status, told, headers)


def _takes_request(signature: inspect.Signature) -> bool:
    """Tell whether a function is a Starlette endpoint: it takes `request`, so annotated or not at all."""
    parameter = signature.parameters.get("request")
    if parameter is None:
        return False
    named = parameter.annotation
    name = named if isinstance(named, str) else getattr(named, "__name__", "")
    return named is inspect.Parameter.empty or name.rpartition(".")[2] == "Request"


def _arguments(signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _about(
    bound: Mapping[str, Any],
    subject: Callable[..., Subject] | None,
    attributes: Mapping[str, AttributeValue] | None,
) -> Circumstances:
    about: Circumstances = {"attributes": attributes} if attributes else {}
    if subject is not None:
        about["subject"] = subject(**bound)
    return about
