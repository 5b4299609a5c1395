"""A whole PDP inside a test: the real application on free ports, with people who may this and that."""

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.cli.serve import load
from pdp.config import Address, configure
from pdp.identity.development import DevelopmentIssuer, issue, trust_text
from pdp.server.app import Application, Basis, running
from pdp.server.stores import WORLD_FILE
from pdp.service.audit import Query
from pdp.service.genesis import initialise
from pdp.v1 import types_pb2

PACK = Path(__file__).parents[2] / "policies"
ADA = "ada@demo.portcullis"
"""The first administrator."""
BOB = "bob@demo.portcullis"
"""A data scientist in dev, who may ask."""
GATE = "gate@demo.portcullis"
"""An enforcement point, which may also assert."""
EVE = "eve@demo.portcullis"
"""Authenticated, and allowed nothing."""
ROWS = f"""
g, user:{BOB}, role:data-scientist, dev
g, user:{BOB}, role:member, prod
g, user:{GATE}, role:enforcement-point, prod
g, user:{GATE}, role:gateway, prod
"""
_ids = itertools.count()


@dataclass(kw_only=True)
class RunningPdp:
    """The application, where its doors are, and tokens for whoever the test wants to be."""

    app: Application
    address: Address
    probes: str
    issuer: DevelopmentIssuer
    directory: Path
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def token(self, sub: str, **options: Any) -> str:
        """Return a good token of `sub`, or one spoiled by `options`."""
        return issue(self.issuer, sub=sub, jti=f"t{next(_ids)}", **{"now_s": int(time.time())} | options)

    def metadata(self, sub: str, **options: Any) -> Sequence[tuple[str, str]]:
        """Return the metadata by which `sub` calls."""
        return (("authorization", f"Bearer {self.token(sub, **options)}"),)

    async def records(self) -> list[bytes]:
        """Return every record of the decision log, refusals that nobody waits for included."""
        await self.app.trail.record((), durable=True)
        return [record async for _, record in self.app.book.read(Query())]

    def channel(self) -> grpc.aio.Channel:
        """Return a channel in the clear; closed with the PDP."""
        self.channels.append(grpc.aio.insecure_channel(str(self.address)))
        return self.channels[-1]


async def initialised(directory: Path, *, rows: str = ROWS, assets: str = "{}\n") -> DevelopmentIssuer:
    """Make keys, issuer, pack and first world below `directory`."""
    issuer = DevelopmentIssuer.generate()
    (directory / "jwks.json").write_bytes(issuer.jwks())
    (directory / "trust.yaml").write_text(trust_text(issuer, jwks_file="jwks.json"))
    pack = directory / "pack"
    for path in PACK.rglob("*"):
        if path.is_file() and "tests" not in path.parts and "golden" not in path.parts:
            (pack / path.relative_to(PACK)).parent.mkdir(parents=True, exist_ok=True)
            (pack / path.relative_to(PACK)).write_bytes(path.read_bytes())
    (pack / "people.csv").write_text(rows)
    (pack / "assets.yaml").write_text(assets)
    state = directory / "state"
    state.mkdir()
    log, store = SqliteWorldLog(state / WORLD_FILE), SqliteReplicaStore(state / "replica")
    try:
        await initialise(state_dir=state, pack=load(pack), admin=f"user:{ADA}", log=log, store=store)
    finally:
        await store.close()
        await log.close()
    return issuer


@contextlib.asynccontextmanager
async def running_pdp(
    directory: Path, *, flags: Mapping[tuple[str, ...], Any] | None = None, **options: Any
) -> AsyncIterator[RunningPdp]:
    """Run a PDP in this process; ready when it yields."""
    issuer = await initialised(directory, **options)
    base = {
        ("mode",): "development",
        ("state_dir",): str(directory / "state"),
        ("trust",): str(directory / "trust.yaml"),
        ("grpc", "listen"): "127.0.0.1:0",
        ("probes", "listen"): "127.0.0.1:0",
    }
    basis = Basis.read(configure(flags=base | dict(flags or {})))
    async with running(basis) as (app, address, listener):
        async with asyncio.timeout(10):
            await app.until_ready()
        pdp = RunningPdp(app=app, address=address, probes=_url(listener), issuer=issuer, directory=directory)
        try:
            yield pdp
        finally:
            for channel in pdp.channels:
                await channel.close()


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"


def detail(error: grpc.aio.AioRpcError) -> types_pb2.ErrorDetail:
    """Return what came with an error in its trailing metadata."""
    found = dict(error.trailing_metadata() or ())["pdp-error-bin"]
    assert isinstance(found, bytes)
    return types_pb2.ErrorDetail.FromString(found)


async def call_any(
    channel: grpc.aio.Channel, path: str, metadata: Sequence[tuple[str, str]]
) -> grpc.aio.AioRpcError | None:
    """Call any RPC, whatever its kind, with one empty message; return its error, or None if it was answered.

    On the wire all four kinds look the same until the server answers, so one kind of call serves all.
    """
    # One message and the end go out in one batch: a write of its own fails in the client where the server was faster.
    call = channel.unary_stream(path)(b"", metadata=metadata, timeout=60)
    try:
        await call.read()
        code = await call.code()
    except grpc.aio.AioRpcError as error:
        return error
    call.cancel()
    if code is grpc.StatusCode.OK:
        return None
    return grpc.aio.AioRpcError(code, await call.initial_metadata(), await call.trailing_metadata())
