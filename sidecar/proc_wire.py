"""The words of `envoy.service.ext_proc.v3`: our answers, and what we read of Envoy's messages.

Source: ENFORCEMENT.md 2.3 (EP-3, EP-5, EP-6, EP-8).
"""

from collections.abc import Mapping

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2 as mode
from envoy.service.ext_proc.v3 import external_processor_pb2 as proc

from sidecar.asked import Admitted, Ask, Verdict
from sidecar.envoy import CERTIFICATE_HEADER, SAGEMAKER_PREFIX
from sidecar.headers import Headers
from sidecar.rewrite import Sent
from sidecar.routes import Body, Row

# Built once: these answers say only "go on" (never sent before an allow).
_HEADERS_PASS = proc.ProcessingResponse(response_headers=proc.HeadersResponse())
_CHUNK_PASS = proc.ProcessingResponse(response_body=proc.BodyResponse())
_BUFFERED = mode.ProcessingMode.BUFFERED
_REQUEST_MODES = {Body.UNREAD: mode.ProcessingMode.NONE, Body.GRPC: mode.ProcessingMode.STREAMED}


def _set(name: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, raw_value=value.encode("ascii")),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def immediate(verdict: Verdict) -> proc.ProcessingResponse:
    """Return the answer that ends the request: a status before the response began, a reset once it runs (EP-6)."""
    refused = verdict.denial
    answer = proc.ProcessingResponse()
    answer.immediate_response.status.code = refused.status
    answer.immediate_response.body = refused.body
    answer.immediate_response.grpc_status.status = refused.grpc_status
    answer.immediate_response.headers.set_headers.extend(_set(name, value) for name, value in refused.headers)
    answer.immediate_response.details = "pdp_" + verdict.reason.value
    return answer


def headers_on(verdict: Verdict, path: str | None = None, remove: tuple[str, ...] = ()) -> proc.ProcessingResponse:
    """Return the allow of a request whose path decided, with the pinned path if there is one, and without headers `remove`."""
    answer = proc.ProcessingResponse()
    _mutate(answer.request_headers.response, verdict, path)
    given = {name for name, _ in verdict.given}
    mutation = answer.request_headers.response.header_mutation
    mutation.remove_headers.extend(name for name in remove if name not in given)
    return answer


def request_body_on(verdict: Verdict, sent: Sent) -> proc.ProcessingResponse:
    """Return the allow of a request whose body decided; a changed body carries its exact length (EP-5)."""
    answer = proc.ProcessingResponse()
    response = answer.request_body.response
    _mutate(response, verdict, sent.path)
    if sent.body is not None:
        response.body_mutation.body = sent.body
        response.header_mutation.set_headers.append(_set("content-length", str(len(sent.body))))
    return answer


def opened(admitted: Admitted, remove: tuple[str, ...] = ()) -> proc.ProcessingResponse:
    """Return the answer that goes on to the body.

    Envoy holds the headers until a body is whole (BUFFERED). A gRPC call opens at once (STREAMED), empty: its headers cannot
    tell a decision that is not made, and so tell the verified caller alone.
    """
    answer = proc.ProcessingResponse(request_headers=proc.HeadersResponse())
    if admitted.row.body is Body.GRPC:
        mutation = answer.request_headers.response.header_mutation
        mutation.set_headers.append(_set("x-pdp-subject", str(admitted.who.party.principal)))
        remove = tuple(name for name in remove if name != "x-pdp-subject")
    answer.request_headers.response.header_mutation.remove_headers.extend(remove)
    return answer


def _mutate(response: proc.CommonResponse, verdict: Verdict, path: str | None) -> None:
    mutation = response.header_mutation
    mutation.set_headers.extend(_set(name, value) for name, value in verdict.given)
    if path is not None:
        mutation.set_headers.append(_set(":path", path))


def request_chunk_on(body: bytes) -> proc.ProcessingResponse:
    """Return the answer that sends `body` on in place of a chunk; empty: the chunk is held."""
    answer = proc.ProcessingResponse()
    mutation = answer.request_body.response.body_mutation
    if body:
        mutation.body = body
    else:
        mutation.clear_body = True
    return answer


def chunk_on(body: bytes | None) -> proc.ProcessingResponse:
    """Return the answer that sends a chunk of the response on; None: as it came."""
    if body is None:
        return _CHUNK_PASS
    answer = proc.ProcessingResponse()
    mutation = answer.response_body.response.body_mutation
    if body:
        mutation.body = body
    else:
        mutation.clear_body = True
    return answer


def headers_pass(*, whole: bool, row: Row) -> proc.ProcessingResponse:
    """Return the answer that lets the response begin; `whole`: its body must come in one piece."""
    if not whole:
        return _HEADERS_PASS
    answer = proc.ProcessingResponse(response_headers=proc.HeadersResponse())
    override = answer.mode_override
    # EP-3: a body mode has no "unchanged", so the request's is said again.
    override.request_body_mode = _REQUEST_MODES.get(row.body, _BUFFERED)
    override.response_header_mode = mode.ProcessingMode.SEND
    override.response_body_mode = _BUFFERED
    return answer


def fields_of(headers: base_pb2.HeaderMap) -> list[tuple[str, str]]:
    """Return header fields; latin-1, so that a byte is never lost, only refused later."""
    return [(one.key, (one.raw_value or one.value.encode()).decode("latin-1")) for one in headers.headers]


def not_for_the_model(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a foreign Envoy would pass on: a client's copies of ours, overrides, and its credentials (EX-6)."""
    return (*(name for name in headers if name.startswith(("x-pdp-", SAGEMAKER_PREFIX))), "authorization", "dpop")


def ask_of(message: proc.ProcessingRequest, route: str, *, foreign: bool = False) -> tuple[Mapping[str, str], Ask]:
    """Return the headers of Envoy's first message, and its question; facts about the connection are Envoy's own.

    Whether a `foreign` Envoy sanitises the certificate's header is not ours to know: it is not read (EP-8).
    """
    headers = Headers()
    for name, value in fields_of(message.request_headers.headers):
        if not (foreign and name.lower() == CERTIFICATE_HEADER):
            headers.add(name.lower(), value)
    attributes = message.attributes["envoy.filters.http.ext_proc"].fields if message.attributes else {}
    source = attributes["source.address"].string_value if "source.address" in attributes else ""
    ask = headers.ask(
        method=headers.values.get(":method", ""),
        target=headers.values.get(":path", ""),
        route=route,
        source_ip=source.rpartition(":")[0],
    )
    return headers.values, ask
