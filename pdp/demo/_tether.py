"""Become another program, but end with the stage: run as a script, `_tether.py PARENT_PID PROGRAM ARGUMENT…`.

The stage clears everything away itself, also on Ctrl-C. Only when it is killed and can do nothing more, the kernel's
parent-death signal asks each of its processes to end. It is set here, in a process of its own, and not by a `preexec_fn`:
Python code between fork and exec of a process with threads may deadlock.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then replace it."""
    parent, program = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the stage died before the line above: nobody would ever tell us
        sys.exit(1)
    try:
        os.execvp(program, sys.argv[2:])  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.exit(f"cannot start `{program}`: {error.strerror}")


if __name__ == "__main__":
    main()
