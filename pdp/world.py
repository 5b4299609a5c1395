"""The world: everything that can change an answer, as one immutable value, and `fold`, which makes the next one.

The world is the fold of the signed log: policy revisions, assets, locks, and the proposals that wait, on which no answer
depends. `fold(world, entry)` copies only what the entry
touches and shares the rest; whoever holds the old world goes on reading it undisturbed. Nothing here reads a clock or does
I/O, and folding the same entries always gives the same world, digest for digest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from pdp.change.glass import Broken
from pdp.change.proposal import Proposal, ProposalSet, Verdict
from pdp.change.signoff import SignOff
from pdp.change.trial import NO_TRIALS, Trial, TrialSet
from pdp.engine.casbin_text import Row
from pdp.engine.compiler import Snapshot, compile_texts
from pdp.engine.delta import apply_delta, delta_of
from pdp.engine.findings import Finding
from pdp.errors import BadNameError, BadRequestError, PortcullisError, Reason
from pdp.inventory import BUILTIN_ASSETS, Asset, Retired, check_placement, full_names, held_asset, registrable
from pdp.limits import MAX_SAFE_INTEGER, SPELLED_ROWS
from pdp.model import canonical
from pdp.model.attributes import Attributes, AttributeType, check_value
from pdp.model.canonical import digest
from pdp.model.names import Resource
from pdp.signals.locks import Lock, LockSet
from pdp.trust.entry import EntryHeader, VerifiedEntry

_MALFORMED: Final = (BadNameError, BadRequestError, AttributeError, KeyError, TypeError, ValueError, RecursionError)
"""What a payload of another shape makes our own code raise: signed poison is refused, and never ends a follower (F19)."""


class FoldError(PortcullisError):
    """An entry that is signed and in order, and yet makes no valid world; the old world stays."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.POLICY_REFUSED, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The live policy: its texts, its compiled form, and the digest that names this revision."""

    model_text: str
    vocabulary_text: str
    snapshot: Snapshot
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One state of everything that can change an answer.

    `seq` and `head` are number and digest of the newest entry folded in (0 and empty before the first), `signed_ms` the
    newest signed time, which `now` never precedes. `retired` are the names that were assets and are none any more; `glass` is
    what was broken and waits for its review. `candidate` is the policy of the canary among `trials`, if one runs: which
    questions it answers, `decide` knows.
    """

    tenant: str
    seq: int
    head: bytes
    signed_ms: int
    policy: Policy | None
    assets: Mapping[str, Asset]
    locks: LockSet
    retired: Mapping[str, Retired] = field(default_factory=lambda: MappingProxyType({}))
    proposals: ProposalSet = ProposalSet.EMPTY
    glass: tuple[Broken, ...] = ()
    trials: TrialSet = NO_TRIALS
    candidate: Policy | None = None
    mark: object = field(default_factory=object, init=False, repr=False, compare=False)
    """Of this world alone: what is settled carries it."""

    def asset(self, resource: Resource) -> Asset | None:
        """Return the asset registered under exactly this name, version included."""
        return self.assets.get(resource.text) or BUILTIN_ASSETS.get(resource.text)

    @property
    def snapshot(self) -> Snapshot | None:
        """The compiled policy, or None before genesis."""
        return self.policy.snapshot if self.policy else None

    @property
    def revision(self) -> str:
        """The digest of the live policy, or empty before genesis."""
        return self.policy.revision if self.policy else ""


def empty_world(tenant: str) -> World:
    """Return the world before the first entry: it allows nothing."""
    return World(
        tenant=tenant, seq=0, head=b"", signed_ms=0, policy=None, assets=MappingProxyType({}), locks=LockSet.EMPTY
    )


def fold(world: World, entry: VerifiedEntry) -> World:
    """Return the world after `entry`.

    Raises:
        FoldError: the payload is malformed, or the policy it makes does not compile or has another digest.
    """
    change = _FOLDS.get(entry.header.kind)
    if change is None:
        raise FoldError(f"entry {entry.header.seq}: unknown kind")
    try:
        changed = change(world, entry.payload, entry.header)
    except _MALFORMED as error:
        raise FoldError(f"entry {entry.header.seq}: malformed `{entry.header.kind}` payload: {error}") from error
    signed_ms = max(world.signed_ms, entry.header.time_ms)
    return replace(changed, seq=entry.header.seq, head=entry.digest, signed_ms=signed_ms)


def _fold_policy(world: World, payload: Mapping[str, Any], header: EntryHeader) -> World:
    policy = policy_after(world.policy, payload)
    if policy.snapshot.digest.hex() != payload["rows_digest"]:
        raise FoldError("the row set is not the one that the entry names")
    opened = payload.get("break_glass")
    glass = (*world.glass, Broken.of(header.seq, opened["statement"])) if opened else world.glass
    proposals = world.proposals.closed(payload.get("proposal", ""))
    # INVARIANT: a canary never outlives the policy it was weighed with: with another, its rows could mean what nobody approved.
    trials = world.trials.without_canary().of(proposals)
    return replace(world, policy=policy, proposals=proposals, glass=glass, trials=trials, candidate=None)


def policy_after(old: Policy | None, change: Mapping[str, Any]) -> Policy:
    """Return the policy that `change` makes of `old`; which rows that should be is the caller's to compare.

    Raises:
        FoldError: it does not compile, or its rows do not fit.
    """
    model = change["model"] if change["model"] is not None else _text(old, "model")
    vocabulary = change["vocabulary"] if change["vocabulary"] is not None else _text(old, "vocabulary")
    if old is not None and (model, vocabulary) == (old.model_text, old.vocabulary_text):
        # Only what the delta touches is copied; the law is that this is what compiling every row gives.
        return _policy(model, vocabulary, _delta(old.snapshot, change))
    rows = _changed_rows(old.snapshot.rows if old else (), change)
    return _policy(model, vocabulary, compile_texts(model, vocabulary, rows))


def _delta(snapshot: Snapshot, payload: Mapping[str, Any]) -> Snapshot | tuple[Finding, ...]:
    added, removed = delta_of(payload)
    try:
        return apply_delta(snapshot, added, removed)
    except KeyError as error:
        raise FoldError(f"row {error.args[0]} is removed and was not there, or is added twice") from error


def _text(policy: Policy | None, which: str) -> str:
    if policy is None:
        raise FoldError(f"the first policy entry must bring its {which}")
    return policy.model_text if which == "model" else policy.vocabulary_text


def _changed_rows(rows: tuple[Row, ...], payload: Mapping[str, Any]) -> tuple[Row, ...]:
    """Apply added and removed rows; removing what is not there, or adding what is, is a poisoned entry."""
    kept = {(row.id, row.section, row.fields): row for row in rows}
    for raw in payload["removed"]:
        row = Row.from_json(raw)
        if kept.pop((row.id, row.section, row.fields), None) is None:
            raise FoldError(f"row {row.id} is removed and was not there")
    for raw in payload["added"]:
        row = Row.from_json(raw)
        if kept.setdefault((row.id, row.section, row.fields), row) is not row:
            raise FoldError(f"row {row.id} is added twice")
    return tuple(sorted(kept.values(), key=lambda row: (row.file, row.line)))


def _policy(model: str, vocabulary: str, compiled: Snapshot | tuple[Finding, ...]) -> Policy:
    if not isinstance(compiled, Snapshot):
        raise FoldError(f"the policy does not compile: {'; '.join(str(finding) for finding in compiled[:3])}")
    revision = digest("revision", model.encode(), vocabulary.encode(), compiled.digest).hex()
    return Policy(model_text=model, vocabulary_text=vocabulary, snapshot=compiled, revision=revision)


def _fold_assets(world: World, payload: Mapping[str, Any], _header: EntryHeader) -> World:
    made = [make_asset(world, item["name"], item["attributes"]) for item in payload["assets"]]
    assets = {**world.assets, **{str(asset.resource): asset for asset in made}}
    retired = {name: one for name, one in world.retired.items() if name not in assets}
    return replace(world, assets=MappingProxyType(assets), retired=MappingProxyType(retired))


def _fold_retire(world: World, payload: Mapping[str, Any], header: EntryHeader) -> World:
    assets = dict(world.assets)
    for name in payload["names"]:
        del assets[name]
    one = Retired(seq=header.seq, by=header.author, reason=payload["reason"])
    retired = {**world.retired, **dict.fromkeys(payload["names"], one)}
    return replace(world, assets=MappingProxyType(assets), retired=MappingProxyType(retired))


def make_asset(world: World, name: str, attributes: Mapping[str, Any]) -> Asset:
    """Return the asset that `name` and unprefixed `attributes` describe, each checked against the live vocabulary.

    Raises:
        BadRequestError, BadNameError: a built-in or malformed name, an attribute that the vocabulary does not know or of
            another type, or no environment.
    """
    resource = registrable(name)
    values = full_names(attributes)
    _check_attributes(world, resource, values)
    return Asset(resource=resource, attributes=MappingProxyType(values))


def _check_attributes(world: World, resource: Resource, values: Attributes) -> None:
    known = _vocabulary_types(world)
    if known and resource.type not in _types(world):
        raise BadRequestError(f"the vocabulary knows no type `{resource.type}`")
    for name, value in values.items():
        if name not in known:
            raise BadRequestError(f"the vocabulary knows no attribute `{name}`")
        check_value(name, value, known[name])
    check_placement(values)


def _vocabulary_types(world: World) -> Mapping[str, AttributeType]:
    snapshot = world.snapshot
    return {name: info.type for name, info in snapshot.vocabulary.attributes.items()} if snapshot else {}


def _types(world: World) -> frozenset[str]:
    return frozenset(world.snapshot.vocabulary.types) if world.snapshot else frozenset()


def _fold_lock(world: World, payload: Mapping[str, Any], header: EntryHeader) -> World:
    return replace(world, locks=world.locks.added(Lock.from_json({**payload, "world_seq": header.seq})))


def _fold_unlock(world: World, payload: Mapping[str, Any], _header: EntryHeader) -> World:
    return replace(world, locks=world.locks.removed(payload["id"]))


def _fold_proposal(world: World, payload: Mapping[str, Any], header: EntryHeader) -> World:
    raw = {**payload, "seq": header.seq, "time_ms": header.time_ms, "verdicts": ()}
    return _tried(world, world.proposals.opened(Proposal.from_json(raw)))


def _fold_verdict(world: World, payload: Mapping[str, Any], header: EntryHeader) -> World:
    verdict = Verdict(
        by=tuple(payload["by"]),
        approves=payload["approves"] is True,
        message=payload["message"],
        seq=header.seq,
        time_ms=header.time_ms,
        groups=tuple(payload.get("groups", ())),
    )
    return _tried(world, world.proposals.judged(payload["proposal"], payload["digest"], verdict))


def _tried(world: World, proposals: ProposalSet) -> World:
    """Return the world with these proposals; what is no longer proposed is no longer tried."""
    return _trying(replace(world, proposals=proposals), world.trials.of(proposals))


def _trying(world: World, trials: TrialSet) -> World:
    return replace(world, trials=trials, candidate=world.candidate if trials.canary else None)


def _fold_trial(world: World, payload: Mapping[str, Any], header: EntryHeader) -> World:
    trial = Trial.from_json({**payload, "seq": header.seq, "start_ms": header.time_ms})
    begun = _trying(world, world.trials.begun(trial, world.proposals))
    return replace(begun, candidate=_candidate(begun, trial)) if trial.scope else begun


def _candidate(world: World, trial: Trial) -> Policy:
    """Return the policy that a canary tries."""
    proposal = world.proposals.get(trial.proposal)
    if proposal is None or proposal.change["model"] is not None or proposal.change["vocabulary"] is not None:
        # What doors and inventory know of attributes is the live vocabulary's: another would be asked in the wrong words.
        raise BadRequestError("a canary tries rows; a change of the model or the vocabulary can only be shadowed")
    policy = policy_after(world.policy, proposal.change)
    if policy.revision != trial.revision:
        raise BadRequestError("the candidate is not the one that the entry names")
    return policy


def _fold_trial_end(world: World, payload: Mapping[str, Any], _header: EntryHeader) -> World:
    return _trying(world, world.trials.ended(payload["trial"]))


def _fold_review(world: World, payload: Mapping[str, Any], _header: EntryHeader) -> World:
    left = tuple(one for one in world.glass if one.seq != payload["seq"] or one.who in payload["by"])
    if left == world.glass:
        raise BadRequestError("nothing is reviewed by this")
    return replace(world, glass=left)


def _fold_sign_off(world: World, payload: Mapping[str, Any], _header: EntryHeader) -> World:
    SignOff.from_json(payload)  # for whoever reads the log; no answer depends on it
    return world


_FOLDS: Final = {
    "policy": _fold_policy,
    "proposal": _fold_proposal,
    "verdict": _fold_verdict,
    "review": _fold_review,
    "sign_off": _fold_sign_off,
    "trial": _fold_trial,
    "trial_end": _fold_trial_end,
    "assets": _fold_assets,
    "retire": _fold_retire,
    "lock": _fold_lock,
    "unlock": _fold_unlock,
}


def to_state(world: World) -> dict[str, Any]:
    """Return the world as a canonical-JSON value, for a signed snapshot."""
    policy = world.policy
    held = policy and {**_texts(policy), "rows": [row.to_json() for row in policy.snapshot.rows]}
    return {**_beside_policy(world), "policy": held}


def _texts(policy: Policy) -> dict[str, Any]:
    return {"model": policy.model_text, "vocabulary": policy.vocabulary_text}


def _beside_policy(world: World) -> dict[str, Any]:
    return {
        "tenant": world.tenant,
        "seq": world.seq,
        "head": world.head.hex(),
        "signed_ms": world.signed_ms,
        "assets": {
            name: {key.removeprefix("resource."): value for key, value in asset.attributes.items()}
            for name, asset in world.assets.items()
        },
        "locks": [lock.to_json() for lock in world.locks],
        "retired": {name: asdict(one) for name, one in world.retired.items()},
        "proposals": [proposal.to_json() for proposal in world.proposals],
        "glass": [asdict(one) for one in world.glass],
        # Left out where there are none: so a follower of before there were trials spells the same world.
        **({"trials": [trial.to_json() for trial in world.trials]} if world.trials.running else {}),
    }


def spell_state(world: World) -> bytes:
    """Return the canonical bytes of `to_state(world)`, some rows at a time.

    Encoding 100,000 rows at once holds the interpreter, and as many values alive at once have the collector walk the heap.
    """
    policy = world.policy
    members = {name: canonical.dumps_trusted(value) for name, value in _beside_policy(world).items()}
    if policy is None:
        return _spelled({**members, "policy": b"null"})
    rows = policy.snapshot.rows
    pieces = (rows[start : start + SPELLED_ROWS] for start in range(0, len(rows), SPELLED_ROWS))
    spelled = b",".join(canonical.dumps_trusted([row.to_json() for row in piece])[1:-1] for piece in pieces)
    texts = {name: canonical.dumps_trusted(value) for name, value in _texts(policy).items()}
    return _spelled({**members, "policy": _spelled({**texts, "rows": b"[%b]" % spelled})})


def _spelled(members: Mapping[str, bytes]) -> bytes:
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode("ascii"), members[name]) for name in sorted(members))


def from_state(state: Mapping[str, Any]) -> World:
    """Return the world that `to_state` wrote.

    Raises:
        FoldError: the state is malformed or its policy does not compile.
    """
    try:
        _check_position(state)
        world = replace(empty_world(state["tenant"]), policy=_policy_from_state(state["policy"]))
        assets = {name: held_asset(name, attributes) for name, attributes in state["assets"].items()}
        locks = LockSet.EMPTY
        for raw in state["locks"]:
            locks = locks.added(Lock.from_json(raw))
        held = replace(
            world,
            seq=state["seq"],
            head=bytes.fromhex(state["head"]),
            signed_ms=state["signed_ms"],
            assets=MappingProxyType(assets),
            locks=locks,
            retired=MappingProxyType({name: Retired(**one) for name, one in state.get("retired", {}).items()}),
            proposals=_proposals_from_state(state.get("proposals", ())),
            glass=tuple(Broken(**one) for one in state.get("glass", ())),
            trials=TrialSet(tuple(map(Trial.from_json, state.get("trials", ())))),
        )
        canary = held.trials.canary
        return replace(held, candidate=_candidate(held, canary)) if canary else held
    except _MALFORMED as error:
        raise FoldError(f"malformed snapshot: {error}") from error


def _check_position(state: Mapping[str, Any]) -> None:
    """Refuse numbers that are none: `signed_ms` becomes the time of every decision."""
    for number in (state["seq"], state["signed_ms"]):
        if type(number) is not int or not 0 <= number <= MAX_SAFE_INTEGER:
            raise BadRequestError("a number of a snapshot is an integer from 0 to 2^53 - 1")


def _proposals_from_state(raw: Iterable[Mapping[str, Any]]) -> ProposalSet:
    proposals = [Proposal.from_json(one) for one in raw]
    return ProposalSet({one.id: one for one in proposals})


def _policy_from_state(raw: Mapping[str, Any] | None) -> Policy | None:
    if raw is None:
        return None
    rows = tuple(Row.from_json(row) for row in raw["rows"])
    return _policy(raw["model"], raw["vocabulary"], compile_texts(raw["model"], raw["vocabulary"], rows))
