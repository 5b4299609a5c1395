"""`pdp demo`: the whole product on one machine, told as a story that must come out as promised."""

import sys
from typing import Annotated

import typer

from pdp.cli.main import missing
from pdp.cli.output import safe
from pdp.errors import ConfigError


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running and print lines to try.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the story as JSON instead of a table.")] = False,
) -> None:
    """Start a model, a PDP and a sidecar with Envoy, and watch the model being protected.

    Exit codes: 0 as promised, 1 a step went otherwise, 2 the stage could not be set, 130 Ctrl-C.
    """
    try:
        # Imported here: the story needs scikit-learn, which every other command does without.
        from pdp.demo.child import StageError  # noqa: PLC0415
        from pdp.demo.run import perform  # noqa: PLC0415
        from pdp.demo.screen import open_screen  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise missing("the demonstration", error, extra="demo") from error
    try:
        code = perform(open_screen(), keep=keep, as_json=as_json)
    except StageError as error:
        for line in error.last_words:
            sys.stderr.write(f"    {safe(line)}\n")
        raise ConfigError(str(error)) from error
    raise typer.Exit(code)
