"""`pdp audit checkpoint`, `prove` and `check-proof`: what others can hold the decision log to."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.adapters.audit_reader import acknowledged
from pdp.audit.chain import Verdict, unseal
from pdp.audit.checkpoint import notes_in
from pdp.audit.proof import Proof, Unproven
from pdp.cli.audit_files import Held, keys_of, read_chains, reading_of
from pdp.cli.audit_lines import record_line
from pdp.cli.options import AsJson
from pdp.cli.output import write_json, write_line
from pdp.errors import BadRequestError, ConfigError
from pdp.limits import MAX_PROOF_FILE_BYTES
from pdp.model.names import counted

DEFAULT_DIRECTORY: Final = Path("state/audit")
_PLACE: Final = re.compile(r"(?P<chain>[a-z0-9/-]{1,256}):(?P<n>[1-9]\d{0,14})")

Directory = Annotated[Path, typer.Argument(metavar="[DIR]", help="Directory with chains, also in folders below.")]
Keys = Annotated[
    list[Path], typer.Option("--key", metavar="FILE", help="Whose signature counts: an `audit.pub`. May be repeated.")
]


def checkpoint(path: Directory = DEFAULT_DIRECTORY, *, as_json: AsJson = False) -> None:
    """Print the newest signed checkpoint of each chain: what to keep where the log is not. Needs no server.

    Each chain is verified first. A writer signs every minute, before each new segment, and when it ends.

    Example: `pdp audit checkpoint state/audit > /mnt/worm/checkpoints-$(date +%F)`
    """
    notes = {name: reading_of(name, held).note for name, held in _chains(path).items()}
    if as_json:
        write_json({"checkpoints": [{"chain": name, "note": note} for name, note in notes.items() if note]})
    else:
        for line in "\n".join(filter(None, notes.values())).splitlines():
            write_line(line)
    for name in (name for name, note in notes.items() if not note):
        typer.echo(f"chain {name} has no checkpoint", err=True)


def prove(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="A decision's id, or CHAIN:N.")],
    path: Directory = DEFAULT_DIRECTORY,
    *,
    since: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An earlier checkpoint: show that the log only grew since then.")
    ] = None,
) -> None:
    """Print a proof that a record stands in the log, as JSON: for somebody who gets neither the log nor its names.

    The proof holds the whole record, a checkpoint that the writer signed, and the path from one to the other.
    Check it with `pdp audit check-proof`, on any machine.

    Example: `pdp audit prove 0f3a… state/audit > proof.json`
    """
    name, held, n, content = _found(record, _chains(path))
    reading = reading_of(name, held)
    note = _note(since, reading.note.split("\n", 1)[0]) if since else ""
    try:
        write_json(Proof.made(reading, content, n, note).to_json())
    except Unproven as error:
        raise ConfigError(str(error), advice="a running writer signs within a minute") from error


def check_proof(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="What `pdp audit prove` printed.")],
    *,
    key: Keys = [],  # noqa: B006 - typer copies it
    since: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A checkpoint that you hold: the log must have grown from it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a proof that a record stands in a decision log: by itself, without the log, a server or the network.

    Without `--key` the key in the proof counts: then it shows that the record is unchanged, not who wrote it.

    Exit code 0 if it holds, 1 if it does not, 2 if it is no proof.

    Example: `pdp audit check-proof proof.json --key audit.pub`
    """
    proof = _proof(path)
    try:
        record, held = proof.check(keys_of(key), _note(since, "") if since else "")
    except Unproven as error:
        write_json({"ok": False, "detail": str(error)}) if as_json else write_line(f"it does not hold: {error}")
        raise typer.Exit(int(Verdict.BROKEN)) from error
    by = proof.key.partition("+")[0]
    said = f"record {record['n']} of {held.origin} stands under the checkpoint over {counted(held.size, 'record')}"
    if as_json:
        write_json({"ok": True, "origin": held.origin, "size": held.size, "key": proof.key, "record": record})
        return
    write_line(record_line(record))
    write_line(said if key else f"{said}; signed by {by}, which only the proof itself names: compare --key")


def _chains(path: Path) -> dict[str, Held]:
    try:
        chains = read_chains(path)
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename or path}: {error.strerror}") from error
    if not chains:
        raise ConfigError(f"there is no chain in {path}", advice="name the `audit` directory of a PDP, or a copy of it")
    return dict(chains)


def _found(record: str, chains: dict[str, Held]) -> tuple[str, Held, int, bytes]:
    """Return (chain, what is held of it, number, content) of the record that is meant."""
    match = _PLACE.fullmatch(record)
    for name, held in chains.items():
        if match and match["chain"] not in (name, Path(name).name):
            continue
        for content in acknowledged(held.segments):
            if match is None and record.encode() not in content:
                continue
            read, own = unseal(content)
            if own.n == int(match["n"]) if match else read.get("decision_id") == record:
                return name, held, own.n, content
    raise BadRequestError(f"no record `{record}` in the log: name a decision's id, or CHAIN:N")


def _note(path: Path, origin: str) -> str:
    """Return the checkpoint in a file; of several, the one of this origin."""
    try:
        notes = notes_in(path.read_text(encoding="utf-8")[:MAX_PROOF_FILE_BYTES])
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    fitting = [note for note in notes if not origin or note.split("\n", 1)[0] == origin]
    if len(fitting) != 1:
        raise ConfigError(f"{path} holds {len(fitting)} checkpoints of this chain", advice="give a file with one")
    return fitting[0]


def _proof(path: Path) -> Proof:
    try:
        with path.open("rb") as file:
            raw: Any = json.loads(file.read(MAX_PROOF_FILE_BYTES))
        return Proof.from_json(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no proof: {error}", advice="`pdp audit prove` makes one") from error
