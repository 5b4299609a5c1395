"""Open Inference Protocol v2 over gRPC: every message names its model, and every message is checked.

MLServer serves the repository's methods under a second service, too. KServe's own `RepositoryModelLoad` numbers its fields in
another way (the model's name is the first, where Triton and MLServer have the repository's): read as theirs it names a
foreign repository, and is refused; its REST route does the same.

Source: ENFORCEMENT.md 3.1; grpc_predict_v2.proto and Triton's extensions of it; MLServer's model_repository.proto.
"""

from sidecar.routes import NO_TOKENS, Body, Dialect, Placement, Row, Scope

SERVICE = "inference.GRPCInferenceService"
REPOSITORY = "inference.model_repository.ModelRepositoryService"
"""MLServer's second name for the methods of its model repository."""


def _row(method: str, action: str, scope: Scope = Scope.BODY, *, stream: bool = False, service: str = SERVICE) -> Row:
    # Server-wide and never-allowed methods do not read a message; the path decides them, like any other.
    reads = scope is Scope.BODY
    return Row(
        name=f"oip_grpc.{method}" if service == SERVICE else f"oip_grpc.repository.{method}",
        method="POST",
        path=f"/{service}/{method}",
        action=f"endpoint.{action}",
        scope=scope,
        placement=Placement.EXT_PROC if reads else Placement.EXT_AUTHZ,
        body=Body.GRPC if reads else Body.UNREAD,
        dialect=Dialect.OIP,
        grpc=True,
        stream=stream,
        limit=None if action == "invoke" else NO_TOKENS,
    )


ROWS: tuple[Row, ...] = (
    _row("ModelInfer", "invoke"),
    _row("ModelStreamInfer", "invoke", stream=True),
    _row("ModelReady", "read_metadata"),
    _row("ModelMetadata", "read_metadata"),
    _row("ModelConfig", "read_config"),
    _row("ModelStatistics", "observe"),
    _row("RepositoryModelLoad", "load_model"),
    _row("RepositoryModelUnload", "unload_model"),
    _row("ServerLive", "read_metadata", Scope.SERVER),
    _row("ServerReady", "read_metadata", Scope.SERVER),
    _row("ServerMetadata", "read_metadata", Scope.SERVER),
    _row("TraceSetting", "configure", Scope.SERVER),
    _row("LogSettings", "configure", Scope.SERVER),
    _row("RepositoryIndex", "list", Scope.NEVER),
    _row("RepositoryModelLoad", "load_model", service=REPOSITORY),
    _row("RepositoryModelUnload", "unload_model", service=REPOSITORY),
    _row("RepositoryIndex", "list", Scope.NEVER, service=REPOSITORY),
    *(
        _row(f"{kind}SharedMemory{verb}", "shared_memory", Scope.NEVER)
        for kind in ("System", "Cuda")
        for verb in ("Status", "Register", "Unregister")
    ),
)
