"""Which decisions a command is about, and where their log lies: the options that all of them share."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.adapters.audit_index import AuditIndex
from pdp.audit.query import Wanted
from pdp.cli.options import Command, bundled, parse_duration_ms
from pdp.cli.settings import ConfigFile, StateDir, configuration
from pdp.config import Config
from pdp.errors import BadRequestError
from pdp.model.attributes import instant_ms

_PANEL: Final = "Which decisions: all that is given must fit; `*` stands for any text"
_EFFECTS: Final = ("", "allow", "deny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a decision log lies."""

    audit: Path | None
    state_dir: Path | None
    config: Path | None
    rebuild: bool

    @property
    def named(self) -> bool:
        """True if somebody said where it lies."""
        return bool(self.audit or self.state_dir or self.config)

    def index(self) -> AuditIndex:
        """Return the index of the log, brought up to date."""
        return AuditIndex.open(self.audit or self.settings().audit_dir, rebuild=self.rebuild)

    def settings(self) -> Config:
        """Return the PDP's configuration."""
        return configuration(self.config, {("state_dir",): self.state_dir})


def _pattern(name: str, text: str) -> tuple[Any, Any]:
    option = typer.Option(f"--{name}", metavar="PATTERN", help=text, rich_help_panel=_PANEL)
    return Annotated[str, option], ""


def _when(name: str, text: str) -> tuple[Any, Any]:
    return Annotated[str, typer.Option(f"--{name}", metavar="WHEN", help=text, rich_help_panel=_PANEL)], ""


_FILTERS: Final[Mapping[str, tuple[Any, Any]]] = {
    "subject": _pattern("subject", "Who, such as `user:bob@example.com` or `agent:*`."),
    "actor": _pattern("actor", "Who acted for them; one of several."),
    "workload": _pattern("workload", "From which workload."),
    "action": _pattern("action", "Such as `dataset.read` or `model.*`."),
    "resource": _pattern("resource", "Such as `dataset/pii/*`; without `@`, every version."),
    "version": _pattern("version", "The version alone."),
    "rule": _pattern("rule", "A rule that determined it: `grants.csv:6`, `grants.csv:*`."),
    "reason": _pattern("reason", "Such as `no_grant`; docs/reason-codes.md."),
    "effect": (Annotated[str, typer.Option(metavar="allow|deny", help="Only these.", rich_help_panel=_PANEL)], ""),
    "world": (
        Annotated[int, typer.Option(metavar="N", min=0, help="Decided in this world; 0: any.", rich_help_panel=_PANEL)],
        0,
    ),
    "since": _when("since", "`7d`, or an instant such as `2026-11-20T08:00:00Z`."),
    "until": _when("until", "As --since: not after this."),
}
_PLACE: Final[Mapping[str, tuple[Any, Any]]] = {
    "audit": (
        Annotated[
            Path | None,
            typer.Option(metavar="DIR", help="Chains, also in folders below; by default those of the state directory."),
        ],
        None,
    ),
    "state_dir": (StateDir, None),
    "config": (ConfigFile, None),
    "rebuild": (
        Annotated[bool, typer.Option("--rebuild", help="Make the index anew first: for whoever doubts it.")],
        False,
    ),
}


def filtered(command: Command) -> Callable[..., None]:
    """Give a command the options that filter decisions in place of its parameter `wanted`."""
    return bundled("wanted", _FILTERS, _wanted)(command)


def placed(command: Command) -> Callable[..., None]:
    """Give a command the options that say where the log lies in place of its parameter `place`."""
    return bundled("place", _PLACE, Place)(command)


def moment(text: str) -> int:
    """Return the instant that `7d` (before now) or an RFC 3339 text names, in milliseconds; 0 for nothing.

    Raises:
        BadRequestError: it is neither.
    """
    if not text:
        return 0
    if text[-1:] in "smhd" and text[:-1].isdigit():
        return time.time_ns() // 1_000_000 - parse_duration_ms(text)
    return instant_ms(text)


def _wanted(*, effect: str, world: int, since: str, until: str, **patterns: str) -> Wanted:
    if effect not in _EFFECTS:
        raise BadRequestError("`--effect` is `allow` or `deny`")
    return Wanted(effect=effect, world_seq=world, since_ms=moment(since), until_ms=moment(until), **patterns)
