"""What the policy must know of a registry: which versions there are, which aliases name them, and where their bytes lie.

Bytes travel as `<experiment>/models/m-<id>/artifacts/...`, an address that never says "fraud, version 1": who may not download
that version must not fetch it by its address. So a version's places and aliases are facts of its asset (`resource.artifacts`,
`resource.aliases`), kept in the log, from where every worker and every sidecar has them. They are learnt from each answer of
the server that changes them, and compared with the whole registry before the first bytes go out.

What could not be written down is kept here and tried again: it is believed at once where it forbids, and grants nothing before
the log holds it.

Source: ENFORCEMENT.md 3.3 (artifact index); FAILURE.md P2.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pdp.errors import PortcullisError, Reason
from pdp.world import World
from sidecar.exchange import NotPassableError
from sidecar.limits import LIMITS
from sidecar.mlflow import places
from sidecar.mlflow.mark import Mark
from sidecar.mlflow.places import Place, Version
from sidecar.routes import Registry

_LOG: Final = logging.getLogger(__name__)
_INHERITED: Final = ("environment", "segment", "sensitivity")
_PREFIX: Final = "resource."
NEW: Final = ""
"""What has no elder to take after: the name of no asset."""

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The PDP's inventory, as the plug-in reads and writes it.

    Attributes:
        registry: How the server's objects are called in it.
        server: The server itself.
        world: The world held now.
        reach: Waits until a world is held.
        write: Registers assets with all their attributes; returns the world that has them, or raises `PortcullisError`.
        mark: Which world the workers of this server have brought about; None: there is one worker.
    """

    registry: Registry
    server: str
    world: Callable[[], World]
    reach: Callable[[int, float], Awaitable[bool]]
    write: Callable[[Mapping[str, Fields]], Awaitable[int]]
    mark: Mark | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One asset, as it is to be from now on.

    Attributes:
        name: The asset.
        set: Attributes that change.
        like: It is made anew, and takes its environment and segment after this asset, or from the settings if there is none
            (`NEW`); nothing of what stood under its name before remains: approvals were given to other bytes. None: it only
            changes.
        kept: It is made anew only if there is none yet.
    """

    name: str
    set: Fields = field(default_factory=dict)
    like: str | None = None
    kept: bool = False


class Asks(Protocol):
    """The part of `Upstream` that is used."""

    async def ask(self, path: str, query: Fields) -> Fields:
        """Return what the server says."""
        ...


class Facts:
    """What is known, and how it comes to be known."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._seen: dict[str, frozenset[str]] = {}
        self._of: Mapping[str, Any] | None = None
        self._index: dict[str, set[tuple[str, str]]] = {}
        self._gathered = False
        self._one_gathers = asyncio.Lock()
        self._pending: dict[str, Change] = {}
        self._trying: asyncio.Task[None] | None = None

    # -- where bytes lie ---------------------------------------------------------------------------------------------

    def versions_at(self, key: str) -> tuple[str, ...]:
        """Return the versions whose bytes a place holds a part of, or is a part of."""
        self._refresh()
        near = self._index.get(key.partition("/")[0], ())
        return tuple(sorted({resource for held, resource in near if places.overlap(held, key)}))

    def covers(self, key: str) -> bool:
        """Tell whether a place lies inside some version's."""
        near = self._index.get(key.partition("/")[0], ())
        return any(key == held or key.startswith(f"{held}/") for held, _ in near)

    def keys_of(self, version: Fields) -> frozenset[str]:
        """Return where the bytes of a version lie, as the registry describes it."""
        found = set()
        source = places.source(str(version.get("source", "")))
        if isinstance(source, Place):
            found.add(source.key)
        elif isinstance(source, Version):
            self._refresh()
            found |= {held for near in self._index.values() for held, of in near if of == source.resource}
        if version.get("model_id"):
            found.add(str(version["model_id"]))
        return frozenset(found)

    def _refresh(self) -> None:
        assets = self._inventory.world().assets
        if assets is self._of:
            return
        index: dict[str, set[tuple[str, str]]] = {}
        for name, keys in self._seen.items():
            _enter(index, name, keys)
        for name, asset in assets.items():
            if name.startswith("model/"):
                _enter(index, name, _texts(asset.attributes.get(f"{_PREFIX}artifacts")))
        self._index, self._of = index, assets

    # -- the registry as a whole -------------------------------------------------------------------------------------

    async def gathered(self, upstream: Asks) -> None:
        """Return once the whole registry has been compared with the inventory.

        Raises:
            NotPassableError: It cannot be read: nobody can say whose the bytes are.
        """
        async with self._one_gathers:
            if self._gathered:
                return
            changes = [change async for change in self._compared(upstream)]
            await self.learn(changes)
            self._gathered = True

    async def _compared(self, upstream: Asks) -> Any:
        aliases: dict[str, list[str]] = {}
        async for model in pages(upstream, "registered-models/search", "registered_models"):
            for one in model.get("aliases", ()):
                aliases.setdefault(f"model/{model['name']}@{one['version']}", []).append(str(one["alias"]))
        async for version in pages(upstream, "model-versions/search", "model_versions"):
            name = f"model/{version['name']}@{version['version']}"
            keys = self.keys_of(version)
            self._remember(name, keys)
            yield Change(name=name, set={"artifacts": sorted(keys), "aliases": sorted(aliases.get(name, ()))})

    def _remember(self, name: str, keys: frozenset[str]) -> None:
        self._seen[name] = keys
        self._of = None

    # -- what is learnt ----------------------------------------------------------------------------------------------

    def created(self, version: Fields) -> Change:
        """Note a version that was made."""
        name = f"model/{version['name']}@{version['version']}"
        keys = self.keys_of(version)
        self._remember(name, keys)
        return Change(name=name, set={"artifacts": sorted(keys)}, like=f"model/{version['name']}")

    def named(self, name: str, alias: str, version: str) -> tuple[Change, ...]:
        """Return what changes as an alias names another version; an empty one: no version."""
        new = f"model/{name}@{version}" if version else ""
        changes = []
        for asset, attributes in self._inventory.world().assets.items():
            held = _texts(attributes.attributes.get(f"{_PREFIX}aliases"))
            if asset.startswith(f"model/{name}@") and alias in held and asset != new:
                changes.append(Change(name=asset, set={"aliases": sorted(held - {alias})}))
        if new:
            held = _texts(self.current(new).get("aliases"))
            changes.append(Change(name=new, set={"aliases": sorted(held | {alias})}))
        return tuple(changes)

    def forget(self, names: Iterable[str]) -> tuple[Change, ...]:
        """Return what remains of versions that are about to be deleted: a place in the inventory, and no approval."""
        return tuple(Change(name=name, set={"stage": "deleted"}, like=name) for name in names if self.current(name))

    def deleted(self, names: Iterable[str]) -> None:
        """Note that versions are gone."""
        for name in names:
            self._seen.pop(name, None)
        self._of = None

    def current(self, name: str) -> dict[str, Any]:
        """Return an asset's attributes, as people write them; empty: it is not registered."""
        asset = self._inventory.world().assets.get(name)
        if asset is None:
            return {}
        plain = ((key.removeprefix(_PREFIX), value) for key, value in asset.attributes.items())
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain}

    async def learn(self, changes: Iterable[Change]) -> None:
        """Write changes down; what cannot be written now is tried again until it can."""
        wanted = list(changes)
        try:
            await self.must(wanted)
        except NotPassableError:
            self._pending |= {change.name: change for change in wanted}
            if self._trying is None or self._trying.done():
                self._trying = asyncio.create_task(self._try_again(), name="facts for the PDP")

    async def must(self, changes: Iterable[Change]) -> None:
        """Write changes down before anything else happens.

        Raises:
            NotPassableError: The PDP does not take them.
        """
        written = {name: fields for change in changes for name, fields in self._written(change).items()}
        if not written:
            return
        try:
            async with asyncio.timeout(LIMITS.facts_s):
                seq = await self._inventory.write(written)
                if self._inventory.mark is not None:
                    self._inventory.mark.lift(seq)
                await self._inventory.reach(seq, LIMITS.facts_s)
        except (PortcullisError, TimeoutError) as fault:
            _LOG.warning("the PDP did not take in what is new of %s: %s", ", ".join(sorted(written)), fault)
            raise NotPassableError(Reason.PDP_UNREACHABLE) from None

    async def caught_up(self) -> None:
        """Return once everything is held that a worker of this server has brought about.

        Raises:
            NotPassableError: It does not arrive.
        """
        seq = self._inventory.mark.read() if self._inventory.mark is not None else 0
        if seq > self._inventory.world().seq:
            try:
                await self._inventory.reach(seq, LIMITS.facts_s)
            except PortcullisError as fault:
                raise NotPassableError(fault.reason) from None

    async def stop(self) -> None:
        """End what is still tried."""
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.wait({self._trying})

    async def _try_again(self) -> None:
        while self._pending:
            await asyncio.sleep(LIMITS.patience_s)
            wanted, self._pending = self._pending, {}
            try:
                await self.must(wanted.values())
            except NotPassableError:
                self._pending = wanted | self._pending

    def _written(self, change: Change) -> dict[str, Fields]:
        current = self.current(change.name)
        after = {**self._base(change, current), **change.set}
        known = self._inventory.world().snapshot
        if known is not None:
            after = {key: value for key, value in after.items() if f"{_PREFIX}{key}" in known.vocabulary.attributes}
        return {change.name: after} if after.get("environment") and after != current else {}

    def _base(self, change: Change, current: Fields) -> Fields:
        if change.like is None or (change.kept and current):
            return current
        pattern = self.current(change.like)
        return {key: pattern[key] for key in _INHERITED if key in pattern} or dict(self._inventory.registry.new)


async def pages(upstream: Asks, path: str, items: str) -> Any:
    """Yield every object of one of the server's lists."""
    token = ""
    while True:
        query = {"max_results": LIMITS.list_page} | ({"page_token": token} if token else {})
        told = await upstream.ask(path, query)
        for item in told.get(items, ()):
            yield item
        token = told.get("next_page_token", "")
        if not token:
            return


def _enter(index: dict[str, set[tuple[str, str]]], name: str, keys: Iterable[str]) -> None:
    for key in keys:
        index.setdefault(key.partition("/")[0], set()).add((key, name))


def _texts(value: object) -> frozenset[str]:
    return frozenset(str(one) for one in value) if isinstance(value, tuple | list) else frozenset()
