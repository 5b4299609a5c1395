"""Following a PDP over gRPC: `ReplicationService.Subscribe`, the client's side, and the translation of what flows there.

Each subscription is a channel of its own and reads its credential from disk anew; while it is open, `renew` sends a token that
was exchanged. Silence for three heartbeats ends it: a half-open connection gives no other sign (F6). Snapshots and large
entries come in chunks; sizes and a minimum rate are enforced while they are read, not afterwards (V1).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from pdp.adapters.follow_credential import CredentialFiles, OpenCredential, Token
from pdp.errors import PortcullisError, Reason
from pdp.limits import (
    FEED_IDLE_S,
    GOODBYE_S,
    MAX_ENTRY_BYTES,
    MAX_RPC_BYTES,
    MAX_SNAPSHOT_BYTES,
    SNAPSHOT_CHUNK_BYTES,
    SNAPSHOT_MIN_BYTES_S,
)
from pdp.ports import Clock
from pdp.trust.entry import Signature, SignedEntry, SignedHeartbeat, SignedSnapshot
from pdp.trust.feed import Ack, FeedItem, Hello, Resync, RootFiles, Seal
from pdp.v1 import replication_pb2, types_pb2
from pdp.v1.replication_pb2_grpc import ReplicationServiceStub

_EOF: Final[Any] = getattr(grpc.aio, "EOF")  # noqa: B009 - the stubs lack it
_CAPS: Final = {"snapshot": MAX_SNAPSHOT_BYTES, "entry_chunk": MAX_ENTRY_BYTES}
"""What comes in chunks, and how large it may become."""
_SPOKEN: Final = {"snapshot": "a snapshot", "entry_chunk": "an entry"}
_DETAIL_KEY: Final = "pdp-error-bin"
_REFUSALS: Final = {
    grpc.StatusCode.UNAUTHENTICATED: Reason.CREDENTIAL_MISSING,
    grpc.StatusCode.PERMISSION_DENIED: Reason.NO_GRANT,
}


class GrpcFeedSource:
    """Subscribes to one PDP.

    Args:
        target: `host:port`.
        clock: monotonic time for the minimum rate.
        ca: certificates that the PDP's must chain to; None only where the connection needs no TLS (a test, one machine).
        cert, key: this replica's own certificate and key.
        token: a file with a bearer token or a function that returns one, instead of or beside the certificate.
        idle_s: silence after which the connection counts as dead, in seconds.
    """

    def __init__(
        self,
        target: str,
        *,
        clock: Clock,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        token: Token | None = None,
        idle_s: float = FEED_IDLE_S,
    ) -> None:
        self._target = target
        self._clock = clock
        self._files = CredentialFiles(ca=ca, cert=cert, key=key, token=token)
        self._idle_s = idle_s

    def open(self, hello: Hello) -> "GrpcFeed":
        """Begin a subscription; the credential is read from disk now.

        Raises:
            PortcullisError: `credential_missing` if it cannot be read.
        """
        credential = self._files.open()
        return GrpcFeed(self._channel(credential), hello, credential=credential, clock=self._clock, idle_s=self._idle_s)

    def _channel(self, credential: OpenCredential) -> grpc.aio.Channel:
        options = (
            ("grpc.max_receive_message_length", MAX_RPC_BYTES),
            # Else the library shares one connection between channels, and a new subscription waits for the dead one's.
            ("grpc.use_local_subchannel_pool", 1),
        )
        if credential.channel is None:
            return grpc.aio.insecure_channel(self._target, options=options)
        return grpc.aio.secure_channel(self._target, credential.channel, options=options)


class GrpcFeed:
    """One subscription."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        hello: Hello,
        *,
        credential: OpenCredential,
        clock: Clock,
        idle_s: float,
    ) -> None:
        self._channel = channel
        self._hello = hello
        self._clock = clock
        self._idle_s = idle_s
        self._reading: asyncio.Future[Any] | None = None
        self._writing: asyncio.Future[Any] | None = None
        self._credential = credential
        metadata = (("authorization", credential.authorization),) if credential.authorization else ()
        self._call: Any = ReplicationServiceStub(channel).Subscribe(metadata=metadata)  # type: ignore[no-untyped-call]

    async def __aiter__(self) -> AsyncIterator[FeedItem]:
        """Yield what the PDP sends."""
        try:
            await self._write(replication_pb2.SubscribeRequest(hello=hello_message(self._hello)))
            while (message := await self._next()) is not None:
                kind = message.WhichOneof("message")
                if kind in _CAPS:
                    yield await self._assembled(kind, getattr(message, kind))
                elif (item := read_item(message)) is not None:
                    yield item
        except grpc.RpcError as error:
            raise _refusal(error) from error

    async def _next(self) -> replication_pb2.SubscribeResponse | None:
        """Return the next message, or None at the end of the stream.

        The read is a task of its own: cancelling a read would cancel the call, and a follower that is told to stop could
        no longer say goodbye.
        """
        reading = self._reading = self._reading or asyncio.ensure_future(self._call.read())
        await asyncio.wait((reading,), timeout=self._idle_s)
        if not reading.done():
            raise PortcullisError(Reason.PDP_UNREACHABLE, f"the PDP was silent for {self._idle_s:g} s")
        self._reading = None
        message = reading.result()
        return None if message is _EOF else message

    async def _assembled(self, kind: str, first: replication_pb2.Chunk) -> SignedSnapshot | SignedEntry:
        """Read what comes in chunks to its last, within its cap and above the minimum rate (endless data, slow retrieval)."""
        started_s, chunk = self._clock.mono_s(), first
        content = bytearray(first.data)
        while not chunk.last:
            message = await self._next()
            if message is None or message.WhichOneof("message") != kind:
                raise PortcullisError(Reason.PDP_UNREACHABLE, f"{_SPOKEN[kind]} broke off")
            chunk = getattr(message, kind)
            content += chunk.data
            if len(content) > _CAPS[kind]:
                raise PortcullisError(Reason.PDP_UNREACHABLE, f"{_SPOKEN[kind]} beyond its cap")
            allowed_s = self._idle_s + len(content) / SNAPSHOT_MIN_BYTES_S
            if self._clock.mono_s() - started_s > allowed_s:
                raise PortcullisError(Reason.PDP_UNREACHABLE, f"{_SPOKEN[kind]} below the minimum rate")
        signatures = _signatures(first.signatures)
        if kind == "snapshot":
            return SignedSnapshot(header=first.header, state=bytes(content), signatures=signatures)
        return SignedEntry(header=first.header, payload=bytes(content), signatures=signatures)

    async def acknowledge(self, ack: Ack) -> None:
        """Tell the PDP what this replica enforces."""
        message = replication_pb2.Ack(seq=ack.seq, heartbeat_ms=ack.heartbeat_ms, audit_head=ack.audit_head)
        await self._send(replication_pb2.SubscribeRequest(ack=message))

    async def renew(self) -> bool:
        """Send a token that was exchanged on disk; False if a certificate was, which takes a new connection."""
        if self._credential.outworn:
            return False
        fresh = self._credential.fresh()
        if fresh:
            await self._send(
                replication_pb2.SubscribeRequest(credential=replication_pb2.Credential(authorization=fresh))
            )
        return True

    async def _send(self, message: replication_pb2.SubscribeRequest) -> None:
        try:
            await self._write(message)
        except grpc.RpcError as error:
            raise _refusal(error) from error

    async def _write(self, message: replication_pb2.SubscribeRequest) -> None:
        """Write one message; a task of its own for the reason that a read is one."""
        self._writing = asyncio.ensure_future(self._call.write(message))
        await asyncio.wait((self._writing,), timeout=self._idle_s)
        if not self._writing.done():  # a connection that was accepted and never spoke (F6)
            raise PortcullisError(Reason.PDP_UNREACHABLE, f"the PDP took nothing for {self._idle_s:g} s")
        try:
            self._writing.result()
        except asyncio.InvalidStateError as error:  # the call has ended, and reading says why
            raise PortcullisError(Reason.PDP_UNREACHABLE, "the PDP ended the feed") from error

    async def close(self) -> None:
        """Say goodbye, so that the PDP does not wait for this replica's acknowledgements, and drop the channel."""
        if not self._call.done():
            with contextlib.suppress(TimeoutError, PortcullisError, grpc.RpcError, asyncio.InvalidStateError):
                async with asyncio.timeout(min(self._idle_s, GOODBYE_S)):
                    if self._writing is not None:
                        await asyncio.wait((self._writing,))
                    await self._call.done_writing()
                    while await self._next() is not None:
                        pass  # what was under way; the PDP ends the stream when it has seen the goodbye
            self._call.cancel()
        left = [task for task in (self._reading, self._writing) if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._channel.close(None)


def hello_message(hello: Hello) -> replication_pb2.Hello:
    """Return the message that introduces a replica."""
    return replication_pb2.Hello(
        seq=hello.seq,
        head=hello.head,
        version=hello.version,
        role=hello.role,
        tenant=hello.tenant,
        instance=hello.instance,
        chunked=hello.chunked,
    )


def read_hello(message: replication_pb2.Hello) -> Hello:
    """Return the introduction in a message."""
    return Hello(
        seq=message.seq,
        head=message.head,
        version=message.version,
        role=message.role,
        tenant=message.tenant,
        instance=message.instance,
        chunked=message.chunked,
    )


def item_messages(item: FeedItem, *, chunked: bool = True) -> Iterator[replication_pb2.SubscribeResponse]:
    """Yield the messages that carry `item`: one, or chunks; a follower that is not `chunked` gets neither them nor seals."""
    if isinstance(item, SignedSnapshot):
        for chunk in _chunks(item.header, item.state, item.signatures):
            yield replication_pb2.SubscribeResponse(snapshot=chunk)
    elif isinstance(item, SignedEntry):
        yield from _entry_messages(item, chunked=chunked)
    elif isinstance(item, Seal):
        if chunked:
            seal = replication_pb2.Seal(header=item.header, signatures=_signature_messages(item.signatures))
            yield replication_pb2.SubscribeResponse(seal=seal)
    elif isinstance(item, SignedHeartbeat):
        signature = _signature_messages((item.signature,))[0]
        yield replication_pb2.SubscribeResponse(
            heartbeat=replication_pb2.Heartbeat(body=item.body, signature=signature)
        )
    elif isinstance(item, RootFiles):
        yield replication_pb2.SubscribeResponse(roots=replication_pb2.RootFiles(files=item.files))
    else:
        yield replication_pb2.SubscribeResponse(resync=replication_pb2.Resync(reason=item.reason))


def read_item(message: replication_pb2.SubscribeResponse) -> FeedItem | None:
    """Return the item in a message, or None for a kind that this version does not know; nothing in it is believed."""
    kind = message.WhichOneof("message")
    if kind == "entry":
        entry = message.entry
        return SignedEntry(header=entry.header, payload=entry.payload, signatures=_signatures(entry.signatures))
    if kind == "heartbeat":
        signature = _signatures([message.heartbeat.signature])[0]
        return SignedHeartbeat(body=message.heartbeat.body, signature=signature)
    if kind == "roots":
        return RootFiles(files=tuple(message.roots.files))
    if kind == "seal":
        return Seal(header=message.seal.header, signatures=_signatures(message.seal.signatures))
    return Resync(reason=message.resync.reason) if kind == "resync" else None


def _entry_messages(entry: SignedEntry, *, chunked: bool) -> Iterator[replication_pb2.SubscribeResponse]:
    if chunked and len(entry.payload) > SNAPSHOT_CHUNK_BYTES:
        for chunk in _chunks(entry.header, entry.payload, entry.signatures):
            yield replication_pb2.SubscribeResponse(entry_chunk=chunk)
        return
    signatures = _signature_messages(entry.signatures)
    message = replication_pb2.Entry(header=entry.header, payload=entry.payload, signatures=signatures)
    yield replication_pb2.SubscribeResponse(entry=message)


def _chunks(header: bytes, content: bytes, signatures: tuple[Signature, ...]) -> Iterator[replication_pb2.Chunk]:
    size, step = len(content), SNAPSHOT_CHUNK_BYTES
    for start in range(0, max(size, 1), step):
        chunk = replication_pb2.Chunk(data=content[start : start + step], last=start + step >= size)
        if start == 0:
            chunk.header = header
            chunk.signatures.extend(_signature_messages(signatures))
        yield chunk


def _signature_messages(signatures: tuple[Signature, ...]) -> list[replication_pb2.Signature]:
    return [replication_pb2.Signature(key_id=item.key_id, signature=item.signature) for item in signatures]


def _signatures(messages: Any) -> tuple[Signature, ...]:
    return tuple(Signature(key_id=item.key_id, signature=item.signature) for item in messages)


def _refusal(error: grpc.RpcError) -> PortcullisError:
    """Return the typed error in a failed call: the PDP's own reason where it sent one, else what the status means."""
    code = error.code() if isinstance(error, grpc.aio.AioRpcError) else grpc.StatusCode.UNKNOWN
    detail = _detail(error)
    if detail is not None and detail.reason in Reason._value2member_map_:
        return PortcullisError(Reason(detail.reason), detail.message, advice=detail.advice)
    return PortcullisError(_REFUSALS.get(code, Reason.PDP_UNREACHABLE), f"the PDP cannot be followed: {code.name}")


def _detail(error: grpc.RpcError) -> types_pb2.ErrorDetail | None:
    if not isinstance(error, grpc.aio.AioRpcError):
        return None
    trailing: Any = error.trailing_metadata()  # the stubs do not know that it is iterable
    for key, value in trailing or ():
        if key == _DETAIL_KEY and isinstance(value, bytes):
            try:
                return types_pb2.ErrorDetail.FromString(value)
            except DecodeError:
                return None
    return None
