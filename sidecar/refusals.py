"""What Envoy refuses by itself stands in the audit chain, too: it tells us by its access log, over the agent's own socket.

A head that is none (`%2F`, a header with an underscore, two lengths, too many headers), one that never ends, a CONNECT, an
upgrade that no row has: Envoy answers these without a question to anybody. So it does where a filter got no answer from us.
Each becomes a refusal on record, by the door `envoy`, with Envoy's own word for why, and is counted. Anybody can send such heads,
as fast as Envoy refuses them: beyond so many a second they are recorded as a number. INVARIANT: this only records: by then the
caller has been refused, and nothing here can allow.

Source: ENFORCEMENT.md EX-14, EX-17, EP-10; ADR 0019.
"""

import asyncio
import contextlib
import re
from typing import Any, Final

from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc

from pdp.errors import Reason
from sidecar.gate import Gate
from sidecar.limits import LIMITS

_WORD: Final = re.compile(r"[A-Za-z0-9_.]{0,80}")
_NO_ROUTE: Final = frozenset({"route_not_found", "upgrade_failed"})


class RefusalsService(als_pb2_grpc.AccessLogServiceServicer):  # type: ignore[misc] # generated code is untyped
    """`envoy.service.accesslog.v3.AccessLogService`, for the entries that `envoy_log.refusals_log` lets through.

    Args:
        gate: Records.
        per_second: How many are recorded one by one in a second.

    Attributes:
        count: How many requests Envoy refused by itself.
    """

    def __init__(self, gate: Gate, *, per_second: int = LIMITS.refusals_per_s) -> None:
        self._gate = gate
        self._closing = asyncio.Event()
        self._per_second = self._left = per_second
        self._more = 0
        self._second: asyncio.Task[None] | None = None
        self.count = 0

    async def close(self) -> None:
        """End the streams, which Envoy keeps open for as long as it lives, and record what is left to."""
        self._closing.set()
        if self._second is not None:
            await self._second

    async def StreamAccessLogs(self, _requests: Any, context: Any) -> als_pb2.StreamAccessLogsResponse:  # noqa: N802 - gRPC's name
        """Record what one worker of Envoy's tells."""
        reading = asyncio.create_task(self._read(context))
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({reading, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, closing):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        return als_pb2.StreamAccessLogsResponse()

    async def _read(self, context: Any) -> None:
        while isinstance(message := await context.read(), als_pb2.StreamAccessLogsMessage):
            for entry in message.http_logs.log_entry:
                await self._take(entry)

    async def _take(self, entry: accesslog_pb2.HTTPAccessLogEntry) -> None:
        self.count += 1
        if self._second is None or self._second.done():
            self._left = self._per_second
            self._second = asyncio.create_task(self._end_second())
        if self._left:
            self._left -= 1
            await self._gate.refused_unasked(*told(entry))
        else:
            self._more += 1

    async def _end_second(self) -> None:
        """Wait for the second to end (or the agent), and record how many more there were than were told."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), 1.0)
        more, self._more = self._more, 0
        if more:
            await self._gate.refused_unasked(Reason.BAD_REQUEST, f"{more} more in the same second")


def told(entry: accesslog_pb2.HTTPAccessLogEntry) -> tuple[Reason, str]:
    """Return why a request was refused: our reason for it, and Envoy's words. INVARIANT: nothing that its caller wrote."""
    found = _WORD.match(entry.response.response_code_details)
    word = found[0] if found is not None else ""
    source = entry.common_properties.downstream_direct_remote_address.socket_address.address
    return _reason(word), f"{entry.response.response_code.value} {word} from {source or 'nowhere'}"


def _reason(word: str) -> Reason:
    if word in _NO_ROUTE:
        return Reason.UNMAPPED_ROUTE
    return Reason.DEADLINE_EXCEEDED if word.startswith("ext_") else Reason.BAD_REQUEST
