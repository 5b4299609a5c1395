"""Become Envoy, but die with the sidecar: run as a script, `_launch.py PARENT_PID BINARY ARGUMENT…`.

The kernel's parent-death signal ends Envoy even when the sidecar is killed by SIGKILL and can clean up nothing. It is set
here, in a process of its own, and not by a `preexec_fn`: Python code between fork and exec of a process with gRPC threads
may deadlock.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then replace it."""
    parent, binary = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the sidecar died before the line above: nobody would ever tell us
        sys.exit(1)
    os.umask(0o177)  # Envoy's admin socket is 0600
    os.execv(binary, sys.argv[2:])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
