"""What decides behind the middleware: a core of its own, set up in the server's own event loop from one YAML file.

The file is named by `PDP_SIDECAR_CONFIG`, because a server such as vLLM takes a middleware by its import path alone. One
process has one state directory, since its audit chain has one writer: of a server's several workers each takes one below the
one that was named.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from pdp.adapters.clock import SystemClock
from pdp.errors import ConfigError
from pdp.yaml_text import read_yaml
from sidecar.config import CoreConfig, PdpAccess, check_pdp, load_routes, parse_origin
from sidecar.gate import Gate
from sidecar.limits import LIMITS
from sidecar.mlflow.facts import Fields, Inventory
from sidecar.mlflow.mark import Mark
from sidecar.rechecks import Notes, Rechecker, Time

if TYPE_CHECKING:
    from sidecar.core import Core

VARIABLE = "PDP_SIDECAR_CONFIG"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What answers, follows and records; whether the application sees the credential; and, for MLflow, the inventory."""

    gate: Gate
    rechecker: Rechecker
    notes: Notes
    time: Time
    forward_credentials: bool = False
    inventory: Inventory | None = None


class _Pdp(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str
    root_digest: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token_file: Path | None = None
    plaintext: bool = False


class _Audit(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    durable: bool = True


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    pdp: _Pdp
    trust: Path
    routes: Path
    state_dir: Path
    tenant: str = "main"
    origin: str = ""
    point: str = ""
    forward_credentials: bool = False
    audit: _Audit = _Audit()


def load(path: Path) -> tuple[CoreConfig, bool]:
    """Return the settings in a file, and whether credentials are forwarded; its relative paths start at its own directory.

    Raises:
        ConfigError: The file, or what it names, cannot be used.
    """
    try:
        document = read_yaml(path.read_text("utf-8"), file=str(path))
        parsed = _File.model_validate(document.value)
    except OSError as fault:
        raise ConfigError(
            f"{VARIABLE}: cannot read `{path}`: {fault.strerror}", advice="name a readable file"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{VARIABLE}: `{path}` is not UTF-8") from None
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        message = f"{VARIABLE}: `{path}`: {where}: {first['msg'].lower()}"
        raise ConfigError(message, advice="docs/sidecar.md shows every key") from None
    home = path.absolute().parent
    access = parsed.pdp
    checked = check_pdp(
        PdpAccess(
            address=access.address,
            root_digest=access.root_digest.removeprefix("sha256:").lower(),
            ca=_below(home, access.ca),
            cert=_below(home, access.cert),
            key=_below(home, access.key),
            token_file=_below(home, access.token_file),
            plaintext=access.plaintext,
        )
    )
    config = CoreConfig(
        table=load_routes(home / parsed.routes, inside=True),
        pdp=checked,
        trust=home / parsed.trust,
        state_dir=home / parsed.state_dir,
        tenant=parsed.tenant,
        origin=parse_origin(parsed.origin),
        audit_durable=parsed.audit.durable,
        point=parsed.point,
    )
    return config, parsed.forward_credentials


def _below(home: Path, path: Path | None) -> Path | None:
    return None if path is None else home / path


class Doorkeeper:
    """Opens the door once, in the loop that serves, and closes it.

    Args:
        door: One that somebody else made and ends; None: made from the environment.
    """

    def __init__(self, door: Door | None) -> None:
        self._door = door
        self._opening: asyncio.Task[None] | None = None
        self._stop: Callable[[], Awaitable[None]] | None = None
        self._held = contextlib.ExitStack()

    async def door(self, patience_s: float) -> Door | None:
        """Return the door; None while there is none, however long that takes: everything is denied then."""
        if self._door is None:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._open(), name="portcullis door")
            await asyncio.wait({self._opening}, timeout=patience_s)
        return self._door

    async def close(self) -> None:
        """End what we made. Safe to call twice."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        await self._end_core()

    async def _end_core(self) -> None:
        stop, self._stop = self._stop, None
        if stop is not None:
            self._door = None
            await stop()
        self._held.close()

    async def _open(self) -> None:
        try:
            self._door = await self._make()
        except Exception:  # noqa: BLE001 - a boundary: whatever keeps the door shut, the server goes on and denies
            _LOG.exception("the gate stays closed: it could not be set up")
            await self._end_core()
            await asyncio.sleep(LIMITS.patience_s)  # the next request tries again, but not each one

    async def _make(self) -> Door:
        from sidecar.core import Core, follow_pdp  # noqa: PLC0415 - a door made by somebody else needs none of it

        name = os.environ.get(VARIABLE, "")
        if not name:
            raise ConfigError(f"{VARIABLE} is not set", advice="name the sidecar's YAML file in it")
        config, forward = await asyncio.to_thread(load, Path(name))
        place, lock = await asyncio.to_thread(claimed, config.state_dir)
        self._held.enter_context(lock)
        mark = Mark(config.state_dir / "learnt")
        config = replace(config, state_dir=place)
        clock = SystemClock()
        source, sink = follow_pdp(config.pdp, clock)
        core = Core(config, source=source, sink=sink, clock=clock)
        self._stop = core.stop
        await core.start()
        core.follow()
        return Door(
            gate=core.gate,
            rechecker=core.rechecker,
            notes=core.notes,
            time=clock,
            forward_credentials=forward,
            inventory=_inventory(config, core, mark),
        )


def claimed(state_dir: Path) -> tuple[Path, IO[bytes]]:
    """Return a state directory that no other worker of this server has, and what holds it until it is closed.

    The first worker takes the directory itself. Which one a worker takes may differ after a restart: a chain of audit records
    goes on whoever writes it.

    Raises:
        ConfigError: There are more workers than can be.
    """
    from sidecar.core import private_directory  # noqa: PLC0415 - a door made by somebody else needs none of it

    for number in range(LIMITS.workers):
        place = state_dir / f"worker-{number}" if number else state_dir
        private_directory(place)
        lock = (place / "worker.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return place, lock
    raise ConfigError(f"state_dir: more than {LIMITS.workers} workers share it", advice="run fewer workers")


def _inventory(config: CoreConfig, core: "Core", mark: Mark) -> Inventory | None:
    """Return how an MLflow server's facts are read and written; None: it is no MLflow server."""
    registry, access = config.table.registry, config.pdp
    if registry is None:
        return None
    from pdp.sdk.admin import AdminClient  # noqa: PLC0415 - only where something is registered

    admin: list[AdminClient] = []

    def register(assets: Mapping[str, Fields]) -> int:
        if not admin:
            admin.append(
                AdminClient(access.address, token=access.token_file, ca=access.ca, cert=access.cert, key=access.key)
            )
        return admin[0].register_all(assets)

    async def write(assets: Mapping[str, Fields]) -> int:
        return await asyncio.to_thread(register, assets)

    return Inventory(
        registry=registry,
        server=config.table.server,
        world=lambda: core.world,
        reach=core.notes.reach,
        write=write,
        mark=mark,
    )
