"""Envoy's access log becomes records of the agent's own words, and its endless streams end with the agent."""

import asyncio
from typing import Any

import pytest
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
        await service.close()
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
        await service.close()
        await stream
        assert len(decider.refusals) == 2

    asyncio.run(run())


def test_a_flood_of_refusals_is_recorded_as_a_number() -> None:
    async def run() -> None:
        decider = Decider()
        gate = Gate(table=RouteTable(rows=(), served={}), identify=identify, decider=decider)
        service = RefusalsService(gate, per_second=3)
        worker = Worker(*(entry("http1.codec_error") for _ in range(50)))
        stream = asyncio.create_task(service.StreamAccessLogs(None, worker))
        await asyncio.wait_for(worker.told.wait(), 10)
        assert (service.count, len(decider.refusals)) == (50, 3)
        await service.close()  # the second that has begun is told to its end
        await stream
        assert decider.refusals[3:] == [(Reason.BAD_REQUEST, "47 more in the same second")]

    asyncio.run(run())


def test_another_second_has_records_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(waiting: Any, timeout: float) -> None:  # noqa: ASYNC109 - asyncio's name
        waiting.close()
        assert timeout == 1.0
        raise TimeoutError

    async def run() -> None:
        decider = Decider()
        gate = Gate(table=RouteTable(rows=(), served={}), identify=identify, decider=decider)
        service = RefusalsService(gate, per_second=1)
        for _ in range(2):
            await service._take(entry("http1.codec_error"))
            await service._take(entry("http1.codec_error"))
            assert service._second is not None
            await service._second
        assert [detail.partition(" from")[0] for _, detail in decider.refusals] == [
            *("400 http1.codec_error", "1 more in the same second"),
            *("400 http1.codec_error", "1 more in the same second"),
        ]

    monkeypatch.setattr("sidecar.refusals.asyncio.wait_for", at_once)
    asyncio.run(run())
