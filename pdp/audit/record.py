"""What an audit record holds: everything that replays the decision, and never a token or a payload.

A record is a flat mapping of JSON values. `chain.seal` adds its number, the digest of its predecessor and its own. Whoever
reads a chain may rely on the fields of `DecisionRecord` being present in every decision, empty where they do not apply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final

from pdp.audit.chain import Drafted
from pdp.errors import Reason
from pdp.limits import AUDIT_PART_ENTRIES, MAX_AUDIT_FIELD_BYTES
from pdp.model import canonical
from pdp.model.attributes import Attributes, Value
from pdp.model.decision import Decision, Effect, Obligation, Settled
from pdp.model.names import Principal, Resource
from pdp.model.request import NO_FACTS, CredentialFacts, Party, Question

VERSION: Final = 1
_EFFECTS: Final = {Effect.ALLOW: '"allow"', Effect.DENY: '"deny"'}
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
    "candidate": "",
    "trace": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What the decisions of one call share.

    `now_ms` is the time that conditions read, `staleness_ms` the age of the world, `clock_off` that roles with a start or an
    end did not count, `caller` who asked: the subject itself, or an enforcement point. `time_ms` is when it was recorded,
    `trace` the id of the caller's trace.
    """

    now_ms: int
    staleness_ms: int
    clock_off: bool
    door: str
    caller: str
    time_ms: int
    trace: str = ""
    pieces: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    """Its fields as records show them, in the order of their names: written once for a call."""

    def __post_init__(self) -> None:
        pieces = (
            *_standing(self.caller, self.clock_off, self.door),
            b',"now_ms":%d' % self.now_ms,
            b'"staleness_ms":%d' % self.staleness_ms,
            b'"time_ms":%d,"trace":%b,"v":%d' % (self.time_ms, _quoted(self.trace).encode("ascii"), VERSION),
        )
        object.__setattr__(self, "pieces", pieces)


class DecisionRecord(Drafted):
    """The record of one decision; `digest` is the content digest that the inventory holds for the resource.

    Its text is put together from parts of which most were written before: the parts' caches are keyed by the whole value
    that a part shows, so that there is nothing to invalidate. What is said of a settled decision lies with it.
    """

    __slots__ = ("_around", "_id", "_of")

    def __init__(
        self,
        *,
        decision_id: str,
        decision: Decision,
        question: Question,
        digest: str,
        around: Circumstances,
        settled: Settled | None = None,
    ) -> None:
        """Prepare; `settled` holds `decision`, if that is what `question` was settled to in the world that decided."""
        if settled is not None and settled.text is None:
            settled.text = _said(question, decision, digest)
        self._id = decision_id
        self._around = around
        self._of = settled or (question, decision, digest)

    def draft(self, n: int, prev: str) -> tuple[bytes, bytes]:
        """Return the canonical text, before and behind its digest: every field, in the order of their names."""
        of = self._of
        said = _said(*of) if isinstance(of, tuple) else of.text
        action, candidate, credential, detail, effect, obligations, principal, supports, version = said
        caller, clock, door, now, age, time = self._around.pieces
        own = _quoted(self._id).encode("ascii")
        before = b"".join((action, caller, candidate, clock, credential, own, detail))
        number, last = b"%d" % n, prev.encode("ascii")
        return before, b"".join((door, effect, number, now, obligations, last, principal, age, supports, time, version))


@lru_cache(maxsize=AUDIT_PART_ENTRIES)
def _standing(caller: str, clock_off: bool, door: str) -> tuple[bytes, ...]:  # noqa: FBT001 - a key of the cache
    """Return those fields of circumstances that most calls of a caller have in common."""
    return _ascii(
        f'"caller":{_line(caller)}', f'"clock_off":{"true" if clock_off else "false"}', f'","door":{_quoted(door)}'
    )


