"""The one seam to gRPC: a message out, a message or a typed error back, blocking or not. Every call has a deadline."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from pdp.errors import ConfigError
from pdp.limits import MAX_PACK_FILE_BYTES, RECONNECT_MAX_S
from pdp.sdk._core import Ask, Core, Rpc, Told, call_error, closed_error, find_detail
from pdp.sdk.errors import PdpError

# Deciding twice is harmless, so a lost connection is tried again, at most twice and with gRPC's own jitter; the token
# bucket ends the retries when most calls fail, so that clients do not bury a PDP that struggles (FAILURE.md F2).
_REPEATABLE: Final = ("Evaluate", "EvaluateBatch", "Explain", "SearchSubjects", "SearchResources", "SearchActions")
_RETRY: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "pdp.v1.DecisionService", "method": method} for method in _REPEATABLE],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
)


class Transport:
    """A blocking channel; opened at once, connected at the first call."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._server = core.settings.server
        options = _options(core)
        credentials = _credentials(core)
        if credentials is None:
            self._channel = grpc.insecure_channel(self._server, options)
        else:
            self._channel = grpc.secure_channel(self._server, credentials, options)

    def unary(
        self, rpc: Rpc[Ask, Told], message: Ask, *, timeout_s: float | None = None, token: str | None = None
    ) -> Told:
        """Call and return the answer; `token` is our credential where it was read already.

        Raises:
            PdpError: the typed error for whatever went wrong.
        """
        self._core.check_usable()
        call = self._channel.unary_unary(rpc.path, rpc.ask.SerializeToString, rpc.told.FromString)
        deadline_s = timeout_s or max(self._core.settings.timeout_s, rpc.least_s)
        try:
            told: Told = call(message, timeout=deadline_s, metadata=self._core.metadata(token))
        except grpc.RpcError as error:
            raise self._typed(error) from error
        except ValueError as error:  # gRPC's word for a channel that another thread has closed
            raise (closed_error() if self._core.closed else error) from error
        return told

    def stream(
        self,
        rpc: Rpc[Ask, Told],
        message: Ask,
        *,
        timeout_s: float | None,
        patient: bool = False,
        calling: Callable[[Callable[[], object]], None] = lambda _cancel: None,
    ) -> Generator[Told]:
        """Call and yield the answers; closing the iterator cancels the call.

        Args:
            rpc: the method.
            message: the question.
            timeout_s: the deadline of the whole stream; None only where a person ends it (`audit tail -f`).
            patient: wait for a connection instead of failing while there is none.
            calling: is told how to cancel the call from another thread.
        """
        self._core.check_usable()
        method = self._channel.unary_stream(rpc.path, rpc.ask.SerializeToString, rpc.told.FromString)
        call: Any = method(message, timeout=timeout_s, metadata=self._core.metadata(), wait_for_ready=patient)
        calling(call.cancel)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._typed(error) from error
        finally:
            call.cancel()

    def close(self) -> None:
        """Close the channel, once; in a forked child there is nothing of ours to close."""
        if self._core.close():
            self._channel.close()

    def _typed(self, error: Any) -> PdpError:
        if self._core.closed:
            return closed_error()
        # A blocking call raises its own call object, which tells status and metadata; stubs know only `RpcError`.
        return call_error(
            error.code().name,
            server=self._server,
            said=error.details() or "",
            detail=find_detail(error.trailing_metadata()),
        )


class AsyncTransport:
    """The same for asyncio. The channel is opened by the first call, inside the loop that makes it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._server = core.settings.server
        self._options = _options(core)
        self._credentials = _credentials(core)
        self._channel: grpc.aio.Channel | None = None

    async def unary(
        self, rpc: Rpc[Ask, Told], message: Ask, *, timeout_s: float | None = None, token: str | None = None
    ) -> Told:
        """Call and return the answer; `token` is our credential where it was read already.

        Raises:
            PdpError: the typed error for whatever went wrong.
        """
        call: Any = self._open().unary_unary(rpc.path, rpc.ask.SerializeToString, rpc.told.FromString)
        deadline_s = timeout_s or max(self._core.settings.timeout_s, rpc.least_s)
        try:
            told: Told = await call(message, timeout=deadline_s, metadata=self._core.metadata(token))
        except grpc.aio.AioRpcError as error:
            raise self._typed(error) from error
        except asyncio.CancelledError as error:
            # A channel that is closed cancels its calls, which must not look as if the task were told to stop.
            if self._core.closed and not _told_to_stop():
                raise closed_error() from error
            raise
        return told

    async def stream(
        self, rpc: Rpc[Ask, Told], message: Ask, *, timeout_s: float | None, patient: bool = False
    ) -> AsyncGenerator[Told]:
        """Call and yield the answers; closing the iterator cancels the call. Arguments as in `Transport.stream`."""
        method: Any = self._open().unary_stream(rpc.path, rpc.ask.SerializeToString, rpc.told.FromString)
        call = method(message, timeout=timeout_s, metadata=self._core.metadata(), wait_for_ready=patient)
        try:
            async for told in call:
                yield told
        except grpc.aio.AioRpcError as error:
            raise self._typed(error) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel, once; in a forked child there is nothing of ours to close."""
        if self._core.close() and self._channel is not None:
            await self._channel.close(None)

    def _open(self) -> grpc.aio.Channel:
        self._core.check_usable()
        if self._channel is None:
            self._channel = self._connect()
        return self._channel

    def _connect(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._server, self._options)
        return grpc.aio.secure_channel(self._server, self._credentials, self._options)

    def _typed(self, error: grpc.aio.AioRpcError) -> PdpError:
        if self._core.closed:
            return closed_error()
        return call_error(
            error.code().name,
            server=self._server,
            said=error.details() or "",
            detail=find_detail(error.trailing_metadata()),
        )


def _told_to_stop() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _options(core: Core) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", _RETRY),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", int(RECONNECT_MAX_S * 1000)),
        ("grpc.max_receive_message_length", MAX_PACK_FILE_BYTES),
        # Clients of different credentials in one process must not share a connection, hence an identity.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    # A proxy of the environment cannot reach this host's own loopback.
    return [*options, ("grpc.enable_http_proxy", 0)] if core.settings.local else options


def _credentials(core: Core) -> grpc.ChannelCredentials | None:
    if not core.settings.secure:
        return None
    tls = core.settings.tls
    return grpc.ssl_channel_credentials(_pem(tls.ca), _pem(tls.key), _pem(tls.cert))


def _pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
