"""Whose a stored answer is: `/v1/responses` gives an id, by which an answer is read, cancelled, or gone on from later.

Only who was given an id may use it, whatever else they may do; for everybody else it is nobody's. Where an agent acts for its
subject, both were given it: the subject may read it alone, another agent of theirs may not, nor may an agent what its subject
asked without it. An id is learned from the reply before the reply goes on. INVARIANT: who was given an id first keeps it.

Held in this gate's memory, as the answers are in their server's (vLLM): after a restart, and at the gate of another replica,
an id is nobody's, and denied.

Source: ENFORCEMENT.md 3.2 (id -> chain map).
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from pdp.model.request import Party
from sidecar.bodies import strict_object
from sidecar.limits import LIMITS
from sidecar.outputs import EVENT_END, event_data

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")


class Results:
    """The ids that were given, with the chain to whom, and the served name that made the answer; the oldest go first."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, tuple[tuple[str, ...], str]] = OrderedDict()

    def note(self, given: str, *, chain: Sequence[Party], name: str) -> None:
        """Note that `chain`, a subject and who acts for it, was given an id by the model that is served as `name`."""
        if _ID.fullmatch(given) is None or given in self._made:
            return
        self._made[given] = (_names(chain), name)
        if len(self._made) > LIMITS.results:
            self._made.popitem(last=False)

    def name(self, given: str, chain: Sequence[Party]) -> str:
        """Return which served name made what `chain` was given; empty: nobody's, or somebody else's."""
        owners, name = self._made.get(given, ((), ""))
        subject, *actors = _names(chain)
        return name if owners[:1] == (subject,) and set(actors) <= set(owners[1:]) else ""


def _names(chain: Sequence[Party]) -> tuple[str, ...]:
    return tuple(party.principal.text for party in chain)


class Giver:
    """Reads the id in one reply as it passes; a reply without one gives none.

    Args:
        note: Takes it.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._held = b""
        self._done = False

    def whole(self, body: bytes) -> bytes:
        """Read a JSON reply, and return it as it came."""
        parsed = strict_object(body)
        self._take(parsed.get("id") if isinstance(parsed, dict) else None)
        return body

    def events(self, chunk: bytes) -> None:
        """Read a server-sent stream up to the first event that names its response."""
        if self._done:
            return
        self._held += chunk
        while not self._done and (end := EVENT_END.search(self._held)):
            event, self._held = self._held[: end.end()], self._held[end.end() :]
            parsed = strict_object(event_data(event))
            response = parsed.get("response") if isinstance(parsed, dict) else None
            self._take(response.get("id") if isinstance(response, dict) else None)
        self._done = self._done or len(self._held) > LIMITS.body_bytes

    def _take(self, given: object) -> None:
        if isinstance(given, str):
            self._note(given)
            self._done = True
