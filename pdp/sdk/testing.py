"""A pack as a world for tests: your own code decided by your own policy, in the process, without a server.

    def test_bob_may_not_read_wages(pdp_world):                     # the fixture of the pytest plug-in
        world = pdp_world("policies", assets={"dataset/wages": {"environment": "prod"}})
        bob = world.client("user:bob@example.com", workload="workload:spiffe://example/ns/ml/sa/notebook")
        with pytest.raises(AccessDenied):
            load_wages(client=bob)

`PackWorld` decides by the same engine as a PDP. It trusts whoever a test says it is, needs no right to ask, and writes no
record: what was asked stands in `asked`. It is for tests alone.
"""

import itertools
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Unpack

from pdp import ask
from pdp.adapters.pack_files import read_pack
from pdp.decide import decide, explain
from pdp.engine.casbin_text import Row, parse_rows
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.findings import Finding
from pdp.engine.pack import Pack, load_pack
from pdp.errors import BadNameError, BadRequestError, ConfigError, Reason
from pdp.model.listed import Listed
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party
from pdp.model.request import Question as Engine
from pdp.sdk._core import plain_value, request_attributes, same_access
from pdp.sdk._local_questions import refused, told
from pdp.sdk.errors import AccessDenied, BadQuestion, PolicyRefused
from pdp.sdk.lease import Lease
from pdp.sdk.values import Asserted, Bearer, Circumstances, Decision, Listing, Question
from pdp.service.policy_tests import pack_world
from pdp.signals.locks import Lock, LockTarget
from pdp.world import World, make_asset

_SHOWN: Final = "test-token-"
_FILE: Final = "(test)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question that the code under test asked, and its answer."""

    question: Question
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class _Who:
    party: Party
    workload: Principal | None


