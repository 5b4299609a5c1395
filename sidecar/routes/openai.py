"""OpenAI-compatible servers (vLLM, TGI, KServe's `/openai`, the MLflow gateway): the body's `model` names a model or an adapter.

An allow-list: vLLM's own API key leaves many of its routes open. The list of models shows what the caller may see. Stored
responses are for whoever made them alone. `/collective_rpc` runs code and is never allowed.

Source: ENFORCEMENT.md 3.2; vLLM's and TGI's route tables.
"""

from dataclasses import replace

from sidecar.routes import NO_TOKENS, WEBSOCKET, Body, Dialect, Placement, Row, Scope


def _by_body(name: str, path: str, action: str, limit: str | None = NO_TOKENS, *, body: Body = Body.JSON) -> Row:
    return Row(
        name=f"openai.{name}",
        method="POST",
        path=path,
        action=f"endpoint.{action}",
        scope=Scope.BODY,
        placement=Placement.EXT_PROC,
        body=body,
        dialect=Dialect.OPENAI,
        limit=limit,
    )


def _in_its_own_shape(name: str, path: str, limit: str | None = NO_TOKENS) -> Row:
    """Return a row whose replies hold confidence where nothing here can take it out: `strip_outputs` on it is a deny."""
    return replace(_by_body(name, path, "invoke", limit), dialect=Dialect.PLAIN)


def _by_path(name: str, method: str, path: str, action: str, scope: Scope = Scope.SERVER) -> Row:
    return Row(
        name=f"openai.{name}",
        method=method,
        path=path,
        action=f"endpoint.{action}",
        scope=scope,
        dialect=Dialect.OPENAI,
        limit=NO_TOKENS,
    )


_GENERATES = (
    _by_body("chat", "/v1/chat/completions", "invoke", "max_completion_tokens"),
    _by_body("chat_batch", "/v1/chat/completions/batch", "invoke", "max_completion_tokens"),
    _by_body("completions", "/v1/completions", "invoke", "max_tokens"),
    replace(_by_body("responses", "/v1/responses", "invoke", "max_output_tokens"), stores=True),
    _by_body("messages", "/v1/messages", "invoke", "max_tokens"),
    # Its limit stands inside `sampling_params`, in a shape that is the server's own: no bound is promised.
    _by_body("generate", "/inference/v1/generate", "invoke", None),
    _in_its_own_shape("cohere_chat", "/cohere/v2/chat", "max_tokens"),
)
_COMPUTES = (
    *(
        _by_body(path.strip("/").replace("/", "_").replace("v1_", ""), path, "invoke")
        for path in ("/v1/embeddings", "/v2/embed")
    ),
    *(
        _in_its_own_shape(path.strip("/").replace("/", "_").replace("v1_", ""), path)
        for path in ("/v1/score", "/v1/rerank", "/v2/rerank", "/pooling", "/classify", "/v1/systemone")
    ),
    *(
        _in_its_own_shape(f"bare_{path.strip('/')}", path)
        for path in ("/score", "/rerank", "/invocations", "/generative_scoring")
    ),
    _by_body("transcriptions", "/v1/audio/transcriptions", "invoke", body=Body.MULTIPART),
    _by_body("translations", "/v1/audio/translations", "invoke", body=Body.MULTIPART),
)
_TOKENIZES = tuple(
    _by_body(name, path, "tokenize")
    for name, path in (
        ("tokenize", "/tokenize"),
        ("detokenize", "/detokenize"),
        ("count_tokens", "/v1/messages/count_tokens"),
        ("chat_render", "/v1/chat/completions/render"),
        ("completions_render", "/v1/completions/render"),
        ("messages_render", "/v1/messages/render"),
        ("responses_render", "/v1/responses/render"),
        ("cohere_render", "/cohere/v2/chat/render"),
        ("chat_derender", "/v1/chat/completions/derender"),
        ("completions_derender", "/v1/completions/derender"),
    )
)
_MANAGES = (
    *(_by_path(f"{verb}_adapter", "POST", f"/v1/{verb}_lora_adapter", "load_adapter") for verb in ("load", "unload")),
    _by_path("sagemaker_load_adapter", "POST", "/adapters", "load_adapter"),
    _by_path("sagemaker_unload_adapter", "DELETE", "/adapters/{id}", "load_adapter"),
    *(
        _by_path(name, "POST", f"/{name}", "update_weights")
        for name in (
            *(
                "update_weights",
                "init_weight_transfer_engine",
                "shutdown_weight_transfer_engine",
                "start_weight_update",
            ),
            *("start_draft_weight_update", "finish_weight_update", "update_weight_version", "weight_checker"),
        )
    ),
    *(
        _by_path(name, "POST", f"/{name}", "manage")
        for name in (
            *("pause", "resume", "sleep", "wake_up", "scale_elastic_ep", "abort_requests"),
            *("reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache", "start_profile", "stop_profile"),
            *("release_kv_cache_memory", "is_scaling_elastic_ep"),
        )
    ),
    _by_path("abort_generate", "POST", "/inference/v1/abort_requests", "manage"),
    _by_path("apply_fault_tolerance", "POST", "/fault_tolerance/apply", "manage"),
    *(_by_path(name, "GET", f"/{name}", "manage") for name in ("is_paused", "is_sleeping")),
)
_OBSERVES = (
    *(
        _by_path(name, "GET", f"/{name}", "observe")
        for name in ("version", "load", "server_info", "get_world_size", "info", "kv_event_sources", "weight_info")
    ),
    _by_path("fault_tolerance", "GET", "/fault_tolerance/status", "observe"),
    _by_path("tokenizer_info", "GET", "/tokenizer_info", "tokenize"),
    _by_path("openapi", "GET", "/openapi.json", "read_metadata"),
    _by_path("server_metrics", "GET", "/metrics", "observe"),
    *(_by_path(f"probe_{name}", "GET", f"/{name}", "read_metadata") for name in ("health", "livez", "ping")),
    _by_path("probe_ping_post", "POST", "/ping", "read_metadata"),
)
_LISTS = (replace(_by_path("models", "GET", "/v1/models", "list", Scope.LIST), placement=Placement.EXT_PROC),)
_STORED = (
    _by_path("response", "GET", "/v1/responses/{m}", "read_result", Scope.RESULT),
    _by_path("cancel", "POST", "/v1/responses/{m}/cancel", "cancel", Scope.RESULT),
)
_NEVER = (
    _by_path("collective_rpc", "POST", "/collective_rpc", "manage", Scope.NEVER),
    # FastAPI's pages for people work without their caller's token only.
    _by_path("pages", "GET", "/docs[/oauth2-redirect]", "read_metadata", Scope.NEVER),
    _by_path("redoc", "GET", "/redoc", "read_metadata", Scope.NEVER),
    _by_path("page_parts", "GET", "/static/{rest}", "read_metadata", Scope.NEVER),
)
_REALTIME = Row(
    name="openai.realtime",
    method=WEBSOCKET,
    path="/v1/realtime",
    action="endpoint.invoke",
    scope=Scope.BODY,
    placement=Placement.ASGI,
    body=Body.MESSAGES,
    dialect=Dialect.OPENAI,
    stream=True,
)

