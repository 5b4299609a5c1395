"""A token file that is being written, or holds rubbish, is a refused attempt, and never the end of a process."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters.clock import SystemClock
from pdp.adapters.follow_grpc import GrpcFeedSource
from pdp.adapters.ship_grpc import GrpcAuditSink
from pdp.errors import PortcullisError, Reason
from pdp.limits import MAX_TOKEN_BYTES
from pdp.trust.feed import Hello

ADDRESS = "127.0.0.1:1"


async def ship(file: Path) -> None:
    sink = GrpcAuditSink(ADDRESS, token=file)
    try:
        await sink.append("sidecar", ())
    finally:
        await sink.close()


async def follow(file: Path) -> None:
    feed = GrpcFeedSource(ADDRESS, clock=SystemClock(), token=file).open(
        Hello(seq=0, head=b"", version="0", role="sidecar", tenant="main", instance="i")
    )
    try:
        async for _ in feed:
            pass
    finally:
        await feed.close()


@pytest.mark.parametrize("use", [ship, follow])
@pytest.mark.parametrize("raw", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"a\0b", b"a b", b"x" * (MAX_TOKEN_BYTES + 1)])
def test_what_is_no_token_is_not_sent(
    tmp_path: Path, use: Callable[[Path], Coroutine[Any, Any, None]], raw: bytes
) -> None:
    file = tmp_path / "token"
    file.write_bytes(raw)
    with pytest.raises(PortcullisError) as refused:
        asyncio.run(use(file))
    assert refused.value.reason is Reason.CREDENTIAL_MISSING
    assert str(file) in str(refused.value)
