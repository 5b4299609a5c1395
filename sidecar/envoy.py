"""The Envoy configuration we generate: every setting that keeps the gate closed, written in one place.

One listener, two filters, one router. Each route is decided by exactly one of the filters: `ext_authz` (HTTP service
over a Unix socket) where the path decides, `ext_proc` (gRPC over a Unix socket) where the response must be re-checked
while it runs. A last `/` route stays under `ext_authz`, so that an unmapped path is denied by the agent and recorded.

Statements about Envoy hold for 1.40; `tests/e2e/test_sidecar_*.py` hold them.

Source: ENFORCEMENT.md 2.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from sidecar.envoy_log import refusals_log
from sidecar.envoy_names import (
    AGENT_GRPC,
    AGENT_HTTP,
    EXT_AUTHZ,
    EXT_PROC,
    UPSTREAM,
    UPSTREAM_GRPC,
    Address,
    EnvoyConfigError,
    Json,
    pipe_address,
    seconds,
    socket_address,
    type_url,
)
from sidecar.envoy_routes import routes_of
from sidecar.envoy_traces import TRACES, tracing
from sidecar.limits import LIMITS
from sidecar.routes import Row

ASK_HEADERS = ("pdp-ask-purpose", "pdp-ask-run", "pdp-ask-ticket")
"""What a caller may assert about its own request; anything it asserts about itself is not read."""

CERTIFICATE_HEADER = "x-forwarded-client-cert"
"""The peer's certificate, as Envoy set it itself (SANITIZE_SET drops a client's own)."""

QUESTION_HEADERS = ("dpop", "x-request-id", "traceparent", CERTIFICATE_HEADER, *ASK_HEADERS)
"""The request headers that ext_authz hands to the agent, besides `authorization`. INVARIANT: never an `x-pdp-*`."""

GIVEN_HEADERS = ("x-pdp-decision-id", "x-pdp-subject", "x-pdp-world-seq")
"""What the model is told about the decision. INVARIANT: ours alone; a client's copy never passes."""

# Filled in by Envoy from the route it chose and the connection it terminated; a client cannot write them (EX-16, EX-18).
# One filter-wide service with `%ROUTE_NAME%`, not one per route: Envoy 1.40 builds a per-route service anew for every
# request, which cost about a seventh of the throughput.
_FACTS = {
    "x-pdp-route": "%ROUTE_NAME%",
    "x-pdp-source": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
}

