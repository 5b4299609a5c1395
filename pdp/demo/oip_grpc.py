"""Open Inference Protocol v2 over gRPC: the model server's second port, and a caller who goes through the gate with it.

Source: github.com/kserve/open-inference-protocol, grpc_predict_v2.proto.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from pdp.demo.authority import Credential
from pdp.demo.classifier import CLASSES, PIXELS, Prediction
from pdp.demo.gate import Answer
from pdp.demo.limits import LIMITS
from pdp.demo.oip import DATATYPE, INPUT
from sidecar.v1 import oip_tensors_pb2 as tensors

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
_STATUS: Final = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAVAILABLE: 503,
}

Predict = Callable[[NDArray[np.float64]], Prediction]


async def serve(predict: Predict, models: frozenset[str], version: str) -> tuple[grpc.aio.Server, int]:
    """Serve `ModelInfer` on the loopback; return the server and its port."""

    async def infer(message: bytes, context: Any) -> bytes:
        return await _infer(message, context, predict, models, version)

    service, _, method = METHOD.removeprefix("/").partition("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(infer)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def _infer(message: bytes, context: Any, predict: Predict, models: frozenset[str], version: str) -> bytes:
    asked = tensors.InferRequest.FromString(message)
    if asked.model_name not in models:
        await context.abort(grpc.StatusCode.NOT_FOUND, "unknown model")
    image = np.array(asked.inputs[0].contents.fp64_contents if asked.inputs else (), dtype=np.float64)
    if image.shape != (PIXELS,):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the input must be one image of {PIXELS} numbers")
    prediction = predict(image.reshape(1, PIXELS))
    answer = tensors.InferResponse(model_name=asked.model_name, model_version=version)
    digit = answer.outputs.add(name="digit", datatype="INT64", shape=[1])
    digit.contents.int64_contents.append(int(prediction.digits[0]))
    probabilities = answer.outputs.add(name="probabilities", datatype="FP64", shape=[1, CLASSES])
    probabilities.contents.fp64_contents.extend(float(value) for value in prediction.probabilities[0])
    return bytes(answer.SerializeToString())


def infer(  # noqa: PLR0917 - who asks, with what, for what
    gate: str, bundle: Path, credential: Credential, token: str | None, model: str, image: NDArray[np.float64]
) -> Answer:
    """Ask for one image through the gate; a refusal comes back as its HTTP status and the gate's words.

    Args:
        gate: Its address, HOST:PORT.
        bundle: The CA of its certificate.
        credential: The caller's client certificate.
        token: The caller's token; None: none is shown.
        model: The served name.
        image: Its grey values.
    """
    asked = tensors.InferRequest(model_name=model)
    tensor = asked.inputs.add(name=INPUT, datatype=DATATYPE, shape=[1, PIXELS])
    tensor.contents.fp64_contents.extend(float(value) for value in image)
    ours = grpc.ssl_channel_credentials(
        bundle.read_bytes(), credential.key.read_bytes(), credential.certificate.read_bytes()
    )
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    with grpc.secure_channel(gate, ours) as channel:
        call = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
        try:
            answer = tensors.InferResponse.FromString(
                call(asked.SerializeToString(), metadata=metadata, timeout=LIMITS.call_s)
            )
        except grpc.RpcError as fault:
            return Answer(status=_STATUS.get(fault.code(), 500), body=_words(fault.details()))
    digit, probabilities = answer.outputs
    outputs = [{"data": list(digit.contents.int64_contents)}, {"data": list(probabilities.contents.fp64_contents)}]
    return Answer(status=200, body={"outputs": outputs})


def _words(details: str | None) -> Any:
    try:
        return json.loads(details or "")
    except ValueError:
        return None
