"""Options that commands share, declared once."""

import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import typer

from pdp.errors import BadRequestError
from pdp.limits import DEFAULT_DEADLINE_S
from pdp.model.attributes import parse_instant
from pdp.sdk import Client
from pdp.sdk.admin import AdminClient
from pdp.sdk.values import AttributeValue

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables for people.")]

_PANEL: Final = "How to reach the PDP"
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d{1,9})([smhd])")


def noun(text: str) -> typer.Typer:
    """Return the app that holds the commands of one noun."""
    return typer.Typer(help=text, rich_markup_mode="markdown", no_args_is_help=True, add_completion=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a command reaches its PDP, as the options and the environment say."""

    server: str | None
    token_file: Path | None
    ca: Path | None
    cert: Path | None
    key: Path | None
    timeout_s: float

    def client(self) -> Client:
        """Return a client that asks."""
        return Client(
            self.server, token=self.token_file, ca=self.ca, cert=self.cert, key=self.key, timeout_s=self.timeout_s
        )

    def admin(self) -> AdminClient:
        """Return a client that administers."""
        return AdminClient(
            self.server, token=self.token_file, ca=self.ca, cert=self.cert, key=self.key, timeout_s=self.timeout_s
        )


def _option(name: str, text: str, *, envvar: str | None = None, metavar: str | None = None) -> Any:
    return typer.Option(
        f"--{name}", help=text, envvar=envvar, metavar=metavar, rich_help_panel=_PANEL, show_default=False
    )


_OPTIONS: Final[Mapping[str, tuple[Any, Any]]] = {
    "server": (
        Annotated[str | None, _option("server", "Address of the PDP.", envvar="PDP_SERVER", metavar="HOST:PORT")],
        None,
    ),
    "token_file": (
        Annotated[
            Path | None,
            _option("token-file", "File with our token; it may rotate.", envvar="PDP_TOKEN_FILE", metavar="FILE"),
        ],
        None,
    ),
    "ca": (
        Annotated[Path | None, _option("ca", "Authorities we accept, PEM.", envvar="PDP_CA", metavar="FILE")],
        None,
    ),
    "cert": (
        Annotated[Path | None, _option("cert", "Our certificate, PEM.", envvar="PDP_CERT", metavar="FILE")],
        None,
    ),
    "key": (Annotated[Path | None, _option("key", "Its private key, PEM.", envvar="PDP_KEY", metavar="FILE")], None),
    "timeout_s": (
        Annotated[float, _option("timeout", "Deadline of a call, at most 30.", metavar="SECONDS")],
        DEFAULT_DEADLINE_S,
    ),
}


class Command(Protocol):
    """A command's function, which typer calls with what it declares."""

    __name__: str

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Run the command."""
        ...


def bundled(
    name: str, options: Mapping[str, tuple[Any, Any]], make: Callable[..., Any]
) -> Callable[[Command], Callable[..., None]]:
    """Return what gives a command `options` (annotation and default by name) in place of its parameter `name`.

    The command gets what `make` makes of them. typer reads signatures; so the signature it sees is made here, once, instead of
    repeated in every command.
    """

    def decorate(command: Command) -> Callable[..., None]:
        @functools.wraps(command)
        def run(*args: Any, **given: Any) -> None:
            made = make(**{option: given.pop(option) for option in options})
            command(*args, **given, **{name: made})

        signature = inspect.signature(command, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.name != name]
        shared = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for option, (annotation, default) in options.items()
        ]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + shared
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def connected(command: Command) -> Callable[..., None]:
    """Give a command the options of `Connection` in place of its parameter `connection`."""
    return bundled("connection", _OPTIONS, Connection)(command)


def parse_pairs(texts: Sequence[str]) -> dict[str, AttributeValue]:
    """Return `name=value` texts as attributes; see `parse_value`.

    Raises:
        BadRequestError: no `=`, or a name given twice.
    """
    pairs: dict[str, AttributeValue] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadRequestError(f"`{text}` is not NAME=VALUE")
        if name in pairs:
            raise BadRequestError(f"`{name}` is given twice")
        pairs[name] = parse_value(value)
    return pairs


def parse_value(text: str) -> AttributeValue:
    """Return the value a person wrote: `true`, `3`, `0.5`, `["a","b"]`, an instant `2026-11-20T08:00:00Z`, else a text.

    `"3"` in double quotes is the text 3.
    """
    try:
        value = json.loads(text)
    except ValueError:
        return _instant_or_text(text)
    if isinstance(value, bool | int | float | str | list):
        return value
    return text


def _instant_or_text(text: str) -> AttributeValue:
    try:
        return parse_instant(text)
    except BadRequestError:
        return text


def parse_duration_ms(text: str) -> int:
    """Return a duration such as `90s`, `15m`, `1h` or `7d` in milliseconds.

    Raises:
        BadRequestError: anything else.
    """
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise BadRequestError(f"`{text}` is not a duration such as `90s`, `15m`, `1h` or `7d`")
    return int(match[1]) * _UNITS_S[match[2]] * 1000


def instant_text(time_ms: int) -> str:
    """Return an instant for people: UTC to the second, or nothing for 0."""
    if not time_ms:
        return ""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def check_proof_options(proof: str, method: str, url: str) -> None:
    """Refuse a proof without its request, and a request without its proof.

    Raises:
        BadRequestError: one of the three is missing.
    """
    if len({bool(part) for part in (proof, method, url)}) > 1:
        raise BadRequestError("a proof is of one request: give `--proof`, `--method` and `--url` together")
