"""Spans of each request, which Envoy itself makes and sends to an OpenTelemetry collector: the caller's trace goes on through it.

A span covers the request, one below it the question to the agent, one the model server, which gets the trace in `traceparent`.
The decision id is a tag, so that a trace leads to the record of its decision. Neither names nor bodies are in it, and the path is
cut: whoever may read traces need not be who may read the decision log.

Source: Envoy API v3, `envoy.config.trace.v3.OpenTelemetryConfig`; W3C Trace Context.
"""

from sidecar.envoy_names import Address, Json, seconds, type_url
from sidecar.limits import LIMITS

TRACES = "traces"


def tracing(collector: Address) -> Json:
    """Return the connection manager's `tracing`: every request, unless its caller's trace is not sampled."""
    config: Json = {
        "@type": type_url(".config.trace.v3.OpenTelemetryConfig"),
        "service_name": "portcullis-gate",
        "http_service": {
            "http_uri": {
                "uri": f"http://{collector.host}:{collector.port}/v1/traces",
                "cluster": TRACES,
                "timeout": seconds(LIMITS.connect_s),
            }
        },
    }
    return {
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": config},
        "max_path_tag_length": LIMITS.traced_path_bytes,
        "spawn_upstream_span": True,
        "custom_tags": [{"tag": "pdp.decision_id", "request_header": {"name": "x-pdp-decision-id"}}],
    }
