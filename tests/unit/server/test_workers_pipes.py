"""What workers and their supervisor tell each other, when the other one is killed in the middle of a word."""

import asyncio
import os
from contextlib import suppress

import pytest

from pdp.config import Config
from pdp.server import worker
from pdp.server.place import Standing
from pdp.server.supervisor import Crew, _Member


def member() -> _Member:
    spec = worker.Spec(config=Config(), index=1, secret=b"", inbox=0, peers=(), probes=None)
    return _Member(spec=spec, ready=True, ever_ready=True, page="old")


@pytest.mark.parametrize("said", [b'{"page": "half a pa', b"a library prints this\n", b"[1]\n", b'{"ready": 7}\n"x"\n'])
def test_a_worker_killed_in_the_middle_of_a_line_ends_no_other(said: bytes) -> None:
    async def test() -> None:
        output, one = asyncio.StreamReader(), member()
        output.feed_data(said)
        output.feed_eof()
        crew = Crew([], grace_s=0, ready=lambda _: None)
        crew.members.append(one)
        await crew._listen(one, output)
        assert (one.ready, one.page) == (False, "")

    asyncio.run(test())


def test_a_line_beyond_all_bounds_is_passed_over() -> None:
    async def test() -> None:
        output, one = asyncio.StreamReader(limit=64), member()
        output.feed_data(b"x" * 1_000 + b'\n{"ready": 9}\n')
        output.feed_eof()
        crew = Crew([], grace_s=0, ready=lambda _: None)
        crew.members.append(one)
        await crew._listen(one, output)
        assert one.world_seq == 9

    asyncio.run(test())


@pytest.mark.parametrize("said", [b"", b'{"ready": 2, "pa', b"no JSON\n", b'{"ready": 1, "pages": {}}\n'])
def test_a_supervisor_killed_in_the_middle_of_a_line_leaves_no_worker(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        ours, theirs = os.pipe()
        monkeypatch.setattr(worker, "_INPUT", ours)
        os.write(theirs, said)
        os.close(theirs)
        stop = asyncio.Event()
        with suppress(ValueError):
            await worker._obey(Standing(), stop)
        os.close(ours)
        assert stop.is_set()

    asyncio.run(test())