class PackWorld:
    """A world made of a pack. Safe for threads.

    Args:
        pack: the directory of a policy pack.
        rows: further rows, as CSV text: who holds which role, in this test.
        assets: further assets, by name, with their attributes.
        now: time stands still here; None: the time of the machine.

    Raises:
        ConfigError: there is no pack.
        PolicyRefused: pack or rows have errors; `findings` holds every one.
    """

    def __init__(
        self,
        pack: str | Path,
        *,
        rows: str = "",
        assets: Mapping[str, Mapping[str, Any]] | None = None,
        now: datetime | None = None,
    ) -> None:
        loaded = _loaded(tuple(sorted(read_pack(Path(pack)).items())))
        if not isinstance(loaded, Pack):
            raise PolicyRefused(Reason.POLICY_REFUSED, f"{pack} has errors", findings=[str(one) for one in loaded])
        self._changed = threading.Condition()
        self._world = pack_world(loaded, loaded.snapshot)
        self._now_ms = int(now.timestamp() * 1000) if now else None
        self._tokens: dict[str, _Who] = {}
        self._ids = itertools.count(1)
        self.asked: list[Asked] = []
        if rows:
            self.grant(rows)
        for name, attributes in (assets or {}).items():
            self.register(name, **attributes)

    def client(self, subject: str, *, groups: Collection[str] = (), workload: str = "") -> "PackClient":
        """Return a client that asks as `subject`; without a `workload` it is in `segment:none`."""
        return PackClient(self, _who(subject, groups, workload))

    def token(self, subject: str, *, groups: Collection[str] = (), workload: str = "") -> str:
        """Return a token that this world takes for `subject`, for code that is given one by its callers."""
        who = _who(subject, groups, workload)
        token = f"{_SHOWN}{next(self._ids)}"
        self._tokens[token] = who
        return token

    # Changes.

    def grant(self, rows: str) -> None:
        """Add rows, as CSV text.

        Raises:
            PolicyRefused: they have errors.
        """
        policy = self._world.policy
        if policy is None:
            raise ConfigError("the world has no policy")
        old = policy.snapshot
        parsed, findings = parse_rows(rows, file=_FILE, model=old.model)
        compiled: Snapshot | Any = findings or compile_policy(old.model, old.vocabulary, [*old.rows, *parsed])
        if not isinstance(compiled, Snapshot):
            texts = [str(one) for one in compiled]
            raise PolicyRefused(Reason.POLICY_REFUSED, f"the rows have errors: {texts[0]}", findings=texts)
        self._change(policy=replace(policy, snapshot=compiled))

    def revoke(self, rows: str) -> None:
        """Take rows away, wherever in the pack they stand."""
        policy = self._world.policy
        if policy is None:
            raise ConfigError("the world has no policy")
        old = policy.snapshot
        parsed, _ = parse_rows(rows, file=_FILE, model=old.model)
        gone = {_content(row) for row in parsed}
        kept = [row for row in old.rows if _content(row) not in gone]
        compiled = compile_policy(old.model, old.vocabulary, kept)
        if not isinstance(compiled, Snapshot):
            raise PolicyRefused(Reason.POLICY_REFUSED, "what is left does not compile")
        self._change(policy=replace(policy, snapshot=compiled))

    def register(self, name: str, **attributes: Any) -> None:
        """Register an asset, or change it."""
        asset = make_asset(self._world, name, attributes)
        self._change(assets={**self._world.assets, str(asset.resource): asset})

    def lock(self, target: str, *, reason: str = "test") -> str:
        """Lock a principal, a workload or `resource:…`; return the lock's id. Running leases end by it."""
        lock = Lock(id=f"lock-{next(self._ids)}", target=LockTarget.parse(target), reason=reason, source="user:test")
        self._change(locks=self._world.locks.added(lock))
        return lock.id

    def unlock(self, lock_id: str) -> None:
        """Remove a lock."""
        self._change(locks=self._world.locks.removed(lock_id))

    def _change(self, **changes: Any) -> None:
        with self._changed:
            self._world = replace(self._world, seq=self._world.seq + 1, **changes)
            self._changed.notify_all()

    # For its clients.

    @property
    def world(self) -> World:
        """The world as it is now."""
        return self._world

    @property
    def now_ms(self) -> int:
        """The time of decisions, in milliseconds since the epoch."""
        return self._now_ms if self._now_ms is not None else time.time_ns() // 1_000_000

    def presented(self, token: str) -> _Who | None:
        """Return who showed `token`."""
        return self._tokens.get(token)

    def answered(self, question: Question, decision: Decision) -> Decision:
        """Note a question and its answer, which gets its id here."""
        numbered = replace(decision, decision_id=f"test-{next(self._ids)}")
        self.asked.append(Asked(question=question, decision=numbered))
        return numbered

    def wait(self, seen: int) -> None:
        """Return when the world is another than `seen`, or when woken."""
        with self._changed:
            if self._world.seq == seen:
                self._changed.wait()

    def wake(self) -> None:
        """Wake those who wait."""
        with self._changed:
            self._changed.notify_all()


