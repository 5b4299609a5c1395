"""Envoy's access log becomes records of the agent's own words, and its endless streams end with the agent."""

import asyncio
from typing import Any

from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2

from pdp.errors import Reason
from sidecar.gate import Gate
from sidecar.refusals import RefusalsService, told
from sidecar.routes import RouteTable
from tests.support.enforcement import Decider, identify


def entry(details: str, code: int = 400, address: str = "10.0.0.1") -> accesslog_pb2.HTTPAccessLogEntry:
    found = accesslog_pb2.HTTPAccessLogEntry()
    found.response.response_code.value = code
    found.response.response_code_details = details
    found.common_properties.downstream_direct_remote_address.socket_address.address = address
    found.request.path = "/secret\nforged record"
    return found


def test_a_record_holds_envoys_words_and_none_of_the_callers() -> None:
    assert told(entry("http1.codec_error")) == (Reason.BAD_REQUEST, "400 http1.codec_error from 10.0.0.1")
    assert told(entry("route_not_found", 404))[0] is Reason.UNMAPPED_ROUTE
    assert told(entry("ext_proc_error_gRPC_error_14{x}", 503)) == (
        Reason.DEADLINE_EXCEEDED,
        "503 ext_proc_error_gRPC_error_14 from 10.0.0.1",
    )
    assert told(entry("bad{\nforged" + "a" * 10_000)) == (Reason.BAD_REQUEST, "400 bad from 10.0.0.1")
    assert told(accesslog_pb2.HTTPAccessLogEntry()) == (Reason.BAD_REQUEST, "0  from nowhere")


class Worker:
    """A worker of Envoy's: it tells, and then keeps its stream open for ever."""

    def __init__(self, *entries: accesslog_pb2.HTTPAccessLogEntry) -> None:
        self._message = als_pb2.StreamAccessLogsMessage()
        self._message.http_logs.log_entry.extend(entries)
        self.told = asyncio.Event()
        self._silent = False

    async def read(self) -> Any:
        if self._silent:
            self.told.set()
            await asyncio.Event().wait()
        self._silent = True
        return self._message


def test_the_end_of_the_agent_ends_a_stream_that_envoy_never_ends() -> None:
    async def run() -> None:
        decider = Decider()
        service = RefusalsService(Gate(table=RouteTable(rows=(), served={}), identify=identify, decider=decider))
        worker = Worker(entry("path_normalization_failed"), entry("upgrade_failed", 403))
        stream = asyncio.create_task(service.StreamAccessLogs(None, worker))
        await asyncio.wait_for(worker.told.wait(), 10)
        service.close()
        await asyncio.wait_for(stream, 10)
        assert service.count == 2
        assert [reason for reason, _ in decider.refusals] == [Reason.BAD_REQUEST, Reason.UNMAPPED_ROUTE]

    asyncio.run(run())


def test_a_record_that_cannot_be_written_does_not_stop_the_next() -> None:
    class Full(Decider):
        async def refuse(self, reason: Reason, *, detail: str, **more: str) -> Any:
            await super().refuse(reason, detail=detail, **more)
            raise OSError("no space left")

    async def run() -> None:
        decider = Full()
        service = RefusalsService(Gate(table=RouteTable(rows=(), served={}), identify=identify, decider=decider))
        worker = Worker(entry("path_normalization_failed"), entry("low_version", 426))
        stream = asyncio.create_task(service.StreamAccessLogs(None, worker))
        await asyncio.wait_for(worker.told.wait(), 10)
        service.close()
        await stream
        assert len(decider.refusals) == 2

    asyncio.run(run())
