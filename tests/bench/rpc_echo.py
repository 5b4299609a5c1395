"""Bare echoes of EvaluateBatch in a process of their own: the same gRPC, the same TLS, the same messages, and nothing else.

`handler` is what anybody would write: in Python it reads what each question says, and makes each answer. `copy` looks at no
question and answers with as many ready-made decisions, copied in C: what the library alone can do.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from pdp.v1 import decision_pb2, decision_pb2_grpc

Request = decision_pb2.EvaluateBatchRequest
Response = decision_pb2.EvaluateBatchResponse
Echo = Callable[[Request], Response]


def _handler(template: Response) -> Echo:
    """Return an echo that reads each question and makes each answer out of plain values, those of `template` in turn."""
    ready = [{field.name: value for field, value in decision.ListFields()} for decision in template.decisions]

    def answer(request: Request) -> Response:
        response = Response()
        for question, values in zip(request.questions, ready, strict=False):
            asserted = question.subject.asserted
            said = (asserted.principal, *asserted.groups, question.action, question.resource, question.workload)
            if all(said):
                response.decisions.add(**values)
        return response

    return answer


def _copy(template: Response) -> Echo:
    return lambda request: Response(decisions=template.decisions[: len(request.questions)])


ECHOES: Final[dict[str, Callable[[Response], Echo]]] = {"handler": _handler, "copy": _copy}


class _Servicer(decision_pb2_grpc.DecisionServiceServicer):
    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    async def EvaluateBatch(self, request: Request, context: Any) -> Response:  # noqa: N802, ARG002
        return self._echo(request)


async def _serve(echo: Echo, tls: grpc.ServerCredentials) -> None:
    server = grpc.aio.server()
    decision_pb2_grpc.add_DecisionServiceServicer_to_server(_Servicer(echo), server)  # type: ignore[no-untyped-call] # generated
    port = server.add_secure_port("127.0.0.1:0", tls)
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def main(kind: str, template: str, key: str, certificate: str, ca: str) -> None:
    """Serve until terminated; say where."""
    echo = ECHOES[kind](Response.FromString(Path(template).read_bytes()))
    pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
    asyncio.run(_serve(echo, grpc.ssl_server_credentials([pair], Path(ca).read_bytes(), require_client_auth=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
