import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters.keys_files import ROOT_FILE, ensure_key, key_path, load_root
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.decide import decide
from pdp.engine.pack import Pack, load_pack
from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.ports import WorldLog
from pdp.replica import Replica
from pdp.service.genesis import GENESIS_FILE, Genesis, initialise
from pdp.service.replicate import Publisher
from pdp.trust.entry import SignedEntry
from pdp.trust.keys import Role
from pdp.trust.verifier import TrustVerifier
from pdp.world import World, empty_world
from tests.support.logs import Authority, HandClock, MemoryLog, MemoryStore
from tests.support.worlds import PACK

ADA = "user:ada@demo.portcullis"
FILES = {str(path.relative_to(PACK)): path.read_bytes() for path in PACK.rglob("*") if path.is_file()}
SEEDS = b'model/fraud@7: {environment: prod, segment: "segment:registry", approvals: ["user:ana@example.com"]}\n'
CLOCK = HandClock()


@pytest.fixture(scope="module")
def pack() -> Pack:
    loaded = load_pack(FILES | {"assets.yaml": SEEDS})
    assert isinstance(loaded, Pack), loaded
    return loaded


def init(state_dir: Path, pack: Pack, log: WorldLog, **more: Any) -> Genesis:
    return asyncio.run(initialise(state_dir=state_dir, pack=pack, admin=ADA, log=log, clock=CLOCK, **more))


def world_of(state_dir: Path, log: WorldLog) -> World:
    root = load_root(state_dir)
    assert root is not None
    replica = Replica(verifier=TrustVerifier(root, "main"), world=empty_world("main"))
    asyncio.run(Publisher(log, replica, Authority().keys, CLOCK).catch_up())
    return replica.world


def may(world: World, who: str, action: str, resource: str) -> bool:
    question = Question(
        subject=Party(principal=Principal.parse(who)), action=Action.parse(action), resource=Resource.parse(resource)
    )
    return decide(world, question, CLOCK.now_ms()).allowed


def test_a_new_pdp_has_keys_a_root_file_the_pack_and_an_administrator(tmp_path: Path, pack: Pack) -> None:
    log = MemoryLog()
    made = init(tmp_path, pack, log)
    world = world_of(tmp_path, log)
    assert made.created
    assert made.world_seq == world.seq == 2
    assert made.root_key == key_path(tmp_path, Role.ROOT)
    assert made.root_digest == load_root(tmp_path).digest  # type: ignore[union-attr]
    assert set(world.assets) == {"model/fraud@7"}
    assert may(world, ADA, "policy.activate", "policy/main")
    assert not may(world, "user:eve@demo.portcullis", "policy.activate", "policy/main")
    assert any(row.file == GENESIS_FILE for row in world.snapshot.rows)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "seed",
    [
        b"model/a@1: {environment: prod, sensitivity: extreme}\n",
        b"model/a@1: {environment: prod, segment: serving}\n",
        b"policy/main: {environment: dev}\n",
    ],
)
def test_seeds_that_no_world_admits_leave_no_half_a_genesis(tmp_path: Path, seed: bytes) -> None:
    loaded = load_pack(FILES | {"assets.yaml": seed})
    assert isinstance(loaded, Pack), loaded
    log = MemoryLog()
    with pytest.raises(PortcullisError):
        init(tmp_path, loaded, log)
    assert log.entries == []


def test_running_it_again_changes_nothing(tmp_path: Path, pack: Pack) -> None:
    log = MemoryLog()
    first = init(tmp_path, pack, log)
    entries, root = list(log.entries), (tmp_path / ROOT_FILE).read_bytes()
    again = init(tmp_path, pack, log)
    assert not again.created
    assert (again.root_digest, again.world_seq) == (first.root_digest, first.world_seq)
    assert log.entries == entries
    assert (tmp_path / ROOT_FILE).read_bytes() == root


def test_another_pack_afterwards_is_only_a_source(tmp_path: Path, pack: Pack) -> None:
    log = MemoryLog()
    without = load_pack(FILES | {"more.csv": b"g, group:ops, role:operator, prod\n", "assets.yaml": b"{}\n"})
    assert isinstance(without, Pack)
    assert init(tmp_path, without, log).world_seq == 1
    assert init(tmp_path, pack, log).world_seq == 1


def test_the_root_key_may_have_left_the_machine(tmp_path: Path, pack: Pack) -> None:
    log = MemoryLog()
    init(tmp_path, pack, log)
    key_path(tmp_path, Role.ROOT).unlink()
    assert init(tmp_path, pack, log).root_key is None