class PackClient:
    """Asks a `PackWorld` as one subject; the methods of `Client`."""

    one_identity = True

    def __init__(self, world: PackWorld, who: _Who) -> None:
        self._world = world
        self._who = who

    @property
    def world_seq(self) -> int:
        """The number of the world."""
        return self._world.world.seq

    def check(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision, as `Client.check`."""
        question = Question(action=action, resource=resource, **circumstances)
        return self._world.answered(question, self._decide(question))

    def require(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision if it is an allow, as `Client.require`."""
        decision = self.check(action, resource, **circumstances)
        if not decision.allowed:
            raise AccessDenied(decision, action=action, resource=resource)
        return decision

    def check_many(self, questions: Sequence[Question | tuple[str, str]]) -> tuple[Decision, ...]:
        """Return the decisions in order, as `Client.check_many`."""
        return tuple(self._world.answered(asked, self._decide(asked)) for asked in map(Question.of, questions))

    def explain(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision with the nearest miss, as `Client.explain`."""
        question = Question(action=action, resource=resource, **circumstances)
        return self._world.answered(question, self._decide(question, nearest=True))

    def watch(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Iterator[Decision]:
        """Yield the decision and every change of it, as `Client.watch`."""
        return iter(_PackWatch(self, self._world, Question(action=action, resource=resource, **circumstances)))

    def lease(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Lease:
        """Return a lease to enter by `with`, as `Client.lease`."""
        watched = _PackWatch(self, self._world, Question(action=action, resource=resource, **circumstances))
        return Lease(watched, action=action, resource=resource, check_usable=lambda: None)

    def who_can(self, action: str, resource: str) -> Listing:
        """Return everyone who can, as `Client.who_can`."""
        world = self._world.world
        return _listing(world, ask.who_can(world, Action.parse(action), Resource.parse(resource), self._world.now_ms))

    def what_can(self) -> Listing:
        """Return all that we can do, as `Client.what_can`."""
        world, terms = self._world.world, ask.Terms(anywhere=False, workload=self._who.workload)
        return _listing(world, ask.what_can(world, self._who.party, self._world.now_ms, terms))

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _decide(self, question: Question, *, nearest: bool = False) -> Decision:
        world = self._world.world
        try:
            who = self._meant(question.subject)
            if who is None:
                return refused(Reason.SIGNATURE_INVALID, world.seq, "")
            engine = self._engine(question, who)
        except (BadNameError, BadRequestError) as error:
            raise BadQuestion(error.reason, error.message) from error
        decision = (explain if nearest else decide)(world, engine, self._world.now_ms)
        return told(decision, "")

    def _meant(self, subject: str | Asserted | Bearer | Any) -> _Who | None:
        if subject is None:
            return self._who
        if isinstance(subject, str):
            return _who(subject, (), "")
        if isinstance(subject, Asserted):
            return _who(subject.principal, subject.groups, "")
        return self._world.presented(subject.token.removeprefix("Bearer "))

    def _engine(self, question: Question, who: _Who) -> Engine:
        attributes = request_attributes(question.attributes)
        return Engine(
            subject=who.party,
            action=Action.parse(question.action),
            resource=Resource.parse(question.resource),
            workload=Principal.parse(question.workload) if question.workload else who.workload,
            serves=Resource.parse(question.serves) if question.serves else None,
            attributes={name: plain_value(message) for name, message in attributes.items()},
            supports=None if question.supports is None else frozenset(question.supports),
        )


class _PackWatch:
    """Follows one question in a `PackWorld`."""

    def __init__(self, client: PackClient, world: PackWorld, question: Question) -> None:
        self._client = client
        self._world = world
        self._question = question
        self._stopped = False

    def __iter__(self) -> Iterator[Decision]:
        last: Decision | None = None
        while not self._stopped:
            seen = self._client.world_seq
            decision = self._client._decide(self._question)  # noqa: SLF001 - its other half
            if last is None or not same_access(decision, last):
                last = self._world.answered(self._question, decision)
                yield last
            if not self._stopped:
                self._world.wait(seen)

    def stop(self) -> None:
        """End the iteration."""
        self._stopped = True
        self._world.wake()


@lru_cache(maxsize=8)
def _loaded(files: tuple[tuple[str, bytes], ...]) -> Pack | tuple[Finding, ...]:
    """Return the pack of these files; a suite makes a world for each of its tests, of the same pack."""
    return load_pack(dict(files))


def _who(subject: str, groups: Collection[str], workload: str) -> _Who:
    party = Party(principal=Principal.parse(subject), groups=frozenset(groups))
    return _Who(party=party, workload=Principal.parse(workload) if workload else None)


def _content(row: Row) -> tuple[str, tuple[str, ...]]:
    return row.section, tuple(row.fields)


def _listing(world: World, entries: Iterator[Listed | None]) -> Listing:
    return Listing(entries=tuple(entry for entry in entries if entry is not None), world_seq=world.seq)
