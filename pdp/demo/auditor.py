"""The administrator's look over the gate's shoulder: `pdp audit tail -f`, running for as long as the stage stands.

A caller is told no more than its status; why it was refused stands in the audit record. The sidecar ships its records to
the PDP, the PDP hands them to whoever may read them, and the story takes its reasons from there: what the audience reads
as *actual* has gone the whole way.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdp.demo.child import Child
from pdp.demo.limits import LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditor:
    """Reads records as they arrive at the PDP."""

    tail: Child

    def decision(self, decision_id: str) -> Mapping[str, Any]:
        """Return the record of a decision, waiting for it to arrive.

        Raises:
            StageError: it did not arrive in time.
        """
        return self._record('"decision"', re.escape(decision_id))

    def stream_event(self, event: str) -> Mapping[str, Any]:
        """Return the newest record of a change in a running response: `cut` or `ended`.

        Raises:
            StageError: none arrived in time.
        """
        return self._record('"stream"', f'"{re.escape(event)}"')

    def _record(self, *parts: str) -> Mapping[str, Any]:
        pattern = "".join(f"(?=.*{part})" for part in parts)
        line = self.tail.wait_for(f"^{pattern}.*$", LIMITS.call_s)[0]
        record: Mapping[str, Any] = json.loads(line)
        return record
