"""F25, F14: certificates, their authorities and an issuer's keys are exchanged under a running PDP; nobody is cut off."""

import asyncio
import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from pdp.identity.development import DevelopmentIssuer, issue
from pdp.v1 import decision_pb2, decision_pb2_grpc
from tests.support.logs import lock_payload
from tests.support.pdp import BOB, RunningPdp, running_pdp
from tests.support.waiting import until

ASSETS = "dataset/open: {environment: dev}\n"
QUESTION = decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True)
NAME = "127.0.0.1"


def written(path: Path, content: bytes) -> None:
    """Replace a file as who rotates it does: whole, by a rename."""
    draft = path.with_suffix(".new")
    draft.write_bytes(content)
    draft.rename(path)


def serve_by(directory: Path, authority: trustme.CA, *trusted: trustme.CA) -> None:
    """Put the server's files in place: its own leaf of `authority`, and the authorities of clients."""
    leaf = authority.issue_cert(NAME)
    written(directory / "key.pem", leaf.private_key_pem.bytes())
    written(directory / "cert.pem", b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    written(directory / "ca.pem", b"".join(item.cert_pem.bytes() for item in trusted))


def tls_flags(directory: Path) -> dict[tuple[str, ...], str]:
    files = {"cert": "cert.pem", "key": "key.pem", "client_ca": "ca.pem"}
    return {("grpc", "tls", name): str(directory / file) for name, file in files.items()}


def channel(pdp: RunningPdp, own: trustme.LeafCert, *roots: trustme.CA) -> grpc.aio.Channel:
    chain = b"".join(pem.bytes() for pem in own.cert_chain_pems)
    trusted = b"".join(item.cert_pem.bytes() for item in roots)
    credentials = grpc.ssl_channel_credentials(trusted, own.private_key_pem.bytes(), chain)
    # A connection of its own: gRPC would share one among channels that look alike.
    options = [("grpc.use_local_subchannel_pool", 1)]
    pdp.channels.append(grpc.aio.secure_channel(str(pdp.address), credentials, options=options))
    return pdp.channels[-1]


async def enters(pdp: RunningPdp, own: trustme.LeafCert, *roots: trustme.CA) -> bool:
    """Tell whether a new connection with this certificate is let in and answered."""
    stub = decision_pb2_grpc.DecisionServiceStub(channel(pdp, own, *roots))
    request = decision_pb2.EvaluateRequest(question=QUESTION)
    try:
        answer = await stub.Evaluate(request, metadata=pdp.metadata(BOB), timeout=3)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - the handshake failed
        return False
    return bool(answer.decision.effect == 1)


@pytest.mark.holds("F25")
def test_server_clients_and_authority_are_exchanged_with_an_overlap(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    serve_by(tmp_path, old, old)
    flags = tls_flags(tmp_path)
    first, second = old.issue_cert("one.example"), new.issue_cert("two.example")
    hour_ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    expired = new.issue_cert("late.example", not_after=hour_ago, not_before=hour_ago - dt.timedelta(hours=1))

    async def work() -> None:
        async with running_pdp(tmp_path, flags=flags, assets=ASSETS) as pdp:
            assert await enters(pdp, first, old)
            assert not await enters(pdp, second, old)
            stub = decision_pb2_grpc.DecisionServiceStub(channel(pdp, first, old))
            watch = stub.Watch(decision_pb2.WatchRequest(question=QUESTION), metadata=pdp.metadata(BOB), timeout=60)
            assert (await watch.read()).decision.effect == 1

            serve_by(tmp_path, new, old, new)  # the overlap: the server is new, clients may be either
            assert await enters(pdp, first, old, new)
            assert await enters(pdp, second, new)
            assert not await enters(pdp, first, old)  # who does not know the new authority does not take its server

            serve_by(tmp_path, new, new)
            assert not await enters(pdp, first, old, new)
            assert await enters(pdp, second, new)
            assert not await enters(pdp, expired, new)

            target = {"kind": "resource", "resource": "dataset/open"}
            await pdp.app.replication.publisher.publish("lock", lock_payload(1, target=target), author="user:ada")
            assert (await watch.read()).decision.reason == "locked"  # what was open before went on

    asyncio.run(work())


@pytest.mark.holds("F25")
def test_half_written_files_change_nothing(tmp_path: Path) -> None:
    authority = trustme.CA()
    serve_by(tmp_path, authority, authority)
    flags = tls_flags(tmp_path)
    own = authority.issue_cert("one.example")

    async def work() -> None:
        async with running_pdp(tmp_path, flags=flags, assets=ASSETS) as pdp:
            assert await enters(pdp, own, authority)
            (tmp_path / "cert.pem").write_bytes(b"")
            assert await enters(pdp, own, authority)
            (tmp_path / "key.pem").unlink()
            assert await enters(pdp, own, authority)
            serve_by(tmp_path, authority, authority)
            assert await enters(pdp, own, authority)

    asyncio.run(work())


@pytest.mark.holds("F14")
def test_an_issuer_exchanges_its_keys_under_load_and_nobody_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with running_pdp(tmp_path, assets=ASSETS) as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            old, new = pdp.issuer, DevelopmentIssuer.generate()
            over = asyncio.Event()
            asked = 0

            async def caller(issuers: list[DevelopmentIssuer]) -> None:
                nonlocal asked
                while not over.is_set():
                    asked += 1
                    token = issue(issuers[-1], sub=BOB, jti=f"r{asked}", now_s=pdp.app.clock.now_ms() // 1000)
                    how: dict[str, Any] = {"metadata": (("authorization", f"Bearer {token}"),), "timeout": 20}
                    answer = await stub.Evaluate(decision_pb2.EvaluateRequest(question=QUESTION), **how)
                    assert answer.decision.effect == 1

            staying, moving = [old], [old]
            callers = [asyncio.create_task(caller(issuers)) for issuers in (staying, staying, moving, moving)]
            both = json.loads(old.jwks())["keys"] + json.loads(new.jwks())["keys"]
            written(tmp_path / "jwks.json", json.dumps({"keys": both}).encode())
            os.utime(tmp_path / "jwks.json")
            before = asked
            await until(lambda: asked > before + 20)
            moving.append(new)
            await until(lambda: asked > before + 60)
            over.set()
            await asyncio.gather(*callers)

    asyncio.run(work())
