"""The entry of `pdp`, and the outermost boundary: whatever happens below becomes one line on stderr and an exit code.

Imports nothing but the standard library and `pdp.errors` until a command runs, so that a missing dependency is told in a
sentence too.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

from pdp.errors import MEANINGS, ConfigError, PortcullisError, Reason

CTRL_C: Final = 130
REPORT: Final = "this is a defect of Portcullis: run the command again with PDP_DEBUG=1 and report what it prints"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that `arguments` (by default those of the process) name, and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; never raises."""
    try:
        return _dispatch(arguments)
    except PortcullisError as error:
        return _refused(error)
    except KeyboardInterrupt:
        return CTRL_C
    except BrokenPipeError:
        # The reader of our output went away (`pdp audit tail | head`): nothing is left to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the outermost boundary: anything unforeseen ends here, without a traceback
        _trace()
        _say(f"{Reason.INTERNAL_ERROR}: {type(error).__name__}: {error}", advice=REPORT)
        return MEANINGS[Reason.INTERNAL_ERROR].exit_code


def _dispatch(arguments: Sequence[str]) -> int:
    try:
        # Here and not above: `typer` comes with an extra, and a client's installation may lack it.
        from pdp.cli.app import invoke  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise missing("the command line", error) from error
    return invoke(arguments)


def missing(what: str, error: ModuleNotFoundError, *, extra: str = "server") -> Exception:
    """Return the error that says that `extra` brings the module that `what` misses; one of ours is a defect as it stands."""
    name = (error.name or "").partition(".")[0]
    if name in {"pdp", "sidecar", ""}:
        return error
    return ConfigError(f"{what} needs `{name}`", advice=f"install it with `pip install 'portcullis[{extra}]'`")


def _refused(error: PortcullisError) -> int:
    _trace()
    for finding in getattr(error, "findings", ()):
        sys.stderr.write(f"{finding}\n")
    correlation = getattr(error, "correlation_id", "")
    told = f"{error.reason}: {error.message}" + (f" [{correlation}]" if correlation else "")
    _say(told, advice=error.advice)
    # INVARIANT: an error never exits like a success, whatever reason it carries.
    return error.meaning.exit_code or MEANINGS[Reason.INTERNAL_ERROR].exit_code


def _say(told: str, *, advice: str) -> None:
    line = " ".join(f"{told}; {advice}".split() if advice else told.split())
    sys.stderr.write(f"pdp: {line}\n")


def _trace() -> None:
    if os.environ.get("PDP_DEBUG") == "1":
        traceback.print_exc()
