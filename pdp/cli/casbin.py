"""`pdp policy` for who comes from Casbin: lint their files, bring them in, and let pycasbin witness a pack."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pdp.adapters.audit_reader import read_segments
from pdp.adapters.casbin_shape import AdapterSpec, load_rows
from pdp.adapters.clock import SystemClock
from pdp.adapters.pack_files import read_pack
from pdp.cli.options import AsJson
from pdp.cli.output import write_json, write_line
from pdp.engine.casbin_lint import find_traps, lint_files
from pdp.engine.casbin_text import Row, parse_model, parse_rows
from pdp.engine.casbin_traps import Answer, Trap
from pdp.engine.findings import PackRefused, errors
from pdp.engine.pack import load_pack
from pdp.engine.text import decode
from pdp.errors import MEANINGS, BadRequestError, ConfigError, Reason
from pdp.limits import MAX_PACK_FILE_BYTES
from pdp.model.names import counted

FromCasbin = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--from-casbin",
        metavar="MODEL POLICY",
        help="Look at a Casbin model and its CSV instead of a pack: which traps they hold, and what we would answer.",
    ),
]

_REFUSED = MEANINGS[Reason.POLICY_REFUSED].exit_code


def lint_from_casbin(model: Path, policy: Path, *, as_json: bool) -> int:
    """Print the traps of a Casbin model and policy; return the exit code."""
    report = lint_files(_read(model), _read(policy), model_file=str(model), policy_file=str(policy))
    if as_json:
        write_json({"refused": report.refused, "traps": [asdict(trap) | {"name": trap.name} for trap in report.traps]})
    else:
        for trap in report.traps:
            write_line(str(trap))
        counts = ", ".join(f"{count} {answer}" for answer in Answer if (count := report.count(answer)))
        write_line(f"{counted(len(report.traps), 'trap')}{': ' if counts else ''}{counts}")
        write_line(
            f"our answer: {'refused' if report.refused else 'accepted'}; docs/casbin.md tells each by its number"
        )
    return _REFUSED if report.refused else 0


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `pdp policy`."""
    app.command("import")(import_policy)
    app.command()(verify)


def import_policy(
    *,
    model: Annotated[Path, typer.Option(metavar="FILE", help="The Casbin model.")],
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="Its rows, CSV.")] = None,
    adapter: Annotated[
        str,
        typer.Option(metavar="MODULE:CLASS", help='Any Casbin adapter instead: `module:Class("argument", name=1)`.'),
    ] = "",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the pack goes: a directory that is not there yet.")],
    acknowledge_narrower: Annotated[
        bool, typer.Option(help="Take deny rows that match less here (N) as they are; the pack then says so.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a Casbin policy in as a pack: model, vocabulary, rows, and a skeleton of tests. Needs no server.

    Exit code 0 if the pack is written, 2 if the policy is refused (with every reason) and nothing is written.

    Example: `pdp policy import --model model.conf --policy policy.csv --out pack`
    """
    # Imported here, as in `verify`: it brings the whole compiler.
    from pdp.service import casbin_import  # noqa: PLC0415

    if (policy is None) is (not adapter):
        raise BadRequestError("give either `--policy FILE` or `--adapter MODULE:CLASS`")
    if out.exists():
        raise ConfigError(f"{out} is there already", advice="give a directory that is not")
    text = _text(model)
    rows, extra = _rows_of(text, policy) if policy is not None else (_rows_through(adapter), ())
    made = casbin_import.import_policy(text, rows, acknowledged=acknowledge_narrower, extra=extra)
    if not made.refused:
        for name, content in made.files.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if as_json:
        told = {"refused": made.refused, "narrower": [*map(str, made.narrower)], "told": [*map(str, made.told)]}
        write_json(told | {"files": [] if made.refused else sorted(made.files)})
    else:
        for line in (*made.refused, *map(str, made.told)):
            write_line(line)
        write_line(f"{counted(len(made.narrower), 'row matches', 'rows match')} less than in pycasbin (N)")
        write_line(
            f"refused: {counted(len(made.refused), 'reason')}"
            if made.refused
            else f"{counted(len(rows), 'row')} in {out}"
        )
    raise typer.Exit(_REFUSED if made.refused else 0)


def _rows_of(model_text: str, policy: Path) -> tuple[tuple[Row, ...], tuple[Trap, ...]]:
    """Return the rows of a CSV file, and the traps that only its text shows."""
    text = _text(policy)
    model, found = parse_model(model_text, file="model.conf")
    if model is None:
        raise PackRefused(found)
    rows, found = parse_rows(text, file=policy.name, model=model)
    if errors(found):
        raise PackRefused(found)
    return rows, find_traps(model_text, text, policy_file=policy.name)


def _rows_through(adapter: str) -> tuple[Row, ...]:
    spec = AdapterSpec.parse(adapter)
    return load_rows(spec.open(), file=spec.name)


def _text(path: Path) -> str:
    text = decode(_read(path), file=str(path))
    if isinstance(text, str):
        return text
    raise PackRefused((text,))


def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The pack.")],
    *,
    audit: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A decision log, whose newest decisions are asked again.")
    ] = None,
    decisions: Annotated[int, typer.Option(min=1, metavar="N", help="How many of them.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Ask pycasbin what a pack's tests, its rows and logged decisions ask; print every difference with its number.

    Exit code 0 if each difference is one of docs/casbin.md, 2 if there is another: that is a defect of ours.

    Example: `pdp policy verify policies --audit state/audit --decisions 1000`
    """
    from pdp.service.casbin_verify import verify_pack  # noqa: PLC0415 - it brings deciding and pycasbin

    pack = load_pack(read_pack(directory))
    if isinstance(pack, tuple):
        raise PackRefused(pack)
    records = tuple(_decisions(audit))[-decisions:] if audit is not None else ()
    found = verify_pack(pack, pack.snapshot, now_ms=SystemClock().now_ms(), records=records)
    if as_json:
        write_json(asdict(found))
    else:
        for one in found.differences:
            number = one.divergence or "unlisted"
            write_line(f"{one.where}: {number}: ({one.question}): here {one.ours}, pycasbin {one.theirs}")
        strange = f", {counted(found.skipped, 'logged decision')} about things that the pack does not know"
        skipped = strange if found.skipped else ""
        unlisted = len(found.unlisted)
        write_line(
            f"{counted(found.asked, 'question')}, {counted(len(found.differences), 'difference')}, {unlisted} unlisted{skipped}"
        )
    raise typer.Exit(_REFUSED if found.unlisted else 0)


def _decisions(directory: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the decisions of a log, oldest first in each chain; a line that is none is passed over: `audit verify` tells."""
    if not directory.is_dir():
        raise ConfigError(f"cannot read {directory}: there is no such directory")
    try:
        chains = read_segments(directory)
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename or directory}: {error.strerror}") from error
    for segments in chains.values():
        for _, content in segments:
            for line in content.splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict) and record.get("kind") == "decision":
                    yield record


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_PACK_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_PACK_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
