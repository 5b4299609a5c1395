"""The SPIFFE Workload API over its Unix socket: the JWT bundles of the trust domains, as the local agent tells them.

One stream for all trust domains behind one socket. Each message is the full state: what is absent from it is withdrawn
(SP-3). A broken stream is opened again after a rest; meanwhile the last state stands until it is stale.

The two messages are described here rather than generated: `JWTBundlesRequest` is empty, and `JWTBundlesResponse` has one
field, `map<string, bytes> bundles = 1`. Source: SPIFFE Workload API, sections 4 and 6.2.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from pdp.limits import MAX_JWKS_BYTES, RECONNECT_MAX_S, RECONNECT_MIN_S

METHOD: Final = "/SpiffeWorkloadAPI/FetchJWTBundles"
_HEADER: Final = (("workload.spiffe.io", "true"),)
"""Without it the agent refuses: a browser, made to call, cannot set it (section 4)."""
_MAX_MESSAGE_BYTES: Final = 16 * MAX_JWKS_BYTES


def _response_class() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="pdp/workload_api.proto", package="pdp.workload_api", syntax="proto3"
    )
    response = file.message_type.add(name="JWTBundlesResponse")
    entry = response.nested_type.add(name="BundlesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=field.TYPE_BYTES, label=field.LABEL_OPTIONAL)
    response.field.add(
        name="bundles",
        number=1,
        type=field.TYPE_MESSAGE,
        label=field.LABEL_REPEATED,
        type_name=".pdp.workload_api.JWTBundlesResponse.BundlesEntry",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pdp.workload_api.JWTBundlesResponse"))


JWTBundlesResponse: Final = _response_class()


class WorkloadApi:
    """What one agent tells.

    `bundles` is its last message and `messages` counts them; `error` says why it tells nothing, `ended` that a stream did.
    """

    def __init__(self, address: str) -> None:
        self.bundles: Mapping[str, bytes] = {}
        self.messages = 0
        self.error = "the Workload API has told nothing yet"
        self._address = address
        self._task: asyncio.Task[None] | None = None
        self._told = asyncio.Event()
        self.ended = asyncio.Event()

    async def told(self, patience_s: float) -> None:
        """Start listening, and wait for the first message, or for the failure to get one."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="pdp-workload-api")
        if not self._told.is_set():
            try:
                async with asyncio.timeout(patience_s):
                    await self._told.wait()
            except TimeoutError:
                self.error = "the Workload API does not answer"

    async def close(self) -> None:
        """End the stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        rest_s = RECONNECT_MIN_S
        while True:
            before = self.messages
            try:
                await self._follow()
                self.error = "the Workload API has ended its stream"
            except Exception as error:  # noqa: BLE001 - the outermost boundary of a background task: no bundle, no trust
                code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
                self.error = f"the Workload API failed: {code}"
            self._told.set()
            self.ended.set()
            rest_s = RECONNECT_MIN_S if self.messages > before else min(2 * rest_s, RECONNECT_MAX_S)
            await asyncio.sleep(rest_s)

    async def _follow(self) -> None:
        options = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            call = channel.unary_stream(
                METHOD, request_serializer=bytes, response_deserializer=JWTBundlesResponse.FromString
            )
            async for response in call(b"", metadata=_HEADER):
                self.bundles = {name.rstrip("/"): bytes(raw) for name, raw in response.bundles.items()}
                self.messages += 1
                self.error = ""
                self._told.set()


class WorkloadApis:
    """One stream for each socket, whoever asks for it."""

    def __init__(self) -> None:
        self._apis: dict[str, WorkloadApi] = {}

    def at(self, address: str) -> WorkloadApi:
        """Return the API behind an address."""
        return self._apis.setdefault(address, WorkloadApi(address))

    async def close(self) -> None:
        """End every stream."""
        for api in self._apis.values():
            await api.close()
