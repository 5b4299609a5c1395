"""Open Inference Protocol v2, the JSON of `infer` and of `generate_stream`: bytes in, values or one readable fault out.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, "Inference Request JSON".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from pdp.demo.classifier import CLASSES, PIXELS, Prediction
from pdp.demo.limits import LIMITS

INPUT: Final = "image"
DATATYPE: Final = "FP64"
OUTPUTS: Final = ("digit", "probabilities")
MAX_GREY: Final = 16.0
"""The data set's own scale: 0 is white, 16 is black."""

Json: TypeAlias = dict[str, object]


class BadRequestError(ValueError):
    """The caller's request does not say what the protocol needs; the text is the answer's `error`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """One checked `infer`: a batch of images, and the outputs asked for."""

    id: str | None
    images: NDArray[np.float64]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """One checked `generate_stream`: how many images to classify, and how long to pause between two."""

    count: int
    interval_s: float


def parse_infer(body: bytes) -> InferRequest:
    """Read an `infer` body.

    Raises:
        BadRequestError: anything missing, of the wrong type, or out of range.

    """
    request = json_object(body)
    return InferRequest(id=_request_id(request), images=_images(request), outputs=_outputs(request))


def parse_stream(body: bytes) -> StreamRequest:
    """Read a `generate_stream` body; `parameters.count` and `parameters.interval_ms` may be left out.

    Raises:
        BadRequestError: a parameter that is not a whole number in its range.

    """
    parameters = mapping(json_object(body).get("parameters", {}), "parameters")
    count = whole_number(parameters.get("count", 10), "parameters.count", 1, LIMITS.stream_events)
    interval_ms = whole_number(
        parameters.get("interval_ms", 100), "parameters.interval_ms", 0, LIMITS.stream_interval_ms
    )
    return StreamRequest(count=count, interval_s=interval_ms / 1_000)


def model_metadata(name: str, version: str) -> Json:
    """Return the metadata answer of one model."""
    return {
        "name": name,
        "versions": [version],
        "platform": "sklearn",
        "inputs": [{"name": INPUT, "datatype": DATATYPE, "shape": [-1, PIXELS]}],
        "outputs": [
            {"name": "digit", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP64", "shape": [-1, CLASSES]},
        ],
    }


def infer_answer(request: InferRequest, prediction: Prediction, *, name: str, version: str) -> Json:
    """Write the answer of `infer`: tensors as row-major flat lists."""
    tensors: dict[str, Json] = {
        "digit": _tensor("digit", "INT64", prediction.digits),
        "probabilities": _tensor("probabilities", "FP64", prediction.probabilities),
    }
    answer: Json = {"model_name": name, "model_version": version, "outputs": [tensors[one] for one in request.outputs]}
    return answer if request.id is None else answer | {"id": request.id}


def _tensor(name: str, datatype: str, values: NDArray[np.generic]) -> Json:
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": values.ravel().tolist()}


def json_object(body: bytes) -> Mapping[str, object]:
    """Read a body that must be a JSON object.

    Raises:
        BadRequestError: it is none.

    """
    try:
        value: object = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as fault:
        raise BadRequestError("the body is not JSON in UTF-8") from fault
    return mapping(value, "the body")


def mapping(value: object, where: str) -> Mapping[str, object]:
    """Return `value` if it is an object.

    Raises:
        BadRequestError: it is none.

    """
    if not isinstance(value, dict):
        raise BadRequestError(f"{where} must be an object")
    return cast("dict[str, object]", value)


def whole_number(value: object, where: str, low: int, high: int) -> int:
    """Return `value` if it is a whole number in its range.

    Raises:
        BadRequestError: it is not.

    """
    # `True` is an int in Python; the protocol's integers are numbers only.
    if type(value) is not int or not low <= value <= high:
        raise BadRequestError(f"`{where}` must be a whole number from {low} to {high}")
    return value


def _request_id(request: Mapping[str, object]) -> str | None:
    value = request.get("id")
    if value is not None and not isinstance(value, str):
        raise BadRequestError("`id` must be a string")
    return value


def _outputs(request: Mapping[str, object]) -> tuple[str, ...]:
    wanted = request.get("outputs")
    if wanted is None:
        return OUTPUTS
    if not isinstance(wanted, list):
        raise BadRequestError("`outputs` must be a list")
    names = tuple(mapping(one, "an output").get("name") for one in wanted)
    if unknown := [name for name in names if name not in OUTPUTS]:
        raise BadRequestError(f"unknown output `{unknown[0]}`; the model has `digit` and `probabilities`")
    return cast("tuple[str, ...]", names)


def _images(request: Mapping[str, object]) -> NDArray[np.float64]:
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise BadRequestError(f"`inputs` must be a list of exactly one tensor, `{INPUT}`")
    tensor = mapping(inputs[0], "an input")
    if tensor.get("name") != INPUT or tensor.get("datatype") != DATATYPE:
        raise BadRequestError(f"the input must be named `{INPUT}` and have datatype `{DATATYPE}`")
    return _grey(tensor.get("data"), _rows(tensor.get("shape")))


def _rows(shape: object) -> int:
    if not isinstance(shape, list) or len(shape) != 2 or shape[1] != PIXELS:  # noqa: PLR2004 - rows and pixels
        raise BadRequestError(f"`shape` must be [n, {PIXELS}]")
    return whole_number(shape[0], "shape[0]", 1, LIMITS.batch_images)


def _grey(data: object, rows: int) -> NDArray[np.float64]:
    """Accept flat or nested data, as the protocol does."""
    values = _flat(data) if isinstance(data, list) else []
    if len(values) != rows * PIXELS or not all(_is_grey(value) for value in values):
        raise BadRequestError(f"`data` must hold {rows * PIXELS} numbers from 0 to {MAX_GREY:g}")
    return np.array(values, dtype=np.float64).reshape(rows, PIXELS)


def _flat(data: list[object]) -> list[object]:
    if data and all(isinstance(row, list) for row in data):
        return [value for row in cast("list[list[object]]", data) for value in row]
    return data


def _is_grey(value: object) -> bool:
    # Exact types, for `True` is an int; the positive form, for NaN fails every comparison.
    return (type(value) is int or type(value) is float) and 0 <= value <= MAX_GREY
