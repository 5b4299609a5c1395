"""What an audit record holds: everything that replays the decision, and never a token or a payload.

A record is a flat mapping of JSON values. `chain.seal` adds its number, the digest of its predecessor and its own. Whoever
reads a chain may rely on the fields of `decision_record` being present in every decision, empty where they do not apply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from pdp.errors import Reason
from pdp.limits import MAX_AUDIT_FIELD_BYTES
from pdp.model import canonical
from pdp.model.attributes import Attributes
from pdp.model.decision import Decision, Effect
from pdp.model.request import CredentialFacts, Party, Question

VERSION: Final = 1
_SCALARS: Final = (bool, int, float, str)
_FACTS: Final = tuple(fact.name for fact in fields(CredentialFacts))
"""Each of them: a lock can match it, so a record without it would not replay its decision."""
_NO_QUESTION: Final[dict[str, Any]] = {
    "v": VERSION,
    "kind": "decision",
    "staleness_ms": 0,
    "clock_off": False,
    "principal": "",
    "groups": [],
    "actors": [],
    "workload": "",
    "version": "",
    "resource_digest": "",
    "serves": "",
    "attributes": {},
    "claims": {},
    "credential": {},
    "supports": None,
    "effect": "deny",
    "determining": [],
    "obligations": [],
}


def decision_record(
    *,
    decision_id: str,
    decision: Decision,
    question: Question,
    digest: str,
    now_ms: int,
    staleness_ms: int,
    clock_off: bool,
    door: str,
    caller: str,
    time_ms: int,
) -> dict[str, Any]:
    """Return the record of one decision.

    `digest` is the content digest that the inventory holds for the resource, `now_ms` the time that conditions read,
    `staleness_ms` the age of the world, `clock_off` that roles with a start or an end did not count, `caller` who asked:
    the subject itself, or an enforcement point.
    """
    resource = question.resource
    return {
        "v": VERSION,
        "kind": "decision",
        "time_ms": time_ms,
        "now_ms": now_ms,
        "staleness_ms": staleness_ms,
        "clock_off": clock_off,
        "decision_id": decision_id,
        "world_seq": decision.world_seq,
        "principal": str(question.subject.principal),
        "groups": _groups(question.subject.groups),
        "actors": [_actor(actor) for actor in question.actors],
        "workload": "" if question.workload is None else str(question.workload),
        "action": str(question.action),
        "resource": str(resource),
        "version": resource.version,
        "resource_digest": digest,
        "serves": "" if question.serves is None else str(question.serves),
        "attributes": _attributes(question.attributes),
        "claims": _attributes(question.claims),
        "credential": _credential(question.credential),
        "supports": None if question.supports is None else sorted(question.supports),
        "effect": _effect(decision.effect),
        "reason": decision.reason.value,
        "determining": list(decision.determining),
        "obligations": [str(obligation) for obligation in decision.obligations],
        "detail": one_line(decision.detail),
        "caller": one_line(caller),
        "door": door,
    }


def refusal_record(
    *,
    decision_id: str,
    reason: Reason,
    detail: str,
    door: str,
    action: str,
    resource: str,
    caller: str,
    world_seq: int,
    time_ms: int,
) -> dict[str, Any]:
    """Return the record of a refusal that came before there was a question: a bad credential, an unmapped route."""
    return _NO_QUESTION | {
        "time_ms": time_ms,
        "now_ms": time_ms,
        "decision_id": decision_id,
        "world_seq": world_seq,
        "action": one_line(action),
        "resource": one_line(resource),
        "reason": reason.value,
        "detail": one_line(detail),
        "caller": one_line(caller),
        "door": door,
    }


def stream_record(
    *, decision_id: str, event: str, world_seq: int, time_ms: int, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record of a change in a running access: opened, re-decided, cut, ended."""
    extra = {name: _plain(value) for name, value in fields.items()}
    return extra | {
        "v": VERSION,
        "kind": "stream",
        "time_ms": time_ms,
        "event": event,
        "decision_id": decision_id,
        "world_seq": world_seq,
    }


def opened_record(*, chain: str, reason: str, time_ms: int, who: Mapping[str, Any]) -> dict[str, Any]:
    """Return a segment's first record: who writes, why it starts (`start`, `size`, `failure`, `broken`, `reserve`)."""
    extra = {name: _plain(value) for name, value in who.items()}
    return extra | {"v": VERSION, "kind": "open", "time_ms": time_ms, "chain": chain, "reason": reason}


def cut_record(*, time_ms: int, size_bytes: int, cut_digest: str) -> dict[str, Any]:
    """Return the record of a torn tail that was cut at open, so that a cut never looks like silence (FAILURE.md S3)."""
    return {
        "v": VERSION,
        "kind": "cut_record",
        "time_ms": time_ms,
        "cut_bytes": size_bytes,
        "cut_digest": cut_digest,
    }


def lost_record(*, time_ms: int, count: int) -> dict[str, Any]:
    """Return the record that says how many refusals could not be written while the sink was down (FAILURE.md S1)."""
    return {"v": VERSION, "kind": "lost", "time_ms": time_ms, "count": count}


def one_line(text: str) -> str:
    """Return `text` with every unprintable character escaped: one record, one line (FAILURE.md N8)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _effect(effect: Effect) -> str:
    return "allow" if effect is Effect.ALLOW else "deny"


def _actor(party: Party) -> dict[str, Any]:
    return {"principal": str(party.principal), "groups": _groups(party.groups)}


def _groups(groups: frozenset[str]) -> list[str]:
    return sorted(groups) if groups else []


def _attributes(attributes: Attributes) -> dict[str, Any]:
    """Return the admitted attributes, or their digest where they would not fit a record (ARCHITECTURE.md section 7)."""
    if not attributes:
        return {}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in attributes.items()}
    encoded = canonical.dumps_trusted(plain)
    if len(encoded) <= MAX_AUDIT_FIELD_BYTES:
        return plain
    return {"sha256": canonical.digest("portcullis audit attributes", encoded).hex()}


def _credential(facts: CredentialFacts) -> dict[str, Any]:
    """Return what names the credential: never the credential."""
    return {name: value for name in _FACTS if (value := getattr(facts, name))}


def _plain(value: Any) -> Any:
    """Return a JSON value for whatever a caller wants to note."""
    if isinstance(value, str):
        return one_line(value)
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, Mapping):
        return {one_line(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence | frozenset | set) and not isinstance(value, bytes | bytearray):
        return [_plain(item) for item in value]
    return one_line(str(value))