# Removed before any filter or route reads them. The overrides make a server see another request than the one decided:
# frameworks know the path by two names and the method by three, and what speaks to SageMaker (vLLM's `/invocations`) takes
# another adapter or session from its headers than the body names.
SAGEMAKER_PREFIX = "x-amzn-sagemaker-"
_STRIPPED_PREFIXES = ("x-pdp-", "x-envoy-", "x-forwarded-", SAGEMAKER_PREFIX)
METHOD_AND_PATH_OVERRIDES = (
    "x-original-url",
    "x-rewrite-url",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
)
_STRIPPED = ("forwarded", "x-real-ip", *METHOD_AND_PATH_OVERRIDES)
_ATTRIBUTES = (
    "source.address",
    "connection.mtls",
    "connection.uri_san_peer_certificate",
    "connection.sha256_peer_certificate_digest",
    "request.id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerTls:
    """The listener's certificate, and whose client certificates it believes.

    Attributes:
        certificate: PEM chain.
        key: PEM private key.
        client_ca: PEM bundle that client certificates must chain to; None: only the token identifies.
        client_certificate_required: Refuse the handshake without a client certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_certificate_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The model server: a TCP address (`tls`: by TLS, verified against `ca`) or a Unix socket (`pipe`)."""

    address: Address | None = None
    pipe: Path | None = None
    tls: bool = False
    ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFiles:
    """Where Envoy reads its secrets; a file renamed into place is taken up at once."""

    certificate: Path
    client_ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """The Unix sockets of one sidecar, all in one directory of mode 0700."""

    directory: Path

    @property
    def http(self) -> Path:
        """Where the agent answers ext_authz questions."""
        return self.directory / "authz.sock"

    @property
    def grpc(self) -> Path:
        """Where the agent answers ext_proc streams and gRPC checks."""
        return self.directory / "proc.sock"

    @property
    def secrets(self) -> "SecretFiles":
        """Where Envoy reads the listener's certificate and the callers' CA."""
        return SecretFiles(
            certificate=self.directory / "listener.secret.json", client_ca=self.directory / "callers.secret.json"
        )

    @property
    def admin(self) -> Path:
        """Where Envoy answers its administration."""
        return self.directory / "admin.sock"

    def __post_init__(self) -> None:
        """Refuse a path that no socket address can hold."""
        size = len(bytes(self.admin)) + 1
        if size > LIMITS.unix_path_bytes:
            raise EnvoyConfigError(
                f"the state directory `{self.directory}` is too long for a Unix socket: choose a shorter one"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoySettings:
    """Everything the generator needs.

    Attributes:
        listen: Where clients connect.
        upstream: The model server.
        upstream_grpc: Its gRPC port; None: the same address, over HTTP/2.
        sockets: The agent's and Envoy's Unix sockets.
        rows: The routes, in the order they are matched.
        tls: The listener's certificate; None: plain HTTP (a mesh, or a loopback demo).
        forward_credentials: Leave `authorization` and `dpop` on the request for the model server.
        traces: An OpenTelemetry collector (OTLP over HTTP); None: Envoy makes no spans.
    """

    listen: Address
    upstream: Upstream
    sockets: Sockets
    rows: tuple[Row, ...]
    upstream_grpc: Upstream | None = None
    tls: ListenerTls | None = None
    forward_credentials: bool = False
    traces: Address | None = None


def bootstrap(settings: EnvoySettings) -> Json:
    """Return Envoy's whole configuration.

    Raises:
        EnvoyConfigError: A route would pass with no filter deciding it.
    """
    config: Json = {
        "node": {"id": "portcullis", "cluster": "portcullis"},
        "admin": {"address": pipe_address(settings.sockets.admin), "ignore_global_conn_limit": True},
        "overload_manager": _overload(),
        "static_resources": {
            "listeners": [_listener(settings)],
            "clusters": [
                cluster(AGENT_HTTP, pipe_address(settings.sockets.http)),
                cluster(AGENT_GRPC, pipe_address(settings.sockets.grpc), h2=True),
                *upstreams(settings),
                *_collector(settings.traces),
            ],
        },
    }
    return config


def rendered(settings: EnvoySettings) -> str:
    """Return the configuration as the text that Envoy reads."""
    return json.dumps(bootstrap(settings), indent=1, sort_keys=True)


def _overload() -> Json:
    name = "envoy.resource_monitors.global_downstream_max_connections"
    kind = ".extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    monitor = {"@type": type_url(kind), "max_active_downstream_connections": LIMITS.downstream_connections}
    return {"resource_monitors": [{"name": name, "typed_config": monitor}]}


# -- clusters --------------------------------------------------------------------------------------------------------


def cluster(name: str, address: Json, *, h2: bool = False, kind: str = "STATIC") -> Json:
    """Return a cluster of one address."""
    protocol: Json = {"http2_protocol_options": {}} if h2 else {"http_protocol_options": {}}
    options: Json = {
        "@type": type_url(".extensions.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": protocol,
    }
    return {
        "name": name,
        "type": kind,
        "connect_timeout": seconds(LIMITS.connect_s),
        "per_connection_buffer_limit_bytes": LIMITS.body_bytes,
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def upstreams(settings: EnvoySettings) -> list[Json]:
    """Return the model server's clusters: one for HTTP, and one over HTTP/2 where a row speaks gRPC."""
    found = [upstream_cluster(UPSTREAM, settings.upstream)]
    if any(row.grpc for row in settings.rows):
        found.append(upstream_cluster(UPSTREAM_GRPC, settings.upstream_grpc or settings.upstream, h2=True))
    return found


def _collector(address: Address | None) -> list[Json]:
    return [cluster(TRACES, socket_address(address), kind="STRICT_DNS")] if address is not None else []


def upstream_cluster(name: str, upstream: Upstream, *, h2: bool = False) -> Json:
    """Return the cluster of a model server, wherever it listens."""
    if upstream.pipe is not None:
        return cluster(name, pipe_address(upstream.pipe), h2=h2)
    if upstream.address is None:
        raise EnvoyConfigError("the upstream needs an address or a Unix socket")
    made = cluster(name, socket_address(upstream.address), kind="STRICT_DNS", h2=h2)
    if upstream.tls:
        made["transport_socket"] = _upstream_tls(upstream.address.host, upstream.ca)
    return made


def _upstream_tls(host: str, ca: Path | None) -> Json:
    if ca is None:
        raise EnvoyConfigError("an https upstream needs the CA that its certificate chains to")
    name = {"san_type": "IP_ADDRESS" if _is_ip(host) else "DNS", "matcher": {"exact": host}}
    validation = {"trusted_ca": {"filename": str(ca)}, "match_typed_subject_alt_names": [name]}
    context: Json = {
        "@type": type_url(".extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "common_tls_context": {"validation_context": validation},
    }
    if not _is_ip(host):
        context["sni"] = host
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _is_ip(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


# -- listener --------------------------------------------------------------------------------------------------------


def _listener(settings: EnvoySettings) -> Json:
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": _manager(settings)}
    chain: Json = {"filters": [manager]}
    if settings.tls is not None:
        chain["transport_socket"] = _listener_tls(settings.tls, settings.sockets.secrets)
    return {
        "name": "clients",
        "address": socket_address(settings.listen),
        "per_connection_buffer_limit_bytes": LIMITS.body_bytes,
        "filter_chains": [chain],
    }


def _listener_tls(tls: ListenerTls, files: SecretFiles) -> Json:
    common: Json = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2", "http/1.1"],
        # By secret files that `rotation` keeps: a certificate is replaced without dropping a connection.
        "tls_certificate_sds_secret_configs": [_sds("listener", files.certificate)],
    }
    if tls.client_ca is not None:
        common["validation_context_sds_secret_config"] = _sds("callers", files.client_ca)
    elif tls.client_certificate_required:
        raise EnvoyConfigError("a required client certificate needs the CA that it chains to")
    context = {
        "@type": type_url(".extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": tls.client_certificate_required,
        "common_tls_context": common,
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _sds(name: str, path: Path) -> Json:
    return {"name": name, "sds_config": {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}}


def _manager(settings: EnvoySettings) -> Json:
    router = {"@type": type_url(".extensions.filters.http.router.v3.Router")}
    return {
        "@type": type_url(".extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "clients",
        **hardening(),
        "access_log": [refusals_log(AGENT_GRPC)],
        **({"tracing": tracing(settings.traces)} if settings.traces is not None else {}),
        "http_filters": [
            {"name": EXT_AUTHZ, "typed_config": _ext_authz()},
            {"name": EXT_PROC, "typed_config": ext_proc(AGENT_GRPC)},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
        "route_config": {
            "name": "rows",
            "virtual_hosts": [{"name": "model", "domains": ["*"], "routes": routes_of(settings.rows)}],
            "request_headers_to_remove": _not_for_the_model(forward_credentials=settings.forward_credentials),
        },
    }


def hardening() -> Json:
    """Return the connection manager's settings without which a gate can be walked around (EX-3, EX-7, EX-8)."""
    return {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "use_remote_address": True,
        "forward_client_cert_details": "SANITIZE_SET",
        # The whole certificate, because XC-1 (one URI SAN, not a CA, key usage) is ours to check: Envoy 1.40's SPIFFE
        # validator accepts two URI SANs, and refuses every client without a certificate.
        "set_current_client_cert_details": {"cert": True, "chain": True, "uri": True},
        "preserve_external_request_id": False,
        "common_http_protocol_options": {
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": LIMITS.headers_count,
        },
        "http2_protocol_options": {"max_concurrent_streams": LIMITS.concurrent_streams},
        "request_headers_timeout": seconds(LIMITS.request_headers_s),
        "stream_idle_timeout": seconds(LIMITS.stream_idle_s),
        "delayed_close_timeout": seconds(LIMITS.delayed_close_s),
        "early_header_mutation_extensions": [_strip_client_copies()],
    }


def _strip_client_copies() -> Json:
    """Drop the headers only we or Envoy may write, in the client's copy, before any filter or route reads one (EX-6, N6)."""
    kind = ".extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    removals = [
        *({"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in _STRIPPED_PREFIXES),
        *({"remove": name} for name in _STRIPPED),
    ]
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {"@type": type_url(kind), "mutations": removals},
    }


def _not_for_the_model(*, forward_credentials: bool) -> list[str]:
    credentials = [] if forward_credentials else ["authorization", "dpop"]
    return [*credentials, CERTIFICATE_HEADER]


# -- filters ---------------------------------------------------------------------------------------------------------


def _ext_authz() -> Json:
    return {
        "@type": type_url(".extensions.filters.http.ext_authz.v3.ExtAuthz"),
        "http_service": _http_service(),
        "allowed_headers": {"patterns": [{"exact": name} for name in QUESTION_HEADERS]},
        **ext_authz_rules(),
    }


def ext_authz_rules() -> Json:
    """Return what holds for ext_authz over HTTP and gRPC alike."""
    return {
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
        "encode_raw_headers": True,
        "include_peer_certificate": True,
        "validate_mutations": True,
        "enforce_response_header_limits": True,
        "decoder_header_mutation_rules": {"disallow_system": True, "disallow_is_error": True},
    }


def _http_service() -> Json:
    return {
        "server_uri": {
            "uri": "http://agent",
            "cluster": AGENT_HTTP,
            "timeout": seconds(LIMITS.filter_timeout_s),
        },
        "authorization_request": {"headers_to_add": [{"key": key, "value": value} for key, value in _FACTS.items()]},
        "authorization_response": {
            "allowed_upstream_headers": {"patterns": [{"prefix": "x-pdp-"}]},
            "allowed_client_headers": {
                "patterns": [
                    {"exact": name} for name in ("content-type", "retry-after", "www-authenticate", "dpop-nonce")
                ]
            },
        },
    }


def ext_proc(agent: str) -> Json:
    """Return the ext_proc filter that asks the cluster `agent`."""
    return {
        "@type": type_url(".extensions.filters.http.ext_proc.v3.ExternalProcessor"),
        "grpc_service": {"envoy_grpc": {"cluster_name": agent}},
        "failure_mode_allow": False,
        "allow_mode_override": True,
        "message_timeout": seconds(LIMITS.filter_timeout_s),
        "max_message_timeout": seconds(LIMITS.filter_timeout_max_s),
        "status_on_error": {"code": "ServiceUnavailable"},
        "route_cache_action": "RETAIN",
        "mutation_rules": {
            "disallow_all": True,
            # The rules hold for our refusals, too: the last three are what a refused client is told beside its status.
            "allow_expression": {
                "regex": "(:path|content-length|authorization|dpop|x-pdp-.*|content-type|retry-after|www-authenticate|dpop-nonce)"
            },
            "disallow_is_error": True,
        },
        "request_attributes": list(_ATTRIBUTES),
        # Asleep unless a route wakes it: Envoy's own replies before routing (400 for `%2F`) would open a stream too.
        "processing_mode": {
            **dict.fromkeys(("request_header_mode", "response_header_mode"), "SKIP"),
            **dict.fromkeys(("request_trailer_mode", "response_trailer_mode"), "SKIP"),
            **dict.fromkeys(("request_body_mode", "response_body_mode"), "NONE"),
        },
    }
