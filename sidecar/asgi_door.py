"""What decides behind the middleware: a core of its own, set up in the server's own event loop from one YAML file.

The file is named by `PDP_SIDECAR_CONFIG`, because a server such as vLLM takes a middleware by its import path alone. One
process has one state directory: its audit chain has one writer.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pdp.adapters.clock import SystemClock
from pdp.errors import ConfigError
from pdp.yaml_text import read_yaml
from sidecar.config import CoreConfig, PdpAccess, check_pdp, load_routes, parse_origin
from sidecar.gate import Gate
from sidecar.limits import LIMITS
from sidecar.rechecks import Notes, Rechecker, Time

VARIABLE = "PDP_SIDECAR_CONFIG"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What answers, follows and records; and whether the application sees the credential."""

    gate: Gate
    rechecker: Rechecker
    notes: Notes
    time: Time
    forward_credentials: bool = False


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
        table=load_routes(home / parsed.routes),
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
        clock = SystemClock()
        source, sink = follow_pdp(config.pdp, clock)
        core = Core(config, source=source, sink=sink, clock=clock)
        self._stop = core.stop
        await core.start()
        core.follow()
        return Door(gate=core.gate, rechecker=core.rechecker, notes=core.notes, time=clock, forward_credentials=forward)
