"""gRPC health: the one service that needs no credential. It says whether to ask here, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pdp.limits import HEALTH_INTERVAL_S
from pdp.service.health import Health


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # the package has no types
    """Answers for the whole server, and for each service by name, with what `Health` says."""

    def __init__(self, *, health: Health, services: frozenset[str]) -> None:
        self._health = health
        self._services = services | {""}

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Tell whether the service is ready."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return self._answer(request.service)

    async def Watch(self, request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802 - gRPC's name
        """Tell it now, and whenever it changes."""
        told = None
        while True:
            answer = self._answer(request.service)
            if answer.status != told:
                told = answer.status
                yield answer
            await asyncio.sleep(HEALTH_INTERVAL_S)

    def _answer(self, service: str) -> Any:
        response = health_pb2.HealthCheckResponse
        if service not in self._services:
            return response(status=response.SERVICE_UNKNOWN)
        return response(status=response.SERVING if self._health.ready else response.NOT_SERVING)
