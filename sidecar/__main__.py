"""The entry of `pdp-sidecar`, also as `python -m sidecar`: a missing dependency is told in a sentence, not in a traceback."""

import sys

from pdp.cli.main import missing
from pdp.errors import ConfigError


def main() -> None:
    """Run the command line of this process."""
    try:
        # Here and not above: what it needs comes with an extra.
        from sidecar.cli import main as run  # noqa: PLC0415

        run()
    except ModuleNotFoundError as error:
        told = missing("the sidecar", error, extra="sidecar")
        if not isinstance(told, ConfigError):
            raise
        sys.stderr.write(f"pdp-sidecar: {told}\n")
        sys.exit(told.meaning.exit_code)


if __name__ == "__main__":
    main()
