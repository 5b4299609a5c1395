"""The disk of the decision log, full, blocked or read-only (F8, F11, F29, S2): no allow without its record."""

import asyncio
import contextlib
import os
import resource
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters.audit_file import AuditChain, AuditFile
from pdp.adapters.audit_reader import read_segments
from pdp.audit import chain as chains
from pdp.audit.chain import Verdict
from pdp.audit.verify import verify
from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.service.audit import AuditTrail
from tests.support.logs import HandClock

KIB = 1024
LARGE = 10 * KIB


def record(text: str, size_bytes: int = 0) -> dict[str, Any]:
    return {"v": 1, "kind": "decision", "time_ms": 1, "detail": text, "room": "x" * size_bytes}


@contextlib.contextmanager
def files_end_at(size_bytes: int) -> Iterator[None]:
    """Let the kernel refuse every byte beyond `size_bytes` of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(directory: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a file system of that size."""
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets root mount nothing")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def opened(directory: Path, clock: HandClock, reserve_bytes: int = 64 * KIB) -> AuditChain:
    return AuditChain.open(directory, name="pdp", who=dict, now_ms=clock.now_ms, reserve_bytes=reserve_bytes)


def verified(directory: Path) -> list[str]:
    (found,) = read_segments(directory).values()
    report = verify(found)
    assert report.verdict is Verdict.OK, report
    contents = [chains.unseal(content)[0] for _, data in found for _, content in chains.frames(data)]
    return [item.get("detail") or item.get("reason") or item["kind"] for item in contents]


def on_trail(chain: AuditChain, body: Callable[[AuditTrail], Awaitable[None]], **options: Any) -> None:
    async def work() -> None:
        trail = AuditTrail(chain, now_ms=lambda: 1, **options)
        try:
            await body(trail)
        finally:
            await trail.close()

    asyncio.run(work())


async def allowed(trail: AuditTrail, text: str, size_bytes: int = 0) -> bool:
    try:
        await trail.record([record(text, size_bytes)], durable=True)
    except PortcullisError as error:
        assert error.reason is Reason.AUDIT_UNAVAILABLE  # noqa: PT017 - one of two outcomes
        return False
    return True


@pytest.mark.holds("F8", "S2", "P8")
def test_a_full_file_is_followed_by_the_reserve_then_by_denies_and_recovers_alone(tmp_path: Path) -> None:
    clock = HandClock()
    chain = opened(tmp_path, clock)

    async def body(trail: AuditTrail) -> None:
        with files_end_at(32 * KIB):
            outcomes = [await allowed(trail, f"allow {n}", LARGE) for n in range(8)]
            assert outcomes == [True] * 3 + [True] * 3 + [False] * 2
            assert "cannot be written" in trail.degraded
            await trail.record([record("deny")], durable=False)
        clock.advance(2)
        assert await allowed(trail, "after")
        assert trail.degraded == ""

    assert chain.degraded == ""
    on_trail(chain, body)
    told = verified(tmp_path)
    assert [text for text in told if text.startswith("allow")] == [f"allow {n}" for n in range(6)]
    assert told.count("reserve") == 1
    assert {"deny", "after"} <= set(told)
    assert not (tmp_path / "reserve").exists()  # given back at the end


@pytest.mark.holds("S2", "P13")
def test_the_reserve_in_use_and_a_reserve_that_cannot_be_had_are_told(tmp_path: Path) -> None:
    clock = HandClock()
    chain = opened(tmp_path / "first", clock)
    with files_end_at(32 * KIB):
        for number in range(4):
            chain.append([record(str(number), LARGE)])
    assert "reserve is in use" in chain.degraded
    clock.advance(2)
    chain.append([record("room again")])
    assert chain.degraded == ""
    chain.close()
    beyond = opened(tmp_path / "second", clock, reserve_bytes=1 << 60)
    assert "has no reserve" in beyond.degraded
    assert beyond.append([record("written all the same")]).n
    beyond.close()


@pytest.mark.nightly
@pytest.mark.needs_root
@pytest.mark.holds("F8", "S2")
def test_root_a_full_disk_uses_the_reserve_and_denies_after_it(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256 * KIB) as disk:
        clock = HandClock()
        chain = opened(disk / "audit", clock)
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

        async def body(trail: AuditTrail) -> None:
            outcomes = [await allowed(trail, f"allow {n}", LARGE) for n in range(10)]
            assert outcomes[:4] == [True] * 4
            assert outcomes[-1] is False
            filler.unlink()
            clock.advance(2)
            assert await allowed(trail, "after")

        on_trail(chain, body)
        assert "after" in verified(disk / "audit")


@pytest.mark.holds("F8")
def test_a_device_that_is_full_is_never_written_again(tmp_path: Path) -> None:
    chain = opened(tmp_path, HandClock(), reserve_bytes=1 << 60)
    chain._drop_file()
    chain._file = AuditFile(Path("/dev/full"), size_bytes=0)
    with pytest.raises(OSError, match="No space left"):
        chain.append([record("lost")])
    chain.append([record("kept")])  # what a device holds that cannot be cut back is unknown: a new segment
    chain.close()
    assert verified(tmp_path) == ["start", "failure", "kept"]


@pytest.mark.holds("F29", "S1")
def test_a_pipe_that_nobody_reads_bounds_an_allow_and_holds_up_no_deny(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    chain = opened(tmp_path / "audit", HandClock())
    chain._drop_file()
    chain._file = AuditFile(tmp_path / "pipe", size_bytes=0)

    async def body(trail: AuditTrail) -> None:
        assert not await allowed(trail, "blocks", 200 * KIB)
        await trail.record([record("deny")], durable=False)  # returns at once
        assert not await allowed(trail, "waits behind it")
        os.set_blocking(reader, True)
        await asyncio.to_thread(drain, reader, 200 * KIB)
        while not await allowed(trail, "after"):  # noqa: ASYNC110 - asking again is what a caller does
            await asyncio.sleep(0)

    on_trail(chain, body, commit_timeout_s=0.2)
    os.close(reader)
    assert verified(tmp_path / "audit")[-2:] == ["deny", "after"]


def drain(reader: int, size_bytes: int) -> None:
    while size_bytes > 0:
        size_bytes -= len(os.read(reader, 64 * KIB))


@pytest.mark.holds("F11")
@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_directory_without_the_right_to_write_is_named(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match=str(tmp_path / "audit")):
        opened(tmp_path / "audit", HandClock())


@pytest.mark.nightly
@pytest.mark.needs_root
@pytest.mark.holds("F11")
def test_root_a_disk_that_is_read_only_refuses_the_start_and_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256 * KIB) as disk:
        opened(disk / "audit", HandClock()).close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(ConfigError, match=f"{disk}/audit: Read-only file system"):
            opened(disk / "audit", HandClock())
