"""The tree of commands. Each noun lives in a module of its own, imported only when one of its commands runs.

So `pdp --help` costs no more than its own text, and a dependency that only `pdp serve` needs cannot break `pdp check`.
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

import pdp
from pdp.cli.main import CTRL_C, missing
from pdp.errors import MEANINGS, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """Where a command comes from, and its line in `pdp --help`."""

    module: str
    help: str
    panel: str


_ASK: Final = "Ask"
_ADMINISTER: Final = "Administer"
_RUN: Final = "Run"

NOUNS: Final[dict[str, Noun]] = {
    "check": Noun(
        module="check", panel=_ASK, help="May this subject do this action to this resource? Exit 0 yes, 3 no."
    ),
    "explain": Noun(module="check", panel=_ASK, help="As check, and why: role path, and the rule that came closest."),
    "who-can": Noun(module="lists", panel=_ASK, help="Everyone who can do this action to this resource."),
    "what-can": Noun(module="lists", panel=_ASK, help="Everything that a principal can do, to every registered asset."),
    "actions": Noun(module="lists", panel=_ASK, help="What a principal can do to one resource."),
    "policy": Noun(module="policy", panel=_ADMINISTER, help="Lint, test and apply a policy pack; show the live one."),
    "role": Noun(module="role", panel=_ADMINISTER, help="Who holds which role, where and until when; grant, revoke."),
    "access": Noun(
        module="access", panel=_ADMINISTER, help="A role for a time: ask for it, approve it, see who has what."
    ),
    "segment": Noun(module="segment", panel=_ADMINISTER, help="Which workload reaches what: edit, ask, draw."),
    "collection": Noun(
        module="collection", panel=_ADMINISTER, help="Which assets belong together, such as personal data."
    ),
    "asset": Noun(module="asset", panel=_ADMINISTER, help="Register assets, and list them."),
    "lock": Noun(module="lock", panel=_ADMINISTER, help="Lock out a principal, token or resource, now and everywhere."),
    "audit": Noun(module="audit", panel=_ADMINISTER, help="Verify the decision log, and read it."),
    "break-glass": Noun(
        module="break_glass", panel=_ADMINISTER, help="Get in with two root keys when the policy is broken; review it."
    ),
    "keys": Noun(module="keys", panel=_ADMINISTER, help="This PDP's keys: make, rotate, show."),
    "log": Noun(module="log", panel=_ADMINISTER, help="The world log: where it stands; repair a lost or split one."),
    "replicas": Noun(module="replicas", panel=_ADMINISTER, help="Which enforcement points hold which world."),
    "doctor": Noun(module="doctor", panel=_ADMINISTER, help="What is wrong between here and the PDP, in plain words."),
    "demo": Noun(module="demo", panel=_RUN, help="Watch a real model being protected, on this machine."),
    "init": Noun(module="serve", panel=_RUN, help="Make keys, root file and first world of a new PDP."),
    "serve": Noun(module="serve", panel=_RUN, help="Run a PDP."),
    "token": Noun(module="token", panel=_RUN, help="A development issuer of tokens; never for production."),
}


class LazyGroup(TyperGroup):
    """A group that knows its commands' help lines, and imports a command only to run it."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is the base class'
        """Return every command, in the order of the table."""
        return list(NOUNS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - as above
        """Return what stands for a command in a help text."""
        noun = NOUNS.get(cmd_name)
        return noun and TyperCommand(name=cmd_name, help=noun.help, rich_help_panel=noun.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the real command that `args` name."""
        name, known, rest = super().resolve_command(ctx, args)
        return name, known and load(name or ""), rest


def load(name: str) -> Any:
    """Import and return the command `name`: the module's function of that name, its `app`, or a command of its `app`.

    Raises:
        ConfigError: a dependency of the command is not installed; the message names it and the extra that brings it.
    """
    try:
        module = importlib.import_module(f"pdp.cli.{NOUNS[name].module}")
    except ModuleNotFoundError as error:
        raise missing(f"`pdp {name}`", error) from error
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(rich_markup_mode="markdown", add_completion=False)
        app.command(name)(getattr(module, name))
    command = typer.main.get_command(app)
    return getattr(command, "commands", {}).get(name, command)


root: Final = typer.Typer(cls=LazyGroup, rich_markup_mode="markdown", no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(pdp.__version__)
        raise typer.Exit


@root.callback()
def _pdp(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Portcullis decides who may do what to datasets, models and endpoints, and keeps deciding while the access lasts.

    Commands that talk to a PDP find it by `--server` or `PDP_SERVER`, and our credential by `--token-file` or
    `PDP_TOKEN_FILE`. Every command prints tables for people and, with `--json`, JSON for programs.

    Exit codes: 0 allowed or done, 1 our defect, 2 bad usage or input, 3 denied, 4 credential refused, 5 unavailable,
    6 conflict, 7 not found, 130 Ctrl-C.
    """


# Typer exports neither the base of its usage errors nor, in every version, the module it comes from.
_UsageError: Final[type[Any]] = typer.BadParameter.__mro__[2]


def invoke(arguments: Sequence[str]) -> int:
    """Run the command line `arguments` and return the exit code.

    Raises:
        PortcullisError: whatever the command could not do.
    """
    command = typer.main.get_command(root)
    try:
        code = command.main(list(arguments), prog_name="pdp", standalone_mode=False)
    except typer.Abort:
        return CTRL_C
    except _UsageError as error:
        return _usage(error)
    return code if isinstance(code, int) else 0


def _usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        path = error.ctx.command_path if getattr(error, "ctx", None) else "pdp"
        told = " ".join(error.format_message().split()).rstrip(".")
        sys.stderr.write(f"pdp: {told}; `{path} --help` shows how\n")
    return MEANINGS[Reason.BAD_REQUEST].exit_code
