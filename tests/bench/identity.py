"""What it costs to know who asks: tokens new, remembered and bad, beside a bare `jwt.decode` of the same tokens."""

import asyncio
import itertools
import json
import random
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt

from pdp.adapters.keys_http import KeyStore
from pdp.identity.issuers import Issuer
from pdp.identity.keyset import KeySet
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.identity.verifier import verify
from pdp.service.authenticate import Authenticator
from pdp.signals.locks import LockSet
from tests.bench.report import Figure, per_call_us
from tests.support.tokens import (
    ALGS,
    ISS,
    NOW_MS,
    b64,
    entry,
    forge,
    good_claims,
    good_header,
    good_token,
    keys_of,
    signer,
    table,
)

BAD_TOKENS = 1_000_000
RANDOM_KIDS = 10_000
ROUNDS = 25
OPTIONS: Any = {
    "verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp", "iat", "iss", "aud", "sub"],
}  # fmt: skip
"""The bench's tokens are of a fixed day; all else that PyJWT can check is on."""


class _Clock:
    def now_ms(self) -> int:
        return NOW_MS

    def mono_s(self) -> float:
        return 1.0


class _Keys:
    def __init__(self, keys: KeySet) -> None:
        self.keys = keys

    async def key_set(self, issuer: Issuer, *, kid: str | None) -> KeySet | Refusal:
        del issuer, kid
        return self.keys


def measure() -> list[Figure]:
    """Measure everything once."""
    figures = [figure for alg in ALGS for figure in _new_token(alg)]
    figures.append(Figure(name="remembered token", value=_remembered_us(), unit="us"))
    huge = "Bearer " + "a" * 1_000_000
    refused_us = per_call_us(lambda: verify(huge, table=table_of, keys={}, now_ms=NOW_MS))
    figures.append(Figure(name="refusing 1 MB", value=refused_us, unit="us"))
    figures.append(Figure(name=f"key fetches by {RANDOM_KIDS:,} random kids", value=asyncio.run(_fetches()), unit=""))
    figures.append(Figure(name=f"memory grown by {BAD_TOKENS:,} bad tokens", value=_growth_mib(), unit="MiB"))
    return figures


table_of = table(entry())


def _new_token(alg: str) -> list[Figure]:
    compact, keys, public = good_token(alg), keys_of(signer(alg)), signer(alg).key.public_key()
    authorization = f"Bearer {compact}"

    def ours() -> None:
        if not isinstance(verify(authorization, table=table_of, keys={ISS: keys}, now_ms=NOW_MS), VerifiedIdentity):
            raise TypeError("the bench's token is good")

    def bare() -> None:
        jwt.decode(compact, public, algorithms=[alg], audience="portcullis", issuer=ISS, options=OPTIONS)  # type: ignore[arg-type]

    ours_us, bare_us, ratio = _beside(ours, bare)
    peer = f"jwt.decode {alg}"
    return [
        Figure(name=peer, value=bare_us, unit="us"),
        Figure(name=f"new token {alg}", value=ours_us, unit="us", versus=peer, ratio=ratio),
    ]


def _beside(ours: Callable[[], None], bare: Callable[[], None]) -> tuple[float, float, float]:
    """Return both times in microseconds and the median ratio of neighbours in time: the machine's moods hit both."""
    pairs = [(_once_us(ours), _once_us(bare)) for _ in range(ROUNDS)]
    mine, other = zip(*pairs, strict=True)
    return min(mine), min(other), statistics.median(one / two for one, two in pairs)


def _once_us(call: Callable[[], None], number: int = 200) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - start) / number * 1e6


def _remembered_us() -> float:
    """Return the processor time of one use: what others do on the machine meanwhile is not ours."""

    async def run() -> float:
        door = Authenticator(issuers=table_of, keys=_Keys(keys_of(signer())), clock=_Clock())
        authorization, number = f"Bearer {good_token()}", 20_000
        rounds = []
        for _ in range(5):
            start = time.process_time()
            for _ in range(number):
                await door.authenticate(authorization, None, locks=LockSet.EMPTY)
            rounds.append((time.process_time() - start) / number * 1e6)
        return min(rounds)

    return asyncio.run(run())


async def _fetches() -> float:
    """Count the requests at the issuer's server while tokens name keys that nobody has."""
    asked = itertools.count()
    body = json.dumps({"keys": [signer().public_jwk]}).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        next(asked)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
    trust = table(entry(keys={"url": url, "allow_private": ["127.0.0.1"]}))
    store = KeyStore(issuers=trust, directory=Path(), clock=_Clock())
    door = Authenticator(issuers=trust, keys=store, clock=_Clock())
    chance = random.Random(1)  # noqa: S311 - a bench repeats itself
    body_part = b64(json.dumps(good_claims()).encode())
    for _ in range(RANDOM_KIDS):
        header = b64(json.dumps(good_header(signer(), kid=f"k{chance.getrandbits(64)}")).encode())
        await door.authenticate(f"Bearer {header}.{body_part}.AAAA", None, locks=LockSet.EMPTY)
    await store.close()
    server.close()
    return float(next(asked))


def _growth_mib() -> float:
    """Return how much the process has grown after a million distinct bad tokens; a tenth is there to warm up."""

    async def run() -> float:
        door = Authenticator(issuers=table_of, keys=_Keys(keys_of(signer())), clock=_Clock())
        head, payload, _ = forge(good_header(signer()), good_claims(), signer()).split(".")
        before = 0.0
        for number in range(BAD_TOKENS + BAD_TOKENS // 10):
            if number == BAD_TOKENS // 10:
                before = _resident_mib()
            # One in a hundred goes the whole way to the signature; the others fail at every earlier step in turn.
            mark = b64(number.to_bytes(6))
            kinds = (f"{mark}.{payload}.{mark}", f"{head}.{mark}.AAAA", f"{head}.{payload}.{mark}+", mark * 3)
            text = f"{head}.{payload}.{mark * 8}" if number % 100 == 0 else kinds[number % 4]
            await door.authenticate(f"Bearer {text}", None, locks=LockSet.EMPTY)
        return _resident_mib() - before

    return asyncio.run(run())


def _resident_mib() -> float:
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
