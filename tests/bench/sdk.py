"""The SDK as a data scientist meets it: import, coalesced checks, local mode, files through `pdp://`.

Coalesced checks run in this process against one PDP process over mTLS, every allow durably recorded, with the client's own
cache off: each check is asked. Uncoalesced is the same client with as many single calls, each a message of its own.
"""

import asyncio
import datetime as dt
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from pdp.demo.stage import Stage, set_stage
from pdp.demo.story import FRONTEND, SAM, Token
from pdp.sdk import AsyncClient, Client, Decision
from pdp.sdk._core import EVALUATE
from pdp.sdk.filesystem import PdpFileSystem
from pdp.sdk.values import Question
from tests.bench.report import Figure

AT_ONCE = 1_000
DURATION_S = 3.0
FILES = 1_000
ENDPOINT = ("endpoint.invoke", "endpoint/digits-prod")
_IMPORT = "import time; start = time.perf_counter(); import pdp.sdk; print(time.perf_counter() - start)"


def measure() -> list[Figure]:
    """Return the figures."""
    figures = [_import()]
    with set_stage(lambda _what: nullcontext(), now=dt.datetime.now(dt.UTC)) as stage:
        # The story's auditor has every record read, sent and printed: half of this PDP's time, and a third process's.
        stage.auditor.tail.stop()
        figures += asyncio.run(_coalescing(stage))
        with Client(stage.pdp_address, **_credential(stage)) as client:  # type: ignore[arg-type]
            decision = client.require(*ENDPOINT, supports=None)
    # Two cores are few: the stage's processes have ended before files are read.
    return figures + _files(decision) + _local() + _mlflow()


def _import() -> Figure:
    times = [float(subprocess.check_output([sys.executable, "-c", _IMPORT], text=True)) for _ in range(7)]
    return Figure(name="import pdp.sdk", value=statistics.median(times) * 1000, unit="ms")


# Coalescing.


def _client(stage: Stage) -> AsyncClient:
    return AsyncClient(stage.pdp_address, **_credential(stage), cache_s=0, timeout_s=30)  # type: ignore[arg-type]


def _credential(stage: Stage) -> dict[str, object]:
    workload = stage.pki.workloads[FRONTEND]
    token = stage.tokens[SAM, Token.FRESH].read_text().strip()
    return {"ca": stage.pki.bundle, "cert": workload.certificate, "key": workload.key, "token": token}


async def _coalescing(stage: Stage) -> list[Figure]:
    async with _client(stage) as client:
        question = Question(action=ENDPOINT[0], resource=ENDPOINT[1], supports=None)

        async def together() -> Decision:
            return await client.check(*ENDPOINT, supports=None)

        async def alone() -> Decision:
            told = await client._transport.unary(EVALUATE, client._core.ask(question))
            return client._core.answer(question, 0, told.decision)

        first = await together()
        if not first.allowed:
            sys.exit(f"bench: expected an allow, got {first.reason}; a figure for it would mean nothing")
        single, single_p99 = await _rate(alone)
        joined, joined_p99 = await _rate(together)
    name = f"uncoalesced checks, {AT_ONCE} at once"
    return [
        Figure(name=name, value=single, unit="checks/s"),
        Figure(
            name=f"coalesced checks, {AT_ONCE} at once",
            value=joined,
            unit="checks/s",
            versus=name,
            ratio=joined / single,
        ),
        Figure(name=f"{name}, p99", value=single_p99 * 1000, unit="ms"),
        Figure(
            name=f"coalesced checks, {AT_ONCE} at once, p99",
            value=joined_p99 * 1000,
            unit="ms",
            versus=f"{name}, p99",
            ratio=joined_p99 / single_p99,
        ),
    ]


async def _rate(check: Callable[[], Awaitable[Decision]]) -> tuple[float, float]:
    """Return checks per second with `AT_ONCE` tasks asking one after the other, and the 99th percentile of one."""
    took: list[float] = []
    start = time.perf_counter()
    end = start + DURATION_S

    async def worker() -> None:
        while (asked := time.perf_counter()) < end:
            await check()
            took.append(time.perf_counter() - asked)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return len(took) / (time.perf_counter() - start), statistics.quantiles(took, n=100)[98]


