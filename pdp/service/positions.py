"""Positions of enforcement points across PDPs: any of them can answer for all (receipts, `pdp replicas`).

Each process posts what its own followers have acknowledged, signed with its timestamp key, to the board of the store, and
reads the others'. A posting that is put back old says less, never more: whoever tampers with the board can make a receipt
wait, not lie.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from pdp.errors import BadRequestError, PortcullisError
from pdp.limits import BOARD_PAUSE_S, HEARTBEAT_INTERVAL_S, MAX_BOARD_BYTES
from pdp.model import canonical
from pdp.ports import Board
from pdp.replica import Replica
from pdp.service.subscribers import Posted, Subscribers
from pdp.trust.entry import Signature
from pdp.trust.keys import Role, SigningKey, signers

_DOMAIN: Final = b"portcullis/positions/1\x00"


class Positions:
    """Posts and reads.

    Args:
        board: where the PDPs show each other.
        replica: whose root file says which keys may sign.
        key: this PDP's timestamp key.
        name: of this process; kept over restarts, so that the board does not grow.
    """

    def __init__(self, *, board: Board, replica: Replica, key: SigningKey, name: str) -> None:
        self._board = board
        self._replica = replica
        self._key = key
        self._name = name
        self._posted = b""

    def trust(self, key: SigningKey) -> None:
        """Sign with this key from now on."""
        self._key = key

    async def run(self, subscribers: Subscribers) -> None:
        """Post what moves and read what others post, for ever; a store that does not answer is asked again."""
        while True:
            moved = subscribers.moved
            with suppress(PortcullisError):  # heartbeats already tell of a store that is down
                await self.exchange(subscribers)
            await asyncio.sleep(BOARD_PAUSE_S)
            if not subscribers.waiting:
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_INTERVAL_S):
                        await moved.wait()

    async def exchange(self, subscribers: Subscribers) -> None:
        """Post our followers, if they have moved, and take in the others'."""
        own = self._sealed(subscribers.posting())
        if own != self._posted:
            await self._board.post(self._name, own)
            self._posted = own
        others: list[Posted] = []
        for name, raw in (await self._board.posted()).items():
            if name != self._name:
                others.extend(self._opened(name, raw))
        subscribers.take(others)

    def _sealed(self, items: tuple[Posted, ...]) -> bytes:
        tenant = self._replica.world.tenant
        body = canonical.dumps({"tenant": tenant, "name": self._name, "items": [item.to_json() for item in items]})
        signed = self._key.sign(_DOMAIN + body)
        return canonical.dumps(
            {"body": body.decode("ascii"), "key": signed.key_id, "signature": signed.signature.hex()}
        )

    def _opened(self, name: str, raw: bytes) -> tuple[Posted, ...]:
        """Return what a posting says, if a timestamp key of our root file signed it under this name."""
        if len(raw) > MAX_BOARD_BYTES:
            return ()
        try:
            value: Mapping[str, Any] = canonical.loads(raw)
            body = value["body"].encode("ascii")
            signature = Signature(key_id=value["key"], signature=bytes.fromhex(value["signature"]))
            if not signers(self._replica.verifier.root, Role.TIMESTAMP, _DOMAIN + body, (signature,)):
                return ()
            told = canonical.loads(body)
            if (told["tenant"], told["name"]) != (self._replica.world.tenant, name):
                return ()
            return tuple(Posted.from_json(item) for item in told["items"])
        except (BadRequestError, KeyError, TypeError, ValueError, AttributeError):
            return ()
