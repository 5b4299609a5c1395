"""How a server's process uses the Python it runs in."""

import gc
import sys

from pdp.limits import GC_YOUNG_OBJECTS, SWITCH_INTERVAL_S


def tune() -> None:
    """Set the interpreter up for a process that answers questions; for whole processes of ours, never for a library."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GC_YOUNG_OBJECTS)
