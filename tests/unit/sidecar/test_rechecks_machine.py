"""The live responses as a state machine: whatever happens, what may not run does not, and what may is left alone."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pdp.errors import Reason
from pdp.model.decision import Decision, Effect, Obligation, deny
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from sidecar.asked import Verdict
from sidecar.duties import Duties
from sidecar.limits import LIMITS
from sidecar.rechecks import Rechecker

SUBJECTS = ("ann", "bob", "eve")
subjects = st.sampled_from(SUBJECTS)


def question(subject: str) -> Question:
    return Question(
        subject=Party(principal=Principal.parse(f"user:{subject}@example.com")),
        action=Action.parse("endpoint.invoke"),
        resource=Resource.parse("endpoint/fraud"),
    )


def named(asked: Question) -> str:
    return str(asked.subject.principal).removeprefix("user:").partition("@")[0]


@dataclass
class World:
    """A world, its clock, and which responses a change of it concerns."""

    now_s: float = 1_000.0
    fresh_until_s: float = 1_060.0
    locked: set[str] = field(default_factory=set)
    duties: dict[str, tuple[Obligation, ...]] = field(default_factory=dict)
    changed: dict[str, list[asyncio.Event]] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)

    def now_ms(self) -> int:
        return int(self.now_s * 1_000)

    def mono_s(self) -> float:
        return self.now_s

    def patience_s(self, asked: Question) -> float:
        del asked
        return self.fresh_until_s - self.now_s

    def why_not(self, subject: str) -> Reason | None:
        if subject in self.locked:
            return Reason.LOCKED
        return Reason.WORLD_STALE if self.now_s > self.fresh_until_s else None

    def recheck(self, asked: Question) -> Decision:
        subject = named(asked)
        self.checked.append(subject)
        reason = self.why_not(subject)
        if reason is not None:
            return deny(reason, world_seq=1)
        obligations = self.duties.get(subject, ())
        return Decision(effect=Effect.ALLOW, reason=Reason.GRANTED, world_seq=1, obligations=obligations)

    @contextlib.contextmanager
    def watching(self, asked: Question) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        listening = self.changed.setdefault(named(asked), [])
        listening.append(event)
        try:
            yield event
        finally:
            listening.remove(event)


@dataclass
class Running:
    """A response as the model of the test knows it."""

    subject: str
    expires_at_s: int
    fixed: frozenset[Obligation]
    messages: int = 0
    cut: list[Reason] = field(default_factory=list)


class Responses(RuleBasedStateMachine):
    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.rechecker = Rechecker(decider=self.world, time=self.world, jitter=lambda: 0.5, concerns=self.world)
        self.live: dict[int, Running] = {}

    # -- what happens ------------------------------------------------------------------------------------------------

    @rule(target=running, subject=subjects, ttl=st.one_of(st.just(0), st.integers(1, 200)))
    def opens(self, subject: str, ttl: int) -> int:
        expires = int(self.world.now_s) + ttl if ttl else 0
        duties = Duties.of(self.world.duties.get(subject, ()))
        one = Running(subject=subject, expires_at_s=expires, fixed=duties.fixed)
        verdict = Verdict(
            allowed=True, reason=Reason.GRANTED, question=question(subject), expires_at_s=expires, duties=duties
        )
        opened = self.rechecker.open(verdict, one.cut.append)
        expected = self.world.why_not(subject)
        if isinstance(opened, Reason):
            assert opened in {expected, Reason.TOKEN_EXPIRED}
            return -1
        assert expected is None
        self.live[opened] = one
        return opened

    @rule(session=consumes(running))
    def ends(self, session: int) -> None:
        self.rechecker.close(session)
        self.live.pop(session, None)

    @rule(subject=subjects)
    def locks(self, subject: str) -> None:
        self.world.locked.add(subject)
        self._new_world(subject)

    @rule(subject=subjects)
    def unlocks(self, subject: str) -> None:
        self.world.locked.discard(subject)
        self._new_world(subject)

    @rule(
        subject=subjects, name=st.sampled_from(["max_tokens", "max_messages", "recheck_messages"]), n=st.integers(1, 5)
    )
    def obliges(self, subject: str, name: str, n: int) -> None:
        """A level changes: the same access now comes with another duty."""
        self.world.duties[subject] = (Obligation(name=name, value=str(n)),)
        self._new_world(subject)

    @rule(session=running, more=st.integers(1, 3))
    def carries(self, session: int, more: int) -> None:
        one = self.live.get(session)
        if one is None:
            return
        one.messages += more
        self.rechecker.carried(session, one.messages)
        bound = next((int(d.value) for d in self.world.duties.get(one.subject, ()) if d.name == "max_messages"), None)
        if bound is not None and one.messages > bound and not one.cut:
            raise AssertionError("a message too many went on")
        self._collect()

    @rule(seconds=st.floats(0.1, 40.0))
    def passes(self, seconds: float) -> None:
        self.world.now_s += seconds
        self.rechecker.check_due()
        self._collect()

    @rule(seconds=st.floats(0.0, 60.0))
    def hears_a_heartbeat(self, seconds: float) -> None:
        self.world.fresh_until_s = max(self.world.fresh_until_s, self.world.now_s + seconds)

    def _new_world(self, subject: str) -> None:
        for event in self.world.changed.get(subject, ()):
            event.set()
        self.world.checked.clear()
        asyncio.run(self.rechecker.world_changed())
        assert set(self.world.checked) <= {subject}  # only sessions whose answer can change are decided again
        self._collect()

    def _collect(self) -> None:
        for session in [session for session, one in self.live.items() if one.cut]:
            one = self.live.pop(session)
            assert len(one.cut) == 1
            self._deserved(one, one.cut[0])

    def _deserved(self, one: Running, reason: Reason) -> None:
        duties = Duties.of(self.world.duties.get(one.subject, ()))
        true = {
            Reason.TOKEN_EXPIRED: bool(one.expires_at_s) and self.world.now_s >= one.expires_at_s,
            Reason.LOCKED: one.subject in self.world.locked,
            Reason.WORLD_STALE: self.world.now_s > self.world.fresh_until_s,
            Reason.OBLIGATION_UNSUPPORTED: duties.fixed != one.fixed,
            Reason.BUDGET_EXCEEDED: one.messages > 0,
        }
        assert true[reason], reason

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def the_table_is_what_the_model_is(self) -> None:
        assert len(self.rechecker) == len(self.live)

    @invariant()
    def nothing_runs_that_a_known_world_forbids(self) -> None:
        assert not {one.subject for one in self.live.values()} & self.world.locked

    @invariant()
    def nothing_runs_under_an_obligation_it_never_took_on(self) -> None:
        for one in self.live.values():
            assert Duties.of(self.world.duties.get(one.subject, ())).fixed == one.fixed

    @invariant()
    def nothing_outlives_its_credential(self) -> None:
        """Expiry is exact: what is past it was cut when its time came."""
        self.rechecker.check_due()
        self._collect()
        for one in self.live.values():
            assert not one.expires_at_s or self.world.now_s < one.expires_at_s

    @invariant()
    def nothing_outlives_the_patience_with_an_old_world(self) -> None:
        """Past the bound a response is cut no later than the shortest interval between two looks."""
        if self.world.now_s > self.world.fresh_until_s + LIMITS.recheck_floor_s:
            assert self.live == {}

    def teardown(self) -> None:
        self.rechecker.cut_all(Reason.PDP_UNREACHABLE)
        assert len(self.rechecker) == 0
        assert not any(self.world.changed.values())  # nothing stays in the index


TestResponses: Any = Responses.TestCase
TestResponses.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
