"""`pdp policy` for who comes from Casbin: lint their files."""

from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from pdp.cli.output import write_json, write_line
from pdp.engine.casbin_lint import lint_files
from pdp.engine.casbin_traps import Answer
from pdp.errors import MEANINGS, ConfigError, Reason
from pdp.limits import MAX_PACK_FILE_BYTES
from pdp.model.vocabulary import Vocabulary

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
    vocabulary = Vocabulary(types=MappingProxyType({}), attributes=MappingProxyType({}))
    report = lint_files(
        _read(model), _read(policy), model_file=str(model), policy_file=str(policy), vocabulary=vocabulary
    )
    if as_json:
        write_json({"refused": report.refused, "traps": [asdict(trap) | {"name": trap.name} for trap in report.traps]})
    else:
        for trap in report.traps:
            write_line(str(trap))
        counts = ", ".join(f"{count} {answer}" for answer in Answer if (count := report.count(answer)))
        write_line(f"{len(report.traps)} traps{': ' if counts else ''}{counts}")
        write_line(
            f"our answer: {'refused' if report.refused else 'accepted'}; docs/casbin.md tells each by its number"
        )
    return _REFUSED if report.refused else 0


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_PACK_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_PACK_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