class Killed(Exception):  # noqa: N818 - an end, not an error
    """Stands for a kill -9 at this point."""


Kill = Callable[[Path, MemoryLog], None]


def _after_first_key(state_dir: Path, _log: MemoryLog) -> None:
    ensure_key(state_dir, Role.ROOT)


def _after_all_keys(state_dir: Path, _log: MemoryLog) -> None:
    for role in Role:
        ensure_key(state_dir, role)


@pytest.mark.holds("F17")
@pytest.mark.parametrize("begun", [_after_first_key, _after_all_keys])
def test_an_init_killed_before_the_root_file_is_finished_by_the_next(tmp_path: Path, pack: Pack, begun: Kill) -> None:
    log = MemoryLog()
    begun(tmp_path, log)
    kept = {path: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    assert init(tmp_path, pack, log).created
    assert {path: path.read_bytes() for path in kept} == kept


class KilledAt(MemoryLog):
    """Dies before or after the append of one entry."""

    def __init__(self, seq: int, *, before: bool) -> None:
        super().__init__()
        self.plan: tuple[int, bool] | None = (seq, before)

    async def append(self, entry: SignedEntry, *, seq: int, prev: bytes) -> None:
        if self.plan == (seq, True):
            raise Killed
        await super().append(entry, seq=seq, prev=prev)
        if self.plan == (seq, False):
            raise Killed


@pytest.mark.holds("F17")
@pytest.mark.parametrize("seq", [1, 2])
@pytest.mark.parametrize("before", [True, False])
def test_an_init_killed_at_an_entry_is_finished_by_the_next(
    tmp_path: Path,
    pack: Pack,
    seq: int,
    before: bool,  # noqa: FBT001
) -> None:
    log = KilledAt(seq, before=before)
    with pytest.raises(Killed):
        init(tmp_path, pack, log)
    log.plan = None
    init(tmp_path, pack, log)
    whole = MemoryLog()
    init(tmp_path / "other", pack, whole)
    finished, reference = world_of(tmp_path, log), world_of(tmp_path / "other", whole)
    assert (finished.seq, finished.revision, finished.assets) == (reference.seq, reference.revision, reference.assets)


def test_a_lost_log_is_not_buried_under_a_second_genesis(tmp_path: Path, pack: Pack) -> None:
    store = MemoryStore()
    store.mark = 7
    with pytest.raises(ConfigError, match="restore"):
        init(tmp_path, pack, MemoryLog(), store=store)
    assert not (tmp_path / ROOT_FILE).exists()


def test_a_log_of_another_root_is_refused(tmp_path: Path, pack: Pack) -> None:
    log = MemoryLog()
    init(tmp_path / "one", pack, log)
    with pytest.raises(ConfigError, match="does not verify"):
        init(tmp_path / "two", pack, log)


def test_an_administrator_who_could_not_administer_is_refused_before_anything_is_written(
    tmp_path: Path, pack: Pack
) -> None:
    log = MemoryLog()
    with pytest.raises(ConfigError, match=r"policy\.activate"):
        init(tmp_path, pack, log, admin_role="role:viewer")
    assert log.entries == []


def test_a_name_that_is_no_principal_is_refused_before_anything_is_written(tmp_path: Path, pack: Pack) -> None:
    with pytest.raises(PortcullisError) as refusal:
        asyncio.run(initialise(state_dir=tmp_path, pack=pack, admin="role:policy-admin", log=MemoryLog(), clock=CLOCK))
    assert refusal.value.reason is Reason.BAD_NAME
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_the_root_file_does_not_name_is_refused(tmp_path: Path, pack: Pack) -> None:
    log = MemoryLog()
    init(tmp_path, pack, log)
    key_path(tmp_path, Role.PUBLISH).unlink()
    ensure_key(tmp_path, Role.PUBLISH)
    with pytest.raises(ConfigError, match="does not name"):
        init(tmp_path, pack, log)


def test_genesis_over_sqlite(tmp_path: Path, pack: Pack) -> None:
    async def once() -> Genesis:
        log = SqliteWorldLog(tmp_path / "world.db")
        try:
            return await initialise(state_dir=tmp_path, pack=pack, admin=ADA, log=log)
        finally:
            await log.close()

    assert asyncio.run(once()).created
    assert not asyncio.run(once()).created
