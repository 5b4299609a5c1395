"""`make bench`: measure beside peers in one run, print tables, write build/bench.json. Nothing is asserted."""

import argparse
import importlib
from pathlib import Path

from tests.bench.report import Figure, machine, publish, show, write

PAGE = Path("docs/PERFORMANCE.md")
PARTS = {
    "engine": "One decision in process, beside pycasbin and cedarpy",
    "identity": "A credential: new, remembered, bad; beside a bare jwt.decode",
    "rpc": "Decisions through gRPC, one server process, beside a bare echo of the same messages",
    "audit": "Records appended to the decision log, beside a bare write of the same bytes",
    "admin": "Administration: the decision log replayed, found, verified, appended; two large worlds compared",
    "replication": "A change on its way to 100 enforcement points",
    "sdk": "The Python SDK: import, coalesced checks, local mode, files through pdp://",
    "sidecar": "Requests through Envoy, alone and with the sidecar",
}


def main() -> None:
    """Run the parts asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="run one part only")
    parser.add_argument("--publish", action="store_true", help="also put the tables into docs/PERFORMANCE.md")
    arguments = parser.parse_args()
    chosen = arguments.only
    print(f"machine: {machine()}")
    figures: list[Figure] = []
    for part, title in PARTS.items():
        if chosen in (None, part):
            measured: list[Figure] = importlib.import_module(f"tests.bench.{part}").measure()
            show(title, measured)
            if arguments.publish:
                publish(part, measured, PAGE)
            figures += measured
    write(figures, Path("build/bench.json"))
    print("written: build/bench.json")


if __name__ == "__main__":
    main()
