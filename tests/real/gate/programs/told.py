"""What a server's program tells the test on its output: every route that the server answers, and that nobody listens any more."""

import importlib
import json
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any


def tell_routes(routes: Iterable[Any], grpc: ModuleType | None = None) -> None:
    """Print method and path of each route of a Starlette application, and of each gRPC method in the package `grpc`."""
    found = {(method, route.path) for route in routes for method in route.methods}
    if grpc is not None:
        found |= {("POST", path) for path in _methods(grpc)}
    print("routes " + json.dumps(sorted(found)), flush=True)  # noqa: T201 - what the test waits for


def tell_gone() -> None:
    """Print that the client of a stream is gone."""
    print("nobody listens", flush=True)  # noqa: T201 - what the test waits for


def _methods(package: ModuleType) -> Iterable[str]:
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if module.name.endswith("_pb2"):
            for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
                yield from (f"/{service.full_name}/{method.name}" for method in service.methods)
