"""Without a PDP: decisions from the last good world within its bound, then none; records wait on the disk."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters.clock import SystemClock
from pdp.errors import PortcullisError, Reason
from pdp.identity.development import DevelopmentIssuer, issue, trust_text
from pdp.service.audit import AuditReceiver
from pdp.trust.feed import Ack, FeedItem, Hello
from sidecar.asked import Ask, Verdict
from sidecar.config import CoreConfig, PdpAccess
from sidecar.core import Core
from sidecar.routes import Placement, Served, oip
from tests.e2e.sidecar.test_agent import ASSETS, PATIENCE_S, POLICY, ScriptedLog, now_ms
from tests.support.worlds import TENANT, Scribe, verifier

HIGH_S = 15  # the staleness bound of ASSETS' endpoint (`sensitivity: high`)


class Gone:
    """A PDP that nobody reaches."""

    def open(self, hello: Hello) -> "Gone":
        del hello
        return self

    async def __aiter__(self) -> AsyncIterator[FeedItem]:
        raise PortcullisError(Reason.PDP_UNREACHABLE, "connection refused")
        yield  # an iterator, if an empty one

    async def renew(self) -> bool:
        return True

    async def acknowledge(self, ack: Ack) -> None:
        del ack

    async def close(self) -> None:
        pass


@dataclass
class Later:
    """A clock that is some seconds ahead, as after a night without a PDP."""

    ahead_s: float

    def now_ms(self) -> int:
        return SystemClock().now_ms() + int(self.ahead_s * 1_000)

    def mono_s(self) -> float:
        return SystemClock().mono_s() + self.ahead_s


@dataclass
class Sink:
    """A PDP that takes audit records, once it is back."""

    receiver: AuditReceiver | None = None
    records: list[bytes] = field(default_factory=list)
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def append(self, chain: str, records: Sequence[bytes]) -> tuple[bytes, int]:
        self.tried.set()
        if self.receiver is None:
            raise PortcullisError(Reason.PDP_UNREACHABLE, "connection refused")
        head = await self.receiver.append(owner="sidecar", chain=chain, records=records)
        self.records.extend(records)
        self.arrived.set()
        return bytes.fromhex(head.digest), head.n


def issuer_in(directory: Path) -> DevelopmentIssuer:
    made = DevelopmentIssuer.generate()
    (directory / "jwks.json").write_bytes(made.jwks())
    (directory / "trust.yaml").write_text(trust_text(made, jwks_file="jwks.json"))
    return made


@asynccontextmanager
async def core(directory: Path, source: Any, *, ahead_s: float = 0.0, sink: Any = None) -> AsyncIterator[Core]:
    config = CoreConfig(
        table=oip.table(served={"fraud": Served(resource="endpoint/fraud", model="model/fraud@12")}),
        pdp=PdpAccess(address="unused:1", root_digest=verifier().root.digest),
        trust=directory / "trust.yaml",
        state_dir=directory / "s",
        tenant=TENANT,
    )
    one = Core(config, source=source, sink=sink, clock=Later(ahead_s))
    try:
        await one.start()
        one.follow()
        yield one
    finally:
        await one.stop()


def log() -> ScriptedLog:
    scribe = Scribe(time_ms=now_ms())
    scribe.policy(POLICY)
    scribe.assets(**ASSETS)
    return ScriptedLog(scribe)


async def ask(one: Core, issuer: DevelopmentIssuer, ahead_s: float = 0.0) -> Verdict:
    token = issue(issuer, sub="bob@example.com", jti="1", now_s=int(now_ms() / 1_000 + ahead_s))
    asked = Ask(method="POST", target="/v2/models/fraud/infer", route=None, authorization=f"Bearer {token}")
    return await one.gate.decide(asked, Placement.EXT_AUTHZ)


async def restored(one: Core) -> None:
    """Wait until the world of the disk is in force, as a starting sidecar does before its first good answer."""
    async with asyncio.timeout(PATIENCE_S):
        while not one.world_seq:  # noqa: ASYNC110 - the follower reads it in the background and tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.holds("F1", "P12")
@pytest.mark.parametrize(("ahead_s", "reason"), [(0.0, Reason.GRANTED), (HIGH_S + 2.0, Reason.WORLD_STALE)])
def test_it_starts_without_a_pdp_from_the_last_good_world_and_within_its_bound(
    tmp_path: Path, ahead_s: float, reason: Reason
) -> None:
    issuer = issuer_in(tmp_path)

    async def go() -> None:
        async with core(tmp_path, log()) as first:
            await first.fresh()
            assert (await ask(first, issuer)).allowed
        async with core(tmp_path, Gone(), ahead_s=ahead_s) as second:
            await restored(second)
            verdict = await ask(second, issuer, ahead_s)
            assert (verdict.reason, verdict.allowed) == (reason, reason is Reason.GRANTED)
            assert verdict.world_seq == 2

    asyncio.run(go())


@pytest.mark.holds("F1", "P2")
def test_it_denies_where_it_never_held_a_world(tmp_path: Path) -> None:
    """The root of trust is there, the world is not: everything is denied, and nothing hangs."""
    issuer = issuer_in(tmp_path)

    async def go() -> None:
        empty = ScriptedLog(Scribe(time_ms=now_ms()))
        async with core(tmp_path, empty) as one:
            verdict = await ask(one, issuer)
            assert not verdict.allowed

    asyncio.run(go())


@pytest.mark.holds("F9", "S1")
def test_records_wait_on_the_disk_while_the_pdp_is_away_and_are_shipped_later(tmp_path: Path) -> None:
    issuer = issuer_in(tmp_path)

    async def go() -> None:
        away = Sink()
        async with core(tmp_path, log(), sink=away) as first:
            await first.fresh()
            verdict = await ask(first, issuer)
            assert verdict.allowed  # durable here is durable
            await asyncio.wait_for(away.tried.wait(), PATIENCE_S)
        back = Sink(AuditReceiver(tmp_path / "received"))
        async with core(tmp_path, Gone(), sink=back):  # after a restart, too: the local files are the queue
            async with asyncio.timeout(PATIENCE_S):
                while not any(verdict.decision_id.encode() in record for record in back.records):
                    await back.arrived.wait()
                    back.arrived.clear()

    asyncio.run(go())