def _said(asked: Question, made: Decision, digest: str) -> tuple[bytes, ...]:
    """Return what a record says of question and decision, in pieces between which stands what each record has of its own."""
    subject, resource = asked.subject, asked.resource
    return _ascii(
        f'{{"action":{_quoted(asked.action.text)},"actors":{_actors(asked.actors)},"attributes":{_attributes(asked.attributes)},',
        f',"candidate":"{made.candidate}","claims":{_attributes(asked.claims)},',
        f',"credential":{_credential(asked.credential)},"decision_id":',
        f',"detail":{_line(made.detail)},"determining":{_list(made.determining)},"digest":"',
        f',"effect":{_EFFECTS[made.effect]},"groups":{_set(subject.groups)},"kind":"decision","n":',
        f',"obligations":{_obligations(made.obligations)},"prev":"',
        f'","principal":{_quoted(subject.principal.text)},"reason":"{made.reason}","resource":{_quoted(resource.text)}'
        f',"resource_digest":{_quoted(digest)},"serves":{_name(asked.serves)},',
        f',"supports":{_set(asked.supports)},',
        f',"version":{_quoted(resource.version)},"workload":{_name(asked.workload)},"world_seq":{made.world_seq}}}',
    )


def _ascii(*texts: str) -> tuple[bytes, ...]:
    return tuple([text.encode("ascii") for text in texts])


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
    trace: str = "",
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
        "trace": trace,
        "door": door,
    }


def stream_record(
    *, decision_id: str, event: str, world_seq: int, time_ms: int, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record of a change in a running access: cut or ended. What opened it is the decision's own record."""
    extra = {name: _plain(value) for name, value in fields.items()}
    return extra | {
        "v": VERSION,
        "kind": "stream",
        "time_ms": time_ms,
        "event": event,
        "decision_id": decision_id,
        "world_seq": world_seq,
    }


def opened_record(
    *,
    chain: str,
    reason: str,
    time_ms: int,
    who: Mapping[str, Any],
    key: str = "",
    tree: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Return a segment's first record: who writes, why it starts (`start`, `size`, `failure`, `broken`, `reserve`).

    `key` is what signs the checkpoints of this chain, `tree` the frontier of all records before (`merkle.spelled`).
    """
    extra = {name: _plain(value) for name, value in who.items()}
    if key:
        extra["key"] = key
    if tree is not None:
        extra["tree"] = tree
    return extra | {"v": VERSION, "kind": "open", "time_ms": time_ms, "chain": chain, "reason": reason}


def checkpoint_record(*, time_ms: int, size: int, root: str, note: str) -> dict[str, Any]:
    """Return the record of a signed checkpoint over the `size` records before it."""
    return {"v": VERSION, "kind": "checkpoint", "time_ms": time_ms, "size": size, "root": root, "note": note}


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


# --- parts of a record's text ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=AUDIT_PART_ENTRIES)
def _line(text: str) -> str:
    return _quoted(one_line(text)) if text else '""'


def _name(name: Principal | Resource | None) -> str:
    return '""' if name is None else _quoted(name.text)


@lru_cache(maxsize=AUDIT_PART_ENTRIES)
def _list(items: tuple[str, ...]) -> str:
    return _text(list(items))


@lru_cache(maxsize=AUDIT_PART_ENTRIES)
def _set(items: frozenset[str] | None) -> str:
    return "null" if items is None else _text(sorted(items))


@lru_cache(maxsize=AUDIT_PART_ENTRIES)
def _obligations(obligations: tuple[Obligation, ...]) -> str:
    return _text([str(obligation) for obligation in obligations])


def _actors(actors: tuple[Party, ...]) -> str:
    if not actors:
        return "[]"
    return _text([{"principal": str(actor.principal), "groups": sorted(actor.groups)} for actor in actors])


def _attributes(attributes: Attributes) -> str:
    """Return the admitted attributes, or their digest where they would not fit a record (ARCHITECTURE.md section 7)."""
    if not attributes:
        return "{}"
    fields = [f"{_quoted(name)}:{_value(attributes[name])}" for name in sorted(attributes)]
    text = f"{{{','.join(fields)}}}"
    if len(text) <= MAX_AUDIT_FIELD_BYTES:
        return text
    return _text({"sha256": canonical.digest("portcullis audit attributes", text.encode("ascii")).hex()})


def _value(value: Value) -> str:
    if type(value) is str:
        return _quoted(value)
    if type(value) is bool:
        return "true" if value else "false"
    return _text(list(value) if isinstance(value, tuple) else value)


def _credential(facts: CredentialFacts) -> str:
    """Return what names the credential: never the credential."""
    return "{}" if facts is NO_FACTS else _facts(facts)


@lru_cache(maxsize=AUDIT_PART_ENTRIES)
def _facts(facts: CredentialFacts) -> str:
    return _text({name: value for name in _FACTS if (value := getattr(facts, name))})


def _text(value: Any) -> str:
    return canonical.dumps_trusted(value).decode("ascii")


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
