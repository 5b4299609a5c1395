"""The product's own commands, run as a user would run them: `pdp … --json` in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pdp
from pdp.demo.child import StageError
from pdp.demo.limits import LIMITS

PDP: Final = (sys.executable, "-m", "pdp")
SIDECAR: Final = (sys.executable, "-m", "sidecar")
MODEL_SERVER: Final = (sys.executable, "-m", "pdp.demo.model_server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a command ended: its exit code, its JSON answer (None if it wrote none), and what it said besides."""

    exit_code: int
    answer: Any
    said: str


def base_environment() -> dict[str, str]:
    """Return our environment without the user's own `PDP_…` settings, which must not leak into the demonstration."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PDP_")}
    package_root = str(Path(pdp.__file__).parent.parent)
    return ours | {"PYTHONPATH": package_root, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def run(
    arguments: Sequence[str], *, where: Path, environment: Mapping[str, str] | None = None, as_json: bool = True
) -> Result:
    """Run `pdp ARGUMENTS --json` in the directory `where` (no stray `pdp.yaml` is read) and return how it ended.

    Raises:
        StageError: it did not end in time.
    """
    command = [*PDP, *arguments, *(["--json"] if as_json else [])]
    try:
        # Fixed program; the arguments are the story's own, and no shell reads them.
        ended = subprocess.run(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMITS.command_s,
            cwd=where,
            env=base_environment() | dict(environment or {}),
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise StageError(f"`pdp {' '.join(arguments)}` did not end within {LIMITS.command_s:g} s") from error
    return Result(exit_code=ended.returncode, answer=_answer(ended.stdout), said=(ended.stderr or ended.stdout).strip())


def must(
    arguments: Sequence[str], *, where: Path, environment: Mapping[str, str] | None = None, as_json: bool = True
) -> Any:
    """Run a command that has to succeed for the stage to stand, and return its JSON answer.

    Raises:
        StageError: it did not succeed; the message repeats what it said.
    """
    result = run(arguments, where=where, environment=environment, as_json=as_json)
    if result.exit_code:
        raise StageError(f"`pdp {' '.join(arguments)}` ended with exit code {result.exit_code}: {result.said}")
    return result.answer


def _answer(output: str) -> Any:
    """Read one JSON value, or one per line; anything else is no answer."""
    try:
        return json.loads(output)
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in output.splitlines()] or None
    except ValueError:
        return None
