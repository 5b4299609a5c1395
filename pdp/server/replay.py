"""Where a PDP keeps which DPoP proofs were used: with whoever else answers under the same name."""

from typing import Final

from pdp.adapters.replay_sqlite import SqliteReplay
from pdp.config import Config
from pdp.ports import Clock, ReplayMemory
from pdp.service.replay import TwiceKnown

PROOFS_FILE: Final = "proofs.db"


def open_replay(config: Config, clock: Clock) -> ReplayMemory:
    """Return the memory of this host and, where PDPs share a store, of all of them. Nothing is connected before it is used.

    Raises:
        ConfigError: the store's URL or password file is wrong.
    """
    settings, own = config.store, SqliteReplay(config.state_dir / PROOFS_FILE, clock=clock)
    if not settings.url:
        return own
    # Here and not above: `redis` comes with an extra, and a PDP on SQLite does without. That it is there, `open_shared` saw.
    from pdp.adapters.replay_redis import RedisReplay  # noqa: PLC0415

    shared = RedisReplay(
        settings.url,
        tenant=config.tenant,
        password=settings.password_file,
        ca=settings.ca,
        min_replicas=settings.min_replicas,
    )
    return TwiceKnown(own=own, shared=shared)
