"""How far each sink of the decision log has come; apart from the sinks, so that who prunes need not load their clients."""

from json import dumps, loads
from pathlib import Path

from pdp.adapters.keys_files import write_durably


class Cursors:
    """How far a sink is in each chain, in a file beside the chains; durable, so that a restart repeats a batch at most."""

    def __init__(self, directory: Path, sink: str) -> None:
        self._path = directory / f".sink-{sink}.json"
        self._held = read_cursors(directory, sink)

    def get(self, chain: str) -> int:
        """Return the number of the last record of `chain` that was delivered."""
        return self._held.get(chain, 0)

    def put(self, chain: str, n: int) -> None:
        """Remember that everything to record `n` was delivered.

        Raises:
            ConfigError: it cannot be written.
        """
        self._held[chain] = n
        write_durably(self._path, dumps(self._held).encode(), mode=0o600)


def read_cursors(directory: Path, sink: str) -> dict[str, int]:
    """Return what a sink's file of cursors holds; nothing if there is none or it is damaged: then all is delivered again."""
    try:
        held = loads((directory / f".sink-{sink}.json").read_bytes())
        return {str(chain): int(n) for chain, n in held.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
