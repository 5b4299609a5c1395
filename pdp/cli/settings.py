"""The configuration of a PDP on this machine, for every command that reads its files, and the flags of all of them.

Apart from `pdp serve`, so that a command that only asks pays for no server.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.config import Config, configure
from pdp.errors import ConfigError
from pdp.limits import MAX_TRUST_FILE_BYTES
from pdp.yaml_text import read_yaml

DEFAULT_FILE: Final = Path("pdp.yaml")

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", envvar="PDP_CONFIG", help="Configuration; `pdp.yaml` is read if it is here."
    ),
]
StateDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="World log, keys and decision log.  [default: state]")
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="The log that several PDPs share: redis://HOST:PORT, rediss://… or redis+sentinel://HOST:PORT,…/SERVICE.  "
        "[SQLite in the state directory]",
    ),
]


def configuration(file: Path | None, flags: Mapping[tuple[str, ...], Any]) -> Config:
    """Return the configuration from the file, the environment and the flags."""
    texts = {path: str(value) if isinstance(value, Path) else value for path, value in flags.items()}
    path = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    if path is None:
        return configure(environment=os.environ, flags=texts)
    document = read_yaml(_text(path), file=str(path))
    return configure(document.value, where=document.where, base=path.parent, environment=os.environ, flags=texts)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TRUST_FILE_BYTES).decode("utf-8")
    except OSError as error:
        message = f"cannot read the configuration {path}: {error.strerror or error}"
        raise ConfigError(message, advice="name the right file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8") from error
