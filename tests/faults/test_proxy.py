"""The fault proxy does what its faults say: or the tests that use it would hold nothing."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.proxy import FaultProxy, Faults

SENT = bytes(range(200))

# Connections are cut here in the middle of everything: what is left of them is the garbage collector's.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


def through(faults: Faults, check: Callable[[asyncio.StreamReader, FaultProxy], Awaitable[None]]) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SENT)
        await writer.drain()
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        proxy = FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1], faults)
        async with proxy.running() as port, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await check(reader, proxy)
            writer.close()
        server.close()

    asyncio.run(work())


@pytest.mark.parametrize("faults", [Faults(), Faults(trickle=3), Faults(delay_s=0.001)])
def test_what_is_slow_arrives_whole(faults: Faults) -> None:
    async def check(reader: asyncio.StreamReader, _proxy: FaultProxy) -> None:
        assert await reader.readexactly(len(SENT)) == SENT

    through(faults, check)


def test_a_cut_ends_the_connection_at_the_byte() -> None:
    async def check(reader: asyncio.StreamReader, _proxy: FaultProxy) -> None:
        try:
            received = await reader.read(-1)
        except ConnectionResetError:
            return
        assert SENT[:50].startswith(received)

    through(Faults(cut_after=50), check)


def test_a_corrupt_byte_is_one_byte() -> None:
    async def check(reader: asyncio.StreamReader, _proxy: FaultProxy) -> None:
        received = await reader.readexactly(len(SENT))
        assert [place for place in range(len(SENT)) if received[place] != SENT[place]] == [20]

    through(Faults(corrupt_at=20), check)


def test_a_duplicate_comes_twice() -> None:
    async def check(reader: asyncio.StreamReader, _proxy: FaultProxy) -> None:
        assert await reader.readexactly(2 * len(SENT)) == SENT * 2

    through(Faults(duplicate=True), check)


def test_half_open_holds_back_until_healed() -> None:
    async def check(reader: asyncio.StreamReader, proxy: FaultProxy) -> None:
        waiting = asyncio.create_task(reader.readexactly(len(SENT)))
        done, _ = await asyncio.wait((waiting,), timeout=0.05)
        assert not done
        proxy.heal()
        assert await waiting == SENT

    through(Faults(half_open=True), check)


def test_dropped_and_refused_bytes_do_not_come() -> None:
    async def check(reader: asyncio.StreamReader, proxy: FaultProxy) -> None:
        assert proxy.forwarded == 0
        assert await reader.read(-1) == b""

    through(Faults(refuse=True), check)