# Files.


class _Granted:
    """A client whose answer is always the same: what is measured is the filesystem, and one real check is the first."""

    one_identity = True

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self.world_seq = decision.world_seq

    def check(self, *_: object, **__: object) -> Decision:
        return self._decision


def _files(decision: Decision) -> list[Figure]:
    with tempfile.TemporaryDirectory() as directory:
        names = [f"{number:04}.bin" for number in range(FILES)]
        for name in names:
            Path(directory, name).write_bytes(b"x" * 4096)
        granted = _Granted(decision)
        ours = PdpFileSystem(mounts={"dataset/small": directory}, client=granted)  # type: ignore[arg-type]
        inner = LocalFileSystem()

        def read(filesystem: object, root: str) -> None:
            for name in names:
                with filesystem.open(f"{root}/{name}", "rb") as file:  # type: ignore[attr-defined]
                    file.read()

        plain_us, decided_us = _in_turns(lambda: read(inner, directory), lambda: read(ours, "dataset/small"))
    name = f"read {FILES:,} files of 4 KiB, inner filesystem"
    return [
        Figure(name=name, value=plain_us / 1000, unit="ms"),
        Figure(
            name=f"read {FILES:,} files of 4 KiB, pdp://",
            value=decided_us / 1000,
            unit="ms",
            versus=name,
            ratio=decided_us / plain_us,
        ),
    ]


def _in_turns(one: Callable[[], None], other: Callable[[], None], rounds: int = 25) -> tuple[float, float]:
    """Return the medians of two calls in microseconds, taken in turns so that neither has the quieter machine."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, found in zip((one, other), times, strict=True):
            start = time.perf_counter()
            call()
            found.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times[0]), statistics.median(times[1])


# Local mode.


def _processor_us(call: Callable[[], object], *, number: int = 5_000, rounds: int = 7) -> float:
    """Return the median processor time of one call in microseconds: a PDP lives in this process too, and is not to count."""

    def once() -> float:
        start = time.thread_time()
        for _ in range(number):
            call()
        return (time.thread_time() - start) / number * 1e6

    return statistics.median(once() for _ in range(rounds))


def _local() -> list[Figure]:
    from pdp.sdk import LocalClient  # noqa: PLC0415 - the light import is measured above
    from tests.support.pdp import BOB  # noqa: PLC0415
    from tests.support.pdp_thread import threaded_pdp  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as directory, threaded_pdp(Path(directory, "pdp")) as pdp:
        given = {"root_digest": pdp.root_digest, "trust": pdp.trust, "state_dir": Path(directory, "sdk")}
        with LocalClient(pdp.server, token=pdp.token(BOB), cache_s=15, **given) as client:
            asked = ("dataset.read", "dataset/sales")
            client.require(*asked)
            admitted = client._admit()
            question = admitted.prepared[asked].question
            moment = client._machine.decider.moment
            engine_us = _processor_us(lambda: moment().decide(question))
            local_us = _processor_us(lambda: client.check(*asked))
    name = "the engine's own time, same question"
    return [
        Figure(name=name, value=engine_us, unit="us"),
        Figure(name="LocalClient.check, allow", value=local_us, unit="us", versus=name, ratio=local_us / engine_us),
    ]


# MLflow.

_REAL = Path(".venv-real/bin/python")


def _mlflow() -> list[Figure]:
    """Return the round trips of MLflow's client, if the environment of `make test-real` is there."""
    if not _REAL.exists():
        print("bench: MLflow's round trip is skipped: `make .venv-real/.installed` makes the environment that it needs")
        return []
    told = json.loads(subprocess.check_output([_REAL, "-W", "ignore", "-m", "tests.bench.mlflow_trip"], text=True))
    name = "MLflow round trip, no authorization"
    return [
        Figure(name=name, value=told["none"], unit="ms"),
        *(
            Figure(
                name=f"MLflow round trip, {label}",
                value=told[kind],
                unit="ms",
                versus=name,
                ratio=told[kind] / told["none"],
            )
            for kind, label in (("pdp", "--app-name pdp"), ("basic-auth", "its own basic-auth"))
        ),
    ]
