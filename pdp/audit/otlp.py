"""Records of the decision log as OpenTelemetry log records, in OTLP's JSON encoding.

The body is the record's text as its chain holds it (masked, where a sink masks); what people filter by stands in attributes too.
Source: OTLP 1.x, `opentelemetry/proto/collector/logs/v1/logs_service.proto`, JSON mapping.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_INFO: Final = (9, "INFO")
_WARN: Final = (13, "WARN")
_SCOPE: Final = "portcullis.audit"
_SHOWN: Final = ("decision_id", "effect", "reason", "principal", "action", "resource", "event")
"""Fields of a record that are attributes, too; `world_seq` and `n` as numbers."""


def logs_request(records: Sequence[tuple[str, Mapping[str, Any]]], service: Mapping[str, str]) -> bytes:
    """Return the body of an ExportLogsServiceRequest that holds (chain, record) pairs; `service` says who sends."""
    scope = {"scope": {"name": _SCOPE}, "logRecords": [_log_record(chain, record) for chain, record in records]}
    resource = {"attributes": [_text(name, value) for name, value in service.items()]}
    return json.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]}).encode()


def rejected(answer: bytes) -> int:
    """Return how many records an answer says were refused for good.

    Raises:
        ValueError: it is no ExportLogsServiceResponse.
    """
    told = json.loads(answer or b"{}")
    partial = told.get("partialSuccess") if isinstance(told, dict) else None
    if isinstance(told, dict) and isinstance(partial, dict | None):
        return int((partial or {}).get("rejectedLogRecords", 0))
    raise ValueError("not an answer of a collector")


def _log_record(chain: str, record: Mapping[str, Any]) -> dict[str, Any]:
    number, text = _WARN if record.get("effect") == "deny" else _INFO
    return {
        "timeUnixNano": f"{record.get('time_ms', 0)}000000",
        "severityNumber": number,
        "severityText": text,
        "eventName": f"portcullis.{record.get('kind', 'record')}",
        "body": {"stringValue": json.dumps(record, sort_keys=True, separators=(",", ":"))},
        "attributes": list(_attributes(chain, record)),
    }


def _attributes(chain: str, record: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    yield _text("portcullis.chain", chain)
    for name in ("n", "world_seq"):
        if type(record.get(name)) is int:
            yield {"key": f"portcullis.{name}", "value": {"intValue": str(record[name])}}
    for name in _SHOWN:
        if record.get(name):
            yield _text(f"portcullis.{name}", str(record[name]))


def _text(name: str, value: str) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": value}}
