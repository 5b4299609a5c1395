"""Genesis: `pdp init` makes the keys, the root file and the first entries of a log; afterwards the log alone speaks.

Each step looks whether it has been done, and each file appears whole or not at all, so that an init killed anywhere is simply
run again: keys, then the root file that names them, then entry 1 (the pack and the first administrator's role), then entry 2
(the pack's assets). Nothing is ever made twice: a log that has been held before and is empty now is a lost log, not a new one.

In production the root key leaves this machine as soon as init is done: move `keys/root.pem` to a place that is offline and
backed up twice. The PDP never needs it; only a change of keys does. Until then whoever owns this machine owns the root of trust.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pdp.adapters.clock import SystemClock
from pdp.adapters.keys_files import ensure_key, key_path, load_pdp_keys, load_root, save_root
from pdp.change.facts import nothing_touched
from pdp.decide import decide
from pdp.engine.casbin_text import Row, parse_model, parse_rows
from pdp.engine.pack import Pack, rows_digest
from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.ports import Clock, ReplicaStore, WorldLog
from pdp.replica import Replica
from pdp.service.replicate import Publisher
from pdp.trust.entry import seal_next
from pdp.trust.keys import PdpKeys, Role, RootFile, sign_root
from pdp.trust.verifier import Refused, TrustVerifier
from pdp.world import World, empty_world, make_asset

GENESIS_FILE: Final = "genesis.csv"
"""The file under which the first administrator's rows stand; no pack needs to have it."""
ADMIN_ROLE: Final = "role:policy-admin"
SOLE_ROLE: Final = "role:sole-admin"
"""What the first administrator gets where no second person is named: with approvals demanded, nobody could change anything."""
APPROVER_ROLE: Final = "role:policy-approver"
ADMIN_ENVIRONMENT: Final = "prod"
AUTHOR: Final = "genesis"


@dataclass(frozen=True, slots=True, kw_only=True)
class Genesis:
    """What init found or made: False in `created` means that there was nothing left to do.

    `root_digest` is what replicas are configured with; `root_key` where the root key still lies, or None if it has been
    moved away. `sole` tells that one person now administers alone.
    """

    created: bool
    root_digest: str
    world_seq: int
    root_key: Path | None
    sole: bool


async def initialise(
    *,
    state_dir: Path,
    pack: Pack,
    admin: str,
    tenant: str = "main",
    log: WorldLog,
    store: ReplicaStore | None = None,
    clock: Clock | None = None,
    approvers: Sequence[str] = (),
    admin_role: str = "",
) -> Genesis:
    """Make keys, root file and first entries, as far as they are missing.

    Args:
        state_dir: where keys and root file are kept.
        pack: the policy to begin with, loaded and therefore compiled.
        admin: the first administrator, such as `user:ada@example.com`.
        tenant: whose log this is.
        log: the log, empty or half begun.
        store: what this PDP has held before; tells a lost log from a new one.
        clock: wall clock; the system's if not given.
        approvers: who may approve what the administrator proposes; without any, the administrator is the sole one.
        admin_role: the role of the pack that the administrator gets in `prod`; by default the one that fits.

    Raises:
        ConfigError: the keys or the root file are damaged, the log was lost, or the administrator could not administer.
        PortcullisError: the store failed, or the pack makes no valid world; nothing is half written.
    """
    time = clock or SystemClock()
    for name in (admin, *approvers):
        Principal.parse(name)
    admin_role = admin_role or (ADMIN_ROLE if approvers or not _names(pack, SOLE_ROLE) else SOLE_ROLE)
    payload = policy_payload(pack, admin=admin, role=admin_role, approvers=approvers)
    await _check_lost(log, store)
    keys, root = _keys_and_root(state_dir, tenant, time.now_ms())
    replica = Replica(verifier=TrustVerifier(root, tenant), world=empty_world(tenant))
    publisher = Publisher(log, replica, keys, time)
    await publisher.catch_up()
    if replica.world.seq != (await log.head()).seq:
        raise ConfigError(f"the log does not verify: {replica.last_error}", advice="restore it from a backup")
    if replica.world.seq == 0:
        world = _rehearsed(replica, keys, payload, time.now_ms())
        _check_administrator(world, admin, admin_role, time.now_ms())
        for seed in pack.assets:  # all that entry 2 will say, before entry 1 is written
            make_asset(world, seed.name, _plain(seed.attributes))
    created = await _first_entries(publisher, replica, pack, payload)
    kept = key_path(state_dir, Role.ROOT)
    return Genesis(
        created=created,
        root_digest=root.digest,
        world_seq=replica.world.seq,
        root_key=kept if kept.exists() else None,
        sole=admin_role == SOLE_ROLE,
    )


def _names(pack: Pack, role: str) -> bool:
    return any(role in row.fields for row in pack.rows)


