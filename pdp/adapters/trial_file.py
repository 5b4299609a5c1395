"""What trials have shown so far, in one file: one worker of a PDP compares, and each of them is asked."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pdp.errors import PortcullisError, Reason

FILE_NAME: Final = "trials.json"


class TrialFile:
    """The file in a state directory. It is no evidence, only counts: the log can be counted again."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def save(self, tallies: Sequence[Any]) -> None:
        """Replace what is there.

        Raises:
            PortcullisError: `store_unavailable`.
        """
        beside = self._path.with_suffix(".new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(tallies, file)
            beside.replace(self._path)
        except OSError as error:
            raise PortcullisError(Reason.STORE_UNAVAILABLE, f"{self._path}: {error.strerror}") from error

    def load(self) -> Sequence[Any]:
        """Return what was saved last; nothing if there is none, or if it is damaged."""
        try:
            held = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ()
        return held if isinstance(held, list) else ()