ROWS: tuple[Row, ...] = (
    *_GENERATES,
    *_COMPUTES,
    *_TOKENIZES,
    *_MANAGES,
    *_OBSERVES,
    *_LISTS,
    *_STORED,
    *_NEVER,
    _REALTIME,
)

TGI: tuple[Row, ...] = tuple(
    Row(
        name=f"tgi.{name}",
        method="POST",
        path=f"/{name}",
        action="endpoint.invoke",
        scope=Scope.SERVER,
        placement=Placement.EXT_PROC,
        dialect=Dialect.OPENAI,
        stream=True,
    )
    for name in ("generate", "generate_stream")
)
"""TGI serves one model and its own routes name none: they ask about the server as a whole."""

# Whether one model is ready. A name with a slash, which language models have, cannot stand in a path; the list tells as much.
_HEALTH = _by_path("model", "GET", "/v1/models/{id}", "read_metadata", Scope.NEVER)
_OF_KSERVE = frozenset(
    f"/v1/{one}" for one in ("chat/completions", "completions", "embeddings", "rerank", "models", "models/{id}")
)
KSERVE: tuple[Row, ...] = tuple(
    replace(row, name=f"kserve_{row.name}", path=f"/openai{row.path}")
    for row in (*_GENERATES, *_COMPUTES, *_LISTS, _HEALTH)
    if row.path in _OF_KSERVE
)
"""KServe serves these rows below `/openai`."""

GATEWAY: tuple[Row, ...] = (
    Row(
        name="gateway.invocations",
        method="POST",
        path="/gateway/{m}/mlflow/invocations",
        action="endpoint.invoke",
        placement=Placement.EXT_PROC,
        body=Body.JSON,
        dialect=Dialect.OPENAI,
        stream=True,
        limit="max_tokens",
    ),
    *(
        replace(_by_body(name, path, "invoke", limit), name=f"gateway.{name}")
        for name, path, limit in (
            ("chat", "/gateway/mlflow/v1/chat/completions", "max_tokens"),
            ("openai_chat", "/gateway/openai/v1/chat/completions", "max_completion_tokens"),
            ("openai_embeddings", "/gateway/openai/v1/embeddings", NO_TOKENS),
            ("openai_responses", "/gateway/openai/v1/responses", "max_output_tokens"),
            ("anthropic_messages", "/gateway/anthropic/v1/messages", "max_tokens"),
        )
    ),
    *(
        Row(
            name=f"gateway.gemini_{verb}",
            method="POST",
            path=f"/gateway/gemini/v1beta/models/{{m}}:{verb}",
            action="endpoint.invoke",
            placement=Placement.EXT_PROC,
            stream=True,
        )
        for verb in ("generateContent", "streamGenerateContent")
    ),
)
"""The MLflow AI gateway."""
