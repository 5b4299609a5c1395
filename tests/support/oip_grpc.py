"""A gRPC model server of a few lines: it speaks raw bytes, so that a test sees exactly what reached it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

SERVICE = "inference.GRPCInferenceService"
UNARY = ("ModelInfer", "ModelReady", "ModelMetadata", "RepositoryModelLoad", "ServerLive", "RepositoryIndex")


@dataclass
class GrpcModel:
    """Echoes messages; `gone` is set when a stream's messages end."""

    seen: list[tuple[str, bytes]] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    _server: Any = None

    async def start(self) -> None:
        self._server = grpc.aio.server()
        handlers = {name: grpc.unary_unary_rpc_method_handler(self._unary(name)) for name in UNARY}
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    def _unary(self, name: str) -> Any:
        async def answer(message: bytes, context: Any) -> bytes:
            self._note(name, message, context)
            return message

        return answer

    async def _stream(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self.metadata.append(dict(context.invocation_metadata()))
        try:
            async for message in messages:
                self.seen.append(("ModelStreamInfer", message))
                yield message
        finally:
            self.gone.set()  # grpc.aio shows a reset as the plain end of the messages

    def _note(self, name: str, message: bytes, context: Any) -> None:
        self.seen.append((name, message))
        self.metadata.append(dict(context.invocation_metadata()))
