"""How Redis is reached: an address, Sentinels or TLS, a password from a file, and a bound on every wait."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from pdp.errors import ConfigError
from pdp.limits import REDIS_TIMEOUT_S

_SENTINEL: Final = "redis+sentinel"
_SCHEMES: Final = ("redis", "rediss", _SENTINEL)
T = TypeVar("T")


def shown(url: str) -> str:
    """Return a URL as messages may show it: where it is, never who asks."""
    return f"Redis at {urlsplit(url).netloc.rpartition('@')[2]}"


def check_url(url: str) -> None:
    """Refuse a store URL that we do not understand, or that holds a password.

    Raises:
        ConfigError: with what to write instead.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.netloc.rpartition("@")[2]:
        raise ConfigError(
            f"store.url (--store): `{parts.scheme}` is no store",
            advice="write redis://USER@HOST:PORT, rediss://… or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE",
        )
    if ":" in parts.netloc.rpartition("@")[0]:
        raise ConfigError(
            "store.url (--store) holds a password", advice="put it in a file, and name that in password_file"
        )
    if parts.scheme == _SENTINEL and not parts.path.strip("/"):
        raise ConfigError("store.url (--store) names no service", advice="redis+sentinel://HOST:PORT,HOST:PORT/SERVICE")


async def cancellable(asked: Awaitable[T]) -> T:
    """Return what `asked` returns, unless the task was cancelled meanwhile, even if somebody below has swallowed that.

    The client sends each command inside `asyncio.wait_for`. In Python 3.11 that loses a cancellation which arrives in the turn
    of the loop in which the command has gone out (python/cpython#86296); a loop that is then never cancelled again goes on
    for ever, and whoever waits for its end with it.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await asked
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


def clients(url: str, *, password: Path | None, ca: Path | None) -> tuple[Callable[[int], Any], Sequence[Any]]:
    """Return what makes a client with so many connections, and the clients of the Sentinels that it asks."""
    check_url(url)
    parts = urlsplit(url)
    user, _, places = parts.netloc.rpartition("@")
    options: dict[str, Any] = {
        "username": unquote(user) or None,
        "password": _password(password),
        "socket_timeout": REDIS_TIMEOUT_S,
        "socket_connect_timeout": REDIS_TIMEOUT_S,
        "protocol": 2,
        # A write whose answer was lost is never sent again by the library: we look first.
        "retry": Retry(NoBackoff(), 0),
    }
    if parts.scheme == _SENTINEL:
        watchers = [(host, int(port)) for host, _, port in (place.rpartition(":") for place in places.split(","))]
        sentinel = Sentinel(watchers, sentinel_kwargs={"socket_timeout": REDIS_TIMEOUT_S}, **options)  # type: ignore[no-untyped-call]
        service = parts.path.strip("/")
        return lambda connections: sentinel.master_for(
            service, max_connections=1 if connections == 1 else 16
        ), sentinel.sentinels
    if ca is not None and parts.scheme == "rediss":
        options["ssl_ca_certs"] = str(ca)
    place = f"{parts.scheme}://{places}{parts.path}"

    def make(connections: int) -> Any:
        pool = BlockingConnectionPool.from_url(place, max_connections=connections, timeout=REDIS_TIMEOUT_S, **options)
        return Redis(connection_pool=pool)

    return make, ()


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"store.password_file: {file}: {error.strerror}", advice="let this user read it") from error
