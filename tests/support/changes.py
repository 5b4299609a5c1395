"""People who change the policy, in tests: what each may is decided by the policy itself, as a door would ask it."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from pdp.decide import decide
from pdp.engine.pack import Pack, load_pack
from pdp.errors import PortcullisError, Reason
from pdp.model.attributes import Attributes
from pdp.model.decision import Decision, Obligation
from pdp.model.names import Action, Principal
from pdp.model.request import Party, Question
from pdp.service.access import Access
from pdp.service.desk import POLICY, Acting, Desk
from pdp.service.genesis import policy_payload
from pdp.service.policy import Policies
from pdp.service.replicate import Publisher
from tests.support.logs import Authority, HandClock, MemoryLog
from tests.support.worlds import PACK

ADA, OLGA, EVE, MIA = "user:ada@x.org", "user:olga@x.org", "user:eve@x.org", "user:mia@x.org"
PEOPLE = (
    f"g, {ADA}, role:policy-admin, prod\ng, {OLGA}, role:policy-admin, prod\ng, {EVE}, role:policy-approver, prod\n"
)


def files(**more: str) -> dict[str, bytes]:
    """Return the shipped pack without its own tests; `people_csv` and its like are further files of it."""
    shipped = {
        str(path.relative_to(PACK)): path.read_bytes()
        for path in PACK.rglob("*")
        if path.is_file() and not {"tests", "golden"} & set(path.parts)
    }
    return shipped | {name.replace("_csv", ".csv"): text.encode() for name, text in more.items()}


@dataclass
class Place:
    """A PDP's policy room without doors: Ada and Olga administer, Eve approves."""

    log: MemoryLog = field(default_factory=MemoryLog)
    clock: HandClock = field(default_factory=HandClock)
    shipped: dict[str, bytes] = field(default_factory=files)
    decided: list[tuple[str, Decision]] = field(default_factory=list)

    async def open(self, people: str = PEOPLE) -> None:
        """Write genesis."""
        authority = Authority()
        self.replica = authority.replica()
        self.publisher = Publisher(self.log, self.replica, authority.keys, self.clock)
        pack = load_pack(self.shipped | {"people.csv": people.encode()})
        assert isinstance(pack, Pack), pack
        payload = policy_payload(pack, admin=ADA, role="role:policy-admin")
        await self.publisher.publish("policy", payload, author="genesis")
        self.desk = Desk(replica=self.replica, publisher=self.publisher, clock=self.clock)
        self.policies, self.access = Policies(self.desk), Access(self.desk)

    def acting(self, subject: str, *actors: str, groups: Sequence[str] = ()) -> Acting:
        """Return who acts: `subject`, through `actors`."""
        parties = (
            Party(principal=Principal.parse(subject), groups=frozenset(groups)),
            *(Party(principal=Principal.parse(name)) for name in actors),
        )

        def decided(action: Action, attributes: Attributes) -> Decision:
            question = Question(
                subject=parties[0], actors=parties[1:], action=action, resource=POLICY, attributes=attributes
            )
            return decide(self.replica.world, question, self.clock.now_ms())

        async def may(action: Action, attributes: Attributes) -> Sequence[Obligation]:
            await asyncio.sleep(0)  # a door records what it decides, and others run meanwhile
            decision = decided(action, attributes)
            self.decided.append((str(action), decision))
            if not decision.allowed:
                raise PortcullisError(decision.reason, "not allowed")
            return decision.obligations

        def would(action: Action, attributes: Attributes) -> Sequence[Obligation] | None:
            decision = decided(action, attributes)
            return decision.obligations if decision.allowed else None

        return Acting(parties=parties, may=may, would=would)

    def rows(self) -> set[str]:
        """Return the live rows as text."""
        snapshot = self.replica.world.snapshot
        assert snapshot is not None
        return {", ".join((row.section, *row.fields)) for row in snapshot.rows}


def at_place(test: Any, people: str = PEOPLE, **options: Any) -> None:
    """Run `test(place)` at a place of its own."""

    async def run() -> None:
        place = Place(**options)
        await place.open(people)
        await test(place)

    asyncio.run(run())


async def refusal(doing: Coroutine[Any, Any, Any]) -> Reason:
    """Return why something was refused; that it was not is a failure."""
    try:
        await doing
    except PortcullisError as error:
        return error.reason
    raise AssertionError("it was not refused")