async def _check_lost(log: WorldLog, store: ReplicaStore | None) -> None:
    """An empty log that this PDP has held entries of was lost: a second genesis would bury the first."""
    if store is None:
        return
    *_, mark = await store.load()
    if mark and not (await log.head()).seq:
        raise ConfigError(
            f"the log is empty, and this PDP has held entry {mark} of it",
            advice="restore the log from a backup; `init` does not replace it",
        )


def _keys_and_root(state_dir: Path, tenant: str, time_ms: int) -> tuple[PdpKeys, RootFile]:
    """Return the online keys and the root file that names them, made as far as they are missing."""
    root = load_root(state_dir)
    if root is None:
        made = {role: ensure_key(state_dir, role) for role in Role}
        root = sign_root(
            tenant=tenant,
            version=1,
            time_ms=time_ms,
            roles={role: (key.public,) for role, key in made.items()},
            signing=(made[Role.ROOT],),
        )
        save_root(state_dir, root)
    keys = load_pdp_keys(state_dir)
    for role, key in ((Role.PUBLISH, keys.publish), (Role.TIMESTAMP, keys.timestamp)):
        if key.key_id not in root.roles[role].keys:
            raise ConfigError(f"the root file does not name the key `{key_path(state_dir, role)}`")
    return keys, root


async def _first_entries(publisher: Publisher, replica: Replica, pack: Pack, payload: Mapping[str, Any]) -> bool:
    """Append what is missing of the first two entries; False if nothing was."""
    created = False
    if replica.world.seq == 0:
        await publisher.publish("policy", dict(payload), author=AUTHOR)
        created = True
    # Only a log that stands exactly where a killed init of this very pack left it: later, assets are an administrator's.
    policy = replica.world.snapshot
    same = policy is not None and policy.digest.hex() == payload["rows_digest"]
    if replica.world.seq == 1 and same and pack.assets:
        seeds = [{"name": seed.name, "attributes": _plain(seed.attributes)} for seed in pack.assets]
        await publisher.publish("assets", {"assets": seeds}, author=AUTHOR)
        created = True
    return created


def policy_payload(pack: Pack, *, admin: str, role: str, approvers: Sequence[str] = ()) -> dict[str, Any]:
    """Return the payload of entry 1: the whole pack, and the rows that make `admin` an administrator."""
    holders = ((admin, role), *((name, APPROVER_ROLE) for name in approvers))
    rows = (*pack.rows, *first_rows(pack.model_text, holders))
    return {
        "model": pack.model_text,
        "vocabulary": pack.vocabulary_text,
        "added": [row.to_json() for row in rows],
        "removed": [],
        "rows_digest": rows_digest(rows).hex(),
        "message": "genesis",
    }


def first_rows(model_text: str, holders: Iterable[tuple[str, str]]) -> tuple[Row, ...]:
    """Return the rows that give each of `holders` its role, read by the parser that reads every row.

    Raises:
        ConfigError: the pack's model has no such rows.
    """
    model, _ = parse_model(model_text, file="model.conf")
    text = "".join(f"g, {name}, {role}, {ADMIN_ENVIRONMENT}\n" for name, role in holders)
    rows, findings = parse_rows(text, file=GENESIS_FILE, model=model) if model is not None else ((), ())
    if not rows:
        raise ConfigError(
            f"the pack's model takes no row `{text.strip()}`: {'; '.join(map(str, findings))}",
            advice="name the administrator in the pack itself",
        )
    return rows


def _rehearsed(replica: Replica, keys: PdpKeys, payload: Mapping[str, Any], now_ms: int) -> World:
    """Return the world that entry 1 will make, before it is written."""
    entry = seal_next(
        tenant=replica.world.tenant,
        head=replica.head,
        kind="policy",
        payload=dict(payload),
        author=AUTHOR,
        time_ms=now_ms,
        keys=(keys.publish,),
    )
    prepared = replica.prepare(entry, now_ms=now_ms)
    if isinstance(prepared, Refused):
        raise PortcullisError(Reason.POLICY_REFUSED, f"the pack makes no valid world: {prepared.detail}")
    return prepared.world


def _check_administrator(world: World, admin: str, role: str, now_ms: int) -> None:
    """Ask the engine itself: a world whose administrator cannot administer could never be changed again."""
    question = Question(
        subject=Party(principal=Principal.parse(admin)),
        action=Action.parse("policy.activate"),
        resource=Resource.parse("policy/main"),
        attributes=nothing_touched(world.snapshot.vocabulary) if world.snapshot else {},
    )
    if not decide(world, question, now_ms).allowed:
        raise ConfigError(
            f"`{admin}` may not activate policies in this world",
            advice=f"does the pack grant policy.activate on policy/main in {ADMIN_ENVIRONMENT} to `{role}`?",
        )


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in attributes.items()}
