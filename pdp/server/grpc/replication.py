"""`ReplicationService`: the log on its way to replicas, and who they are.

The door is thin. Who may follow is decided by the same engine as everything else (`replica.subscribe` on `replica/all`),
through the `authorise` that the server passes in; the guard before every RPC ends the stream when the credential ends or a
new world takes the right away. What is sent, and what acknowledgements mean, is `service/subscribers.py`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol

from pdp.adapters.follow_grpc import item_messages, read_hello
from pdp.errors import BadRequestError
from pdp.model.request import Party
from pdp.replica import Replica
from pdp.service.subscribers import Subscribers, Subscription
from pdp.trust.feed import Ack, Hello
from pdp.v1 import replication_pb2
from pdp.v1.replication_pb2_grpc import ReplicationServiceServicer

SUBSCRIBE: Final = "replica.subscribe"
READ: Final = "replica.read"
RESOURCE: Final = "replica/all"


class Identified(Protocol):
    """What this door needs to know of a verified caller."""

    @property
    def party(self) -> Party:
        """Who it is."""
        ...


Authorise = Callable[[Any, str, str], Awaitable[Identified]]
"""`await authorise(context, action, resource)` returns the verified caller, or raises a `PortcullisError` for the guard."""
Renew = Callable[[str], Awaitable[None]]
"""`await renew(authorization)` lets the open stream go on with a fresh credential, or raises a `PortcullisError`."""


async def _not_renewed(_authorization: str) -> None:
    raise BadRequestError("this door takes no fresh credential: subscribe again")


class ReplicationServicer(ReplicationServiceServicer):
    """Serves `ReplicationService` over the registry of subscribers."""

    def __init__(
        self, *, subscribers: Subscribers, replica: Replica, authorise: Authorise, renew: Renew = _not_renewed
    ) -> None:
        self._subscribers = subscribers
        self._replica = replica
        self._authorise = authorise
        self._renew = renew

    async def Subscribe(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[replication_pb2.SubscribeRequest], context: Any
    ) -> AsyncIterator[replication_pb2.SubscribeResponse]:
        """Feed one replica until it says goodbye, is too slow, or may follow no longer."""
        caller = await self._authorise(context, SUBSCRIBE, RESOURCE)
        hello = await _hello(request_iterator)
        subscription = self._subscribers.open(hello, str(caller.party.principal))
        reader = asyncio.create_task(self._acknowledgements(request_iterator, subscription))
        try:
            async with contextlib.aclosing(self._subscribers.items(subscription)) as items:
                async for item in items:
                    for message in item_messages(item, chunked=hello.chunked):
                        yield message
            if reader.done():
                await reader  # a malformed acknowledgement or a bad credential is the call's error
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            self._subscribers.close(subscription, clean=False)

    async def ListReplicas(  # noqa: N802
        self, _request: replication_pb2.ListReplicasRequest, context: Any
    ) -> replication_pb2.ListReplicasResponse:
        """Say who follows, where each stands, and how stale it is."""
        await self._authorise(context, READ, RESOURCE)
        replicas = [
            replication_pb2.ReplicaStatus(
                identity=item.identity,
                role=item.role,
                version=item.version,
                seq=item.seq,
                staleness_s=item.staleness_s,
                connected=item.connected,
            )
            for item in self._subscribers.list()
        ]
        return replication_pb2.ListReplicasResponse(head_seq=self._replica.world.seq, replicas=replicas)

    async def _acknowledgements(
        self, requests: AsyncIterator[replication_pb2.SubscribeRequest], subscription: Subscription
    ) -> None:
        """Take acknowledgements, and fresh credentials, until the replica says goodbye, which ends its feed."""
        clean = False
        try:
            async for message in requests:
                kind = message.WhichOneof("message")
                if kind == "ack":
                    self._subscribers.acknowledge(subscription, _ack(message.ack))
                elif kind == "credential":
                    await self._renew(message.credential.authorization)
            clean = True
        finally:
            self._subscribers.close(subscription, clean=clean)


def _ack(message: replication_pb2.Ack) -> Ack:
    return Ack(seq=message.seq, heartbeat_ms=message.heartbeat_ms, audit_head=message.audit_head)


async def _hello(requests: AsyncIterator[replication_pb2.SubscribeRequest]) -> Hello:
    """Return the introduction, which is the first message."""
    first = await anext(requests, None)
    if first is None or first.WhichOneof("message") != "hello":
        raise BadRequestError("the first message of a subscription is `hello`")
    return read_hello(first.hello)
