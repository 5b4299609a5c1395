"""A bare echo of EvaluateBatch in a process of its own: the same gRPC, the same TLS, the same messages, and nothing else.

It parses each request and answers with as many ready-made decisions as it has questions.
"""

import asyncio
import sys
from pathlib import Path

import grpc
import grpc.aio

from pdp.v1 import decision_pb2, decision_pb2_grpc


class _Echo(decision_pb2_grpc.DecisionServiceServicer):
    def __init__(self, template: decision_pb2.EvaluateBatchResponse) -> None:
        self._template = template

    async def EvaluateBatch(self, request: decision_pb2.EvaluateBatchRequest, context: object) -> object:  # noqa: N802, ARG002
        decisions = self._template.decisions[: len(request.questions)]
        return decision_pb2.EvaluateBatchResponse(decisions=decisions)


async def _serve(answer: decision_pb2.EvaluateBatchResponse, tls: grpc.ServerCredentials) -> None:
    server = grpc.aio.server()
    decision_pb2_grpc.add_DecisionServiceServicer_to_server(_Echo(answer), server)  # type: ignore[no-untyped-call] # generated
    port = server.add_secure_port("127.0.0.1:0", tls)
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def main(template: str, key: str, certificate: str, ca: str) -> None:
    """Serve until terminated; say where."""
    answer = decision_pb2.EvaluateBatchResponse.FromString(Path(template).read_bytes())
    pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
    asyncio.run(_serve(answer, grpc.ssl_server_credentials([pair], Path(ca).read_bytes(), require_client_auth=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
