"""`pdp audit prune`: keep the decision log as long as the rules say, and no longer, without a gap that nobody can explain."""

import getpass
import socket
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from pdp.adapters.audit_cursors import read_cursors
from pdp.adapters.audit_file import RECEIVED, Segment, folders, segments
from pdp.adapters.audit_key import audit_signer
from pdp.adapters.audit_prune import Pruning, prune
from pdp.cli.options import AsJson, instant_text, parse_duration_ms
from pdp.cli.output import write_json, write_line
from pdp.cli.settings import ConfigFile, StateDir, configuration
from pdp.config import Config
from pdp.errors import ConfigError
from pdp.model.names import counted

_NOBODY: Final = "nobody"


def prune_command(
    *,
    older_than: Annotated[str, typer.Option(metavar="DURATION", help="Such as `400d`: what is wholly older goes.")],
    because: Annotated[str, typer.Option(metavar="TEXT", help="The rule that says so; it stands in the tombstone.")],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who removes it.  [this account on this machine]")] = "",
    state_dir: StateDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove the oldest segments of every chain, and sign what is gone: by whom, when, why. The PDP may go on running.

    A segment goes when all in it is older, in whole segments of 64 MiB, and never the last. In their place stays a tombstone over
    the Merkle tree of exactly those records, signed with the audit key of this state directory. `pdp audit verify` then says
    `pruned` (exit code 4) and what is missing; any other gap stays a broken chain. A chain that does not verify is not touched,
    nor what a configured sink has not been brought yet.

    Example: `pdp audit prune --older-than 400d --because 'retention rule 7'`
    """
    settings = configuration(config, {("state_dir",): state_dir})
    before_ms = time.time_ns() // 1_000_000 - parse_duration_ms(older_than)
    signer = audit_signer(settings.state_dir)
    pruning = Pruning(before_ms=before_ms, at=_now(), by=by or _account(), why=because)
    gone = []
    for directory, chain in _chains(settings.audit_dir):
        gap = prune(directory, chain, pruning, signer, _undelivered(settings, directory, chain))
        if gap is not None:
            gone.append((chain, gap))
    if as_json:
        write_json({"removed": [{"chain": chain, "first": gap.first, "last": gap.last} for chain, gap in gone]})
        return
    for chain, gap in gone:
        write_line(f"{chain}: {gap}")
    write_line(f"removed from {counted(len(gone), 'chain')}; index and queries follow by themselves")


def _undelivered(settings: Config, directory: Path, chain: str) -> int:
    """Return the first record that a configured sink has not been brought yet; 0 without a sink."""
    home = directory.parent if directory.name == RECEIVED else directory
    return min((read_cursors(home, sink.name).get(chain, 0) + 1 for sink in settings.audit.sinks), default=0)


def _chains(directory: Path) -> list[tuple[Path, str]]:
    found: list[Segment] = [item for below in folders(directory) for item in segments(below)]
    if not found:
        raise ConfigError(f"there is no chain in {directory}", advice="name the right --state-dir")
    return sorted({(segment.path.parent, segment.chain) for segment in found})


def _now() -> str:
    return instant_text(time.time_ns() // 1_000_000).replace(" ", "T")


def _account() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as containers have them
        name = _NOBODY
    return f"{name}@{socket.gethostname()}"
