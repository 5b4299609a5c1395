"""A PDP's state directory with a history, made by the real parts without doors: who asked what, while the world changed."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdp.adapters.audit_file import AuditChain
from pdp.adapters.keys_files import load_pdp_keys, load_root
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.engine.casbin_text import Row
from pdp.model.decision import Decision
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.replica import Replica
from pdp.server.stores import WORLD_FILE
from pdp.service.audit import AuditTrail
from pdp.service.decide import Decider
from pdp.service.replicate import Publisher
from pdp.trust.verifier import TrustVerifier
from pdp.world import empty_world, policy_after
from tests.support.logs import HandClock
from tests.support.pdp import initialised
from tests.support.worlds import rows

TENANT = "main"
BOB, EVE, ADA = "user:bob@x.org", "user:eve@x.org", "user:ada@demo.portcullis"
PEOPLE = f"g, {BOB}, role:data-scientist, dev\ng, {EVE}, role:viewer, dev\n"
ASSETS = """
dataset/people@3: {environment: dev, sensitivity: high}
dataset/sales: {environment: dev}
model/fraud@7: {environment: dev}
"""


@dataclass(kw_only=True)
class Office:
    """Asks and changes, at a time that the test sets."""

    state: Path
    clock: HandClock
    replica: Replica
    publisher: Publisher
    decider: Decider
    trail: AuditTrail
    ids: Any = field(default_factory=itertools.count)

    async def ask(self, subject: str, action: str, resource: str, **more: Any) -> Decision:
        """Ask one question, which is decided and recorded."""
        question = Question(
            subject=Party(principal=Principal.parse(subject)),
            action=Action.parse(action),
            resource=Resource.parse(resource),
            **more,
        )
        return (await self.decider.answer(question)).decision

    async def rows(self, added: str = "", removed: str = "", **history: Any) -> None:
        """Make rows live, taking others away."""
        policy = self.replica.world.policy
        assert policy is not None
        held = {(row.section, row.fields): row for row in policy.snapshot.rows}
        gone = [held[row.section, row.fields] for row in rows(removed)]
        next_line = 1 + max((row.line for row in policy.snapshot.rows if row.file == "more.csv"), default=0)
        new = [Row(row.section, row.fields, "more.csv", next_line + n) for n, row in enumerate(rows(added))]
        change = {
            "model": None, "vocabulary": None, "message": "a test", "rows_digest": "",
            "added": [row.to_json() for row in new], "removed": [row.to_json() for row in gone],
        }  # fmt: skip
        change["rows_digest"] = policy_after(policy, change).snapshot.digest.hex()
        await self.publisher.publish("policy", {**change, **history}, author=ADA)

    async def assets(self, named: Mapping[str, Mapping[str, Any]]) -> None:
        """Register assets."""
        listed = [{"name": name, "attributes": dict(attributes)} for name, attributes in named.items()]
        await self.publisher.publish("assets", {"assets": listed}, author=ADA)


def in_office(directory: Path, doing: Callable[[Office], Awaitable[None]], **options: Any) -> Path:
    """Run `doing(office)` and return the state directory that it leaves."""

    async def run() -> Path:
        await initialised(directory, **{"rows": PEOPLE, "assets": ASSETS} | options)
        state = directory / "state"
        clock = HandClock(wall_ms=time.time_ns() // 1_000_000)
        root = load_root(state)
        assert root is not None
        log = SqliteWorldLog(state / WORLD_FILE)
        replica = Replica(verifier=TrustVerifier(root, TENANT), world=empty_world(TENANT))
        publisher = Publisher(log, replica, load_pdp_keys(state), clock)
        await publisher.catch_up()
        chain = AuditChain.open(state / "audit", name="pdp", who=dict, now_ms=clock.now_ms, reserve_bytes=0)
        trail = AuditTrail(chain, now_ms=clock.now_ms)
        ids = itertools.count()
        decider = Decider(replica=replica, audit=trail, clock=clock, new_id=lambda: f"d{next(ids)}")
        replica.staleness_s = lambda **_: 0.5  # type: ignore[method-assign] # no heartbeat is signed here
        office = Office(state=state, clock=clock, replica=replica, publisher=publisher, decider=decider, trail=trail)
        try:
            await doing(office)
            await trail.record((), durable=True)
        finally:
            await trail.close()
            await log.close()
        return state

    return asyncio.run(run())
