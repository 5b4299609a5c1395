"""What the gRPC figures are measured on: a PDP as an operator starts it, an echo beside it, and the questions.

The world is the shipped pack with people, workloads and assets of several kinds. The caller is a gateway that asserts whom
it asks for, so that nearly every question of a batch is about another subject, resource and workload. About three in four
are allowed; some of those by a rule with a condition.
"""

import datetime as dt
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import grpc.aio

from pdp.adapters.pack_files import STARTER
from pdp.demo import commands
from pdp.demo.authority import TRUST_DOMAIN, Authority, Credential, create_authority, spiffe_id
from pdp.demo.child import Child
from pdp.v1 import decision_pb2

USERS, TEAMS, ENDPOINTS, TABLES, APPS, NOTEBOOKS = 400, 20, 200, 200, 40, 40
GATEWAY = f"workload:{spiffe_id('/ns/ml/sa/gateway')}"
ADMIN = f"workload:{spiffe_id('/ns/ops/sa/admin')}"
READY = r"^ready .*?\bgrpc=(\S+)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A directory with everything that a PDP, the echo and their caller need."""

    directory: Path
    authority: Authority
    server: Credential
    gateway: Credential

    def credentials(self, caller: Credential | None = None) -> grpc.ChannelCredentials:
        """Return how a caller, the gateway unless told otherwise, opens a channel: with its own certificate."""
        own = caller or self.gateway
        return grpc.ssl_channel_credentials(
            self.authority.bundle.read_bytes(), own.key.read_bytes(), own.certificate.read_bytes()
        )


@contextmanager
def prepared() -> Iterator[Ground]:
    """Make certificates, pack and issuer table in a directory of their own."""
    with TemporaryDirectory(prefix="portcullis-bench-") as name:
        directory = Path(name)
        authority = create_authority(directory / "pki", dt.datetime.now(dt.UTC))
        gateway = authority.issue_workload("gateway", "/ns/ml/sa/gateway")
        ground = Ground(directory=directory, authority=authority, server=authority.issue_server("pdp"), gateway=gateway)
        _write_pack(directory / "pack")
        domain = {"domain": TRUST_DOMAIN, "ca": str(authority.bundle)}
        (directory / "trust.yaml").write_text(json.dumps({"issuers": [], "trust_domains": [domain]}))
        yield ground


@contextmanager
def serving(ground: Ground, name: str, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run `pdp serve` in a process of its own, with `settings` in its environment; yields its address."""
    with started(ground, name, settings) as child:
        yield child.wait_for(READY)[1]


@contextmanager
def started(ground: Ground, name: str, settings: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Run `pdp serve` in a process of its own; yields that process."""
    options = {
        "--state-dir": str(ground.directory / name),
        "--pack": str(ground.directory / "pack"),
        "--trust": str(ground.directory / "trust.yaml"),
        "--tls-cert": str(ground.server.certificate),
        "--tls-key": str(ground.server.key),
        "--client-ca": str(ground.authority.bundle),
        "--admin": ADMIN,
        "--listen": "127.0.0.1:0",
        "--probes": "127.0.0.1:0",
    }
    command = [*commands.PDP, "serve", "--init", *(part for option in options.items() for part in option)]
    with ExitStack() as cleanup:
        log = ground.directory / f"{name}.log"
        child = Child.start(name, command, log=log, environment=commands.base_environment() | dict(settings or {}))
        cleanup.callback(child.stop)
        yield child


@contextmanager
def echoing(ground: Ground, answer: decision_pb2.EvaluateBatchResponse, kind: str) -> Iterator[str]:
    """Run a bare echo, which answers each batch with as many decisions of `answer`, behind the same mutual TLS."""
    template = ground.directory / "answer.bin"
    template.write_bytes(answer.SerializeToString())
    files = (template, ground.server.key, ground.server.certificate, ground.authority.bundle)
    command = [sys.executable, "-m", "tests.bench.rpc_echo", kind, *map(str, files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def batches(size: int, count: int) -> list[decision_pb2.EvaluateBatchRequest]:
    """Return `count` different requests of `size` questions; the same ones in every run."""
    draw = random.Random(size)  # noqa: S311 - the same questions every time, and no secret
    return [decision_pb2.EvaluateBatchRequest(questions=[_question(draw) for _ in range(size)]) for _ in range(count)]


def _question(draw: random.Random) -> decision_pb2.Question:
    user = draw.randrange(USERS)
    asserted = decision_pb2.AssertedSubject(principal=_user(user), groups=[f"group:team{user % TEAMS}"])
    invokes = draw.random() < 0.6
    where = f"/ns/apps/sa/app{draw.randrange(APPS)}" if invokes else f"/ns/notebooks/sa/nb{draw.randrange(NOTEBOOKS)}"
    return decision_pb2.Question(
        subject=decision_pb2.Subject(asserted=asserted),
        action="endpoint.invoke" if invokes else "dataset.read",
        resource=_endpoint(draw.randrange(ENDPOINTS)) if invokes else _table(draw.randrange(TABLES)),
        workload=f"workload:{spiffe_id(where)}",
        supports_all=True,
    )


def _user(number: int) -> str:
    return f"user:person{number}@{TRUST_DOMAIN}"


def _endpoint(number: int) -> str:
    return f"endpoint/line{number % 10}/served{number}"


def _table(number: int) -> str:
    return f"dataset/area{number % 10}/table{number}"


def _write_pack(directory: Path) -> None:
    directory.mkdir()
    for source in STARTER.iterdir():
        if source.is_file():
            (directory / source.name).write_bytes(source.read_bytes())
    (directory / "people.csv").write_text("\n".join(_rows()) + "\n")
    (directory / "assets.yaml").write_text(json.dumps(_assets()))


def _rows() -> Iterator[str]:
    """Yield who holds what: three in four teams run applications, all but every fifth read data, and one area is personal."""
    yield f"g, {GATEWAY}, role:gateway, prod"
    for team in range(TEAMS):
        if team % 4:
            yield f"g, group:team{team}, role:app, prod"
    for user in range(USERS):
        if user % 5:
            yield f"g, {_user(user)}, role:data-scientist, dev"
    for table in range(0, TABLES, 10):
        yield f"g2, {_table(table)}, collection:pii"
    yield f"g3, workload:{spiffe_id('/ns/apps/**')}, segment:apps"
    yield f"g3, workload:{spiffe_id('/ns/notebooks/**')}, segment:notebooks"


def _assets() -> dict[str, Any]:
    endpoints = {_endpoint(n): {"environment": "prod", "segment": "segment:serving"} for n in range(ENDPOINTS)}
    tables = {_table(n): {"environment": "dev", "segment": "segment:data"} for n in range(TABLES)}
    return endpoints | tables
