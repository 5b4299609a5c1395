"""A record of the decision log as one line for people."""

from collections.abc import Iterable, Mapping
from typing import Any

from pdp.cli.options import instant_text


def record_line(record: Mapping[str, Any]) -> str:
    """Return a record as one line for people: when, what, who, on what, and why."""
    return "  ".join(part for part in _parts(record) if part)


def _parts(record: Mapping[str, Any]) -> Iterable[str]:
    time_ms = record.get("time_ms", 0)
    yield instant_text(time_ms if isinstance(time_ms, int) else 0)
    kind = str(record.get("kind", ""))
    yield (
        str(record.get("effect", "")).upper()
        if kind == "decision"
        else f"[{kind} {record.get('event', '')}".rstrip() + "]"
    )
    for name in ("principal", "action", "resource", "reason"):
        yield str(record.get(name, ""))
    if record.get("determining"):
        yield "by " + ", ".join(map(str, record["determining"]))
    for name in ("world_seq", "candidate", "decision_id", "door", "chain", "count", "messages", "size_bytes", "bytes"):
        if record.get(name):
            yield f"{name}={record[name]}"
