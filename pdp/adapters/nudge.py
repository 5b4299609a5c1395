"""How the workers of one PDP wake each other: a byte on a local socket says "look", and nothing else.

A nudge carries nothing, so a lost or a spurious one costs a look: what is in the log is read from the log, and whoever missed
a nudge finds the change by polling a moment later.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

_LOOK = b"\x00"
_READ_BYTES = 64


class Nudges:
    """One worker's end: the socket it is woken by, and those of the others.

    Args:
        inbox: a datagram socket of ours.
        peers: the sending ends of the other workers' sockets.
    """

    def __init__(self, inbox: socket.socket, peers: Sequence[socket.socket]) -> None:
        self._inbox = inbox
        self._peers = tuple(peers)
        for end in (inbox, *peers):
            end.settimeout(0)

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever another worker says that there is something to see; returns the function that ends it."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            with suppress(OSError):  # nothing left to read
                while self._inbox.recv(_READ_BYTES):
                    pass
            wake()

        loop.add_reader(self._inbox, look)

        def stop() -> None:
            loop.remove_reader(self._inbox)

        return stop

    def send(self) -> None:
        """Wake the others; one whose socket is full has been woken already."""
        for peer in self._peers:
            with suppress(OSError):
                peer.send(_LOOK)
