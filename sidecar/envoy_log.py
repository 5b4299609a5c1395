"""Which of Envoy's answers it tells us by its access log: those that it gave without asking us.

Source: ENFORCEMENT.md EX-14, EX-17, EP-10; ADR 0019.
"""

from typing import Final

from sidecar.envoy_names import Json, seconds, type_url
from sidecar.limits import LIMITS

# A request that Envoy refuses before it has a route (a path or head that is none, CONNECT), as an upgrade that its route does
# not have, or because a filter could not ask the agent. Whatever else is refused the agent refused itself, and has recorded.
_UNASKED: Final = (
    "!has(xds.route_name) || response.code_details in ['upgrade_failed', 'ext_authz_error']"
    " || response.code_details.startsWith('ext_proc')"
)
_REFUSED = 400


def refusals_log(agent: str) -> Json:
    """Return the access log that sends Envoy's own refusals, and nothing else, to the cluster `agent`."""
    # The status first: a filter of two numbers, which an allowed request never gets past.
    least = {"default_value": _REFUSED, "runtime_key": "portcullis.refused"}
    refused = {"status_code_filter": {"comparison": {"op": "GE", "value": least}}}
    expression = {
        "@type": type_url(".extensions.access_loggers.filters.cel.v3.ExpressionFilter"),
        "expression": _UNASKED,
    }
    unasked = {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": expression}
    return {
        "name": "envoy.access_loggers.http_grpc",
        "filter": {"and_filter": {"filters": [refused, {"extension_filter": unasked}]}},
        "typed_config": {
            "@type": type_url(".extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig"),
            "common_config": {
                "log_name": "refusals",
                "grpc_service": {"envoy_grpc": {"cluster_name": agent}},
                "transport_api_version": "V3",
                "buffer_flush_interval": seconds(LIMITS.access_log_s),
            },
        },
    }
