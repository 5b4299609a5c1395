"""S9: a canary in every slot for a secret, a PDP driven through success and failure, and no canary in anything that it says.

Source: Vault CVE-2024-8365; grpc-go GHSA-xr7q-jx4m-x55m; Traefik CVE-2022-23469; SpiceDB CVE-2023-29193, -46255, CVE-2026-40091;
Pomerium CVE-2024-39315; OpenFGA CVE-2026-40293.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from pdp.cli.main import run
from pdp.identity.development import DevelopmentIssuer
from pdp.sdk import Client, PdpError
from pdp.v1 import decision_pb2, decision_pb2_grpc, lock_pb2, lock_pb2_grpc
from tests.support.pdp import ADA, BOB, EVE, PACK
from tests.support.redis import RedisServer, redis_server
from tests.support.served import ServedPdp

PASSWORD = "canary-password-of-redis"
PROOF = "canary.proof.of-possession"
ASK = decision_pb2.EvaluateRequest(
    question=decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True)
)


def key_bodies(directory: Path) -> Iterator[str]:
    """Yield every line of every private key: none of them may ever be seen again."""
    for path in directory.rglob("*.pem"):
        text = path.read_text()
        if "PRIVATE KEY" in text:
            yield from (line for line in text.splitlines() if line and not line.startswith("-----"))


@contextlib.asynccontextmanager
async def stage(directory: Path, redis: RedisServer, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[ServedPdp]:
    """A PDP over a Redis with a password, made by the commands that an operator uses."""
    (directory / "password").write_text(PASSWORD)
    config = directory / "pdp.yaml"
    config.write_text(
        f"mode: development\nstate_dir: state\ntrust: trust.yaml\nlog: {{level: debug}}\n"
        f"store: {{url: '{redis.url}', password_file: password}}\n"
    )
    for made in (
        ("token", "init", "--dir", str(directory)),
        ("init", "--config", str(config), "--pack", str(PACK), "--admin", f"user:{ADA}"),
    ):
        assert await asyncio.to_thread(run, made) == 0
    (directory / "said-at-init").write_text("".join(capsys.readouterr()))
    issuer = DevelopmentIssuer.from_pem((directory / "issuer.pem").read_bytes())
    pdp = ServedPdp(directory=directory, issuer=issuer, options=("--config", str(config)))
    try:
        await pdp.start()
        yield pdp
    finally:
        for channel in pdp.channels:
            await channel.close()
        if pdp.child is not None:
            await asyncio.to_thread(pdp.child.stop)


async def told(call: Any) -> str:
    """Return everything that came back, an error's metadata included."""
    try:
        return str(await call)
    except grpc.aio.AioRpcError as error:
        trailing = [
            f"{key}={value.decode(errors='replace') if isinstance(value, bytes) else value}"
            for key, value in error.trailing_metadata() or ()
        ]
        return f"{error.code()} {error.details()} {error.debug_error_string()} {trailing}"


async def exercise(pdp: ServedPdp) -> tuple[list[str], list[str]]:
    """Go through right and wrong calls; return what was answered, and the tokens that were shown."""
    good = [pdp.metadata(sub)[0][1] for sub in (ADA, BOB, EVE)]
    spoiled = [
        good[0][:-4] + "AAAA",
        good[0] + ".x",
        f"{good[0]}, {good[1]}",
        "Bearer canary-token-that-is-none",
        "Basic Y2FuYXJ5",
    ]
    stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
    locks = lock_pb2_grpc.LockServiceStub(pdp.channel())
    answers = []
    for value in (*good, *spoiled):
        metadata = (("authorization", value), ("dpop", PROOF))
        answers.append(await told(stub.Evaluate(ASK, metadata=metadata, timeout=10)))
        answers.append(await told(stub.Evaluate(ASK, metadata=metadata[:1], timeout=10)))
        answers.append(await told(locks.List(lock_pb2.ListLocksRequest(), metadata=metadata[:1], timeout=10)))
        inside = decision_pb2.EvaluateRequest()
        inside.CopyFrom(ASK)
        inside.question.subject.credential = value
        answers.append(await told(stub.Evaluate(inside, metadata=(("authorization", good[0]),), timeout=10)))
    token = good[2].removeprefix("Bearer ")
    with Client(pdp.address, token=lambda: token, timeout_s=5) as client:
        answers.append(repr(client) + repr(vars(client)))
        with contextlib.suppress(PdpError):
            await asyncio.to_thread(client.check, "dataset.read", "dataset/open")
    async with httpx.AsyncClient(base_url=pdp.probes) as probes:
        answers += [(await probes.get(path)).text for path in ("/readyz", "/metrics", "/healthz")]
    shown = [value.removeprefix("Bearer ") for value in (*good, *spoiled)]
    return answers, [part for value in shown for part in (value, value.rsplit(".", 1)[-1]) if len(part) > 20] + [PROOF]


def commands(pdp: ServedPdp, capsys: pytest.CaptureFixture[str]) -> str:
    """Run what operators run, right and wrong, and return all that it said."""
    config = str(pdp.directory / "pdp.yaml")
    token = pdp.directory / "token"
    token.write_text(pdp.metadata(ADA)[0][1].removeprefix("Bearer "))
    connection = ("--server", pdp.address, "--token-file", str(token))
    run(("log", "show", "--config", config))
    run(("keys", "show", "--config", config))
    run(("doctor", *connection, "--probes", pdp.probes, "--json"))
    run(("check", "dataset.read", "dataset/open", *connection))
    run(("audit", "tail", *connection, "--last", "5", "--json"))
    (pdp.directory / "password").write_text(PASSWORD + "-wrong")
    run(("log", "show", "--config", config))
    (pdp.directory / "password").write_text(PASSWORD)
    token.write_text("canary-token-that-is-none")
    run(("check", "dataset.read", "dataset/open", *connection))
    return "".join(capsys.readouterr())


@pytest.mark.holds("S9", "adv_secret_leak")
def test_no_secret_is_in_anything_that_a_pdp_says_or_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def work(redis: RedisServer) -> tuple[str, list[str]]:
        async with stage(tmp_path, redis, capsys) as pdp:
            answers, canaries = await exercise(pdp)
            answers.append(await asyncio.to_thread(commands, pdp, capsys))
            redis.kill()
            answers.append(await told(_lock(pdp)))
        written = [path for path in (tmp_path / "state").rglob("*") if path.is_file() and path.suffix != ".pem"]
        files = [*written, tmp_path / "pdp.log", tmp_path / "said-at-init"]
        return "\n".join([*answers, *(path.read_bytes().decode(errors="replace") for path in files)]), canaries

    with redis_server("--requirepass", PASSWORD) as redis:
        said, tokens = asyncio.run(work(redis))
    canaries = [PASSWORD, *tokens, *key_bodies(tmp_path)]
    assert len(canaries) > 10
    assert json.dumps(ADA)[1:-1] in said  # what is no secret is there: something was read
    assert [canary for canary in canaries if canary in said] == []


def _lock(pdp: ServedPdp) -> Any:
    lock = lock_pb2.LockRequest(target=lock_pb2.LockTarget(principal="user:m@x"), reason="r")
    return lock_pb2_grpc.LockServiceStub(pdp.channel()).Lock(lock, metadata=pdp.metadata(ADA), timeout=15)
