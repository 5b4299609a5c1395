"""`python -m sidecar` is `pdp-sidecar`."""

from sidecar.cli import main

main()
