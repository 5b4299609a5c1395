"""Administration without its I/O: what the PDP keeps, as values, and their messages."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pdp.audit.query import Wanted
from pdp.errors import BadNameError, BadRequestError, Reason
from pdp.limits import MAX_PACK_DEADLINE_S
from pdp.model.attributes import Value
from pdp.model.names import Resource
from pdp.sdk._core import Rpc, plain_value, value_message
from pdp.sdk.errors import BadQuestion, PdpFault
from pdp.sdk.values import AttributeValue
from pdp.signals.locks import Lock, LockKind, LockTarget
from pdp.v1 import asset_pb2, audit_pb2, lock_pb2, policy_pb2, replication_pb2

PROPOSE: Final = Rpc(
    "/pdp.v1.PolicyService/Propose", policy_pb2.ProposeRequest, policy_pb2.ProposeResponse, MAX_PACK_DEADLINE_S
)
ACTIVATE: Final = Rpc(
    "/pdp.v1.PolicyService/Activate", policy_pb2.ActivateRequest, policy_pb2.ActivateResponse, MAX_PACK_DEADLINE_S
)
APPROVE: Final = Rpc(
    "/pdp.v1.PolicyService/Approve", policy_pb2.ApproveRequest, policy_pb2.ApproveResponse, MAX_PACK_DEADLINE_S
)
REJECT: Final = Rpc("/pdp.v1.PolicyService/Reject", policy_pb2.RejectRequest, policy_pb2.RejectResponse)
LIST_PROPOSALS: Final = Rpc(
    "/pdp.v1.PolicyService/ListProposals", policy_pb2.ListProposalsRequest, policy_pb2.ListProposalsResponse
)
LIST_REVISIONS: Final = Rpc(
    "/pdp.v1.PolicyService/ListRevisions", policy_pb2.ListRevisionsRequest, policy_pb2.ListRevisionsResponse
)
REQUEST_ACCESS: Final = Rpc(
    "/pdp.v1.PolicyService/RequestAccess", policy_pb2.RequestAccessRequest, policy_pb2.RequestAccessResponse
)
LIST_ACCESS: Final = Rpc(
    "/pdp.v1.PolicyService/ListAccess", policy_pb2.ListAccessRequest, policy_pb2.ListAccessResponse
)
LIST_BREAK_GLASS: Final = Rpc(
    "/pdp.v1.PolicyService/ListBreakGlass", policy_pb2.ListBreakGlassRequest, policy_pb2.ListBreakGlassResponse
)
SIGN_OFF: Final = Rpc("/pdp.v1.PolicyService/SignOff", policy_pb2.SignOffRequest, policy_pb2.SignOffResponse)
REVIEW_BREAK_GLASS: Final = Rpc(
    "/pdp.v1.PolicyService/ReviewBreakGlass", policy_pb2.ReviewBreakGlassRequest, policy_pb2.ReviewBreakGlassResponse
)
BLAME: Final = Rpc("/pdp.v1.PolicyService/Blame", policy_pb2.BlameRequest, policy_pb2.BlameResponse)
GET_POLICY: Final = Rpc("/pdp.v1.PolicyService/Get", policy_pb2.GetPolicyRequest, policy_pb2.GetPolicyResponse)
REGISTER: Final = Rpc("/pdp.v1.AssetService/Register", asset_pb2.RegisterRequest, asset_pb2.RegisterResponse)
RETIRE: Final = Rpc("/pdp.v1.AssetService/Retire", asset_pb2.RetireRequest, asset_pb2.RetireResponse)
GET_ASSET: Final = Rpc("/pdp.v1.AssetService/Get", asset_pb2.GetAssetRequest, asset_pb2.GetAssetResponse)
LIST_ASSETS: Final = Rpc("/pdp.v1.AssetService/List", asset_pb2.ListAssetsRequest, asset_pb2.ListAssetsResponse)
LOCK: Final = Rpc("/pdp.v1.LockService/Lock", lock_pb2.LockRequest, lock_pb2.LockResponse)
UNLOCK: Final = Rpc("/pdp.v1.LockService/Unlock", lock_pb2.UnlockRequest, lock_pb2.UnlockResponse)
LIST_LOCKS: Final = Rpc("/pdp.v1.LockService/List", lock_pb2.ListLocksRequest, lock_pb2.ListLocksResponse)
QUERY_AUDIT: Final = Rpc("/pdp.v1.AuditService/Query", audit_pb2.QueryRequest, audit_pb2.QueryResponse)
READ_AUDIT: Final = Rpc("/pdp.v1.AuditService/Read", audit_pb2.ReadRequest, audit_pb2.ReadResponse)
LIST_REPLICAS: Final = Rpc(
    "/pdp.v1.ReplicationService/ListReplicas",
    replication_pb2.ListReplicasRequest,
    replication_pb2.ListReplicasResponse,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """What became of a change: live in world `world_seq`, or the proposal `proposal_id`, which waits (`world_seq` 0).

    `digest` is what an approval binds to; `approvals_needed` how many the policy demands of it.
    """

    proposal_id: str
    warnings: tuple[str, ...]
    rows_added: int
    rows_removed: int
    base_seq: int
    digest: str
    approvals_needed: int
    world_seq: int
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """A policy that has become live in world `world_seq`."""

    world_seq: int
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """One row of the live policy."""

    id: str
    section: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedAccess:
    """A role for a time: asked for (`end_ms` 0), or live until `end_ms`, milliseconds since the epoch."""

    who: str
    role: str
    environment: str
    duration_s: int
    approvals_needed: int
    end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Who has approved a proposal so far; `live` if this approval made a request for access live."""

    approved_by: tuple[str, ...]
    live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A change that waits. `authors` is a chain, subject first; `current` whether it is still compared with what is live.

    The change itself is there only where one proposal was asked for; `model` and `vocabulary` are None where they stay.
    """

    id: str
    digest: str
    authors: tuple[str, ...]
    message: str
    time_ms: int
    expires_ms: int
    approved_by: tuple[str, ...]
    rows_added: int
    rows_removed: int
    current: bool
    added: tuple[PolicyRow, ...]
    removed: tuple[PolicyRow, ...]
    model: str | None
    vocabulary: str | None
    access: TimedAccess | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAccess:
    """What was asked for and waits, and what is held for a time."""

    requests: tuple[Proposal, ...]
    live: tuple[TimedAccess, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlass:
    """What two root keys let in at entry `seq`, until `end_ms`; it waits for its review."""

    seq: int
    who: str
    role: str
    environment: str
    end_ms: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A change that became live at entry `seq`, made live by `author`; `language`: model or vocabulary changed."""

    seq: int
    time_ms: int
    author: str
    authors: tuple[str, ...]
    approved_by: tuple[str, ...]
    proposal_id: str
    message: str
    rows_added: int
    rows_removed: int
    language: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The live policy."""

    revision: str
    world_seq: int
    model: str
    vocabulary: str
    rows: tuple[PolicyRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A registered resource: name and `resource.*` attributes without their prefix."""

    name: str
    attributes: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """The inventory as of world `world_seq`."""

    assets: tuple[Asset, ...]
    world_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Who holds a change: `holding` of `connected` enforcement points, the slowest after `slowest_ms`."""

    world_seq: int
    connected: int
    holding: int
    missing: tuple[str, ...]
    slowest_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A lock that is in force, and who enforces it."""

    lock: Lock
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Locks:
    """All locks as of world `world_seq`."""

    locks: tuple[Lock, ...]
    world_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRecord:
    """One record of a chain, exactly as it stands in the file."""

    chain: str
    record: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRecord:
    """A record that a query found; `record` is empty if it is no longer what was indexed: `pdp audit verify` tells more."""

    chain: str
    n: int
    record: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRecords:
    """A page of decisions, newest first, and what was noted of their streams; `next_cursor` is empty on the last page."""

    records: tuple[FoundRecord, ...]
    events: tuple[FoundRecord, ...]
    next_cursor: str


def query_message(wanted: Wanted, *, page_size: int, cursor: str, events: bool) -> audit_pb2.QueryRequest:
    """Return the question for a page of decisions."""
    return audit_pb2.QueryRequest(
        effect=wanted.effect,
        world_seq=wanted.world_seq,
        since_ms=wanted.since_ms,
        until_ms=wanted.until_ms,
        page_size=page_size,
        cursor=cursor,
        events=events,
        **wanted.patterns,
    )


def found_records(told: audit_pb2.QueryResponse) -> FoundRecords:
    """Return a page as it was told."""
    records, events = (
        tuple(FoundRecord(chain=one.chain, n=one.n, record=one.record) for one in part)
        for part in (told.records, told.events)
    )
    return FoundRecords(records=records, events=events, next_cursor=told.next_cursor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One enforcement point, as the PDP knows it."""

    identity: str
    role: str
    version: str
    seq: int
    staleness_s: float
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """All enforcement points, and the head they should hold."""

    replicas: tuple[Replica, ...]
    head_seq: int


def asset_message(name: str, attributes: Mapping[str, AttributeValue]) -> asset_pb2.Asset:
    """Return the message that registers an asset.

    Raises:
        BadNameError: the name is not one of a resource.
        BadRequestError: a value has a type or size that no attribute has.
    """
    values = {key: value_message(key, value) for key, value in attributes.items()}
    return asset_pb2.Asset(name=str(Resource.parse(name)), attributes=values)


def asset(message: asset_pb2.Asset) -> Asset:
    """Return the asset in `message`."""
    values = {key: plain_value(value) for key, value in sorted(message.attributes.items())}
    return Asset(name=message.name, attributes=values)


def pack_message(files: Mapping[str, bytes], text: str, *, activate: bool) -> policy_pb2.ProposeRequest:
    """Return the message that proposes a pack."""
    packed = [policy_pb2.PackFile(path=path, content=content) for path, content in sorted(files.items())]
    return policy_pb2.ProposeRequest(files=packed, message=text, activate=activate)


def edit_message(add: Iterable[str], remove: Iterable[str], text: str, *, activate: bool) -> policy_pb2.ProposeRequest:
    """Return the message that proposes single rows."""
    return policy_pb2.ProposeRequest(edit=policy_pb2.Edit(add=add, remove=remove), message=text, activate=activate)


def proposed(message: policy_pb2.ProposeResponse) -> Proposed:
    """Return what became of a change."""
    return Proposed(
        proposal_id=message.proposal_id,
        warnings=tuple(message.warnings),
        rows_added=message.rows_added,
        rows_removed=message.rows_removed,
        base_seq=message.base_seq,
        digest=message.digest,
        approvals_needed=message.approvals_needed,
        world_seq=message.world_seq,
        revision=message.revision,
    )


def proposal(message: policy_pb2.Proposal) -> Proposal:
    """Return the proposal in `message`."""
    return Proposal(
        id=message.id,
        digest=message.digest,
        authors=tuple(message.authors),
        message=message.message,
        time_ms=message.time_ms,
        expires_ms=message.expires_ms,
        approved_by=tuple(message.approved_by),
        rows_added=message.rows_added,
        rows_removed=message.rows_removed,
        current=message.current,
        added=tuple(map(policy_row, message.added)),
        removed=tuple(map(policy_row, message.removed)),
        model=message.model if message.HasField("model") else None,
        vocabulary=message.vocabulary if message.HasField("vocabulary") else None,
        access=timed_access(message.access) if message.HasField("access") else None,
    )


def timed_access(message: policy_pb2.TimedAccess) -> TimedAccess:
    """Return the access in `message`."""
    return TimedAccess(
        who=message.who,
        role=message.role,
        environment=message.environment,
        duration_s=message.duration_s,
        approvals_needed=message.approvals_needed,
        end_ms=message.end_ms,
    )


def revision(message: policy_pb2.Revision) -> Revision:
    """Return the revision in `message`."""
    return Revision(
        seq=message.seq,
        time_ms=message.time_ms,
        author=message.author,
        authors=tuple(message.authors),
        approved_by=tuple(message.approved_by),
        proposal_id=message.proposal_id,
        message=message.message,
        rows_added=message.rows_added,
        rows_removed=message.rows_removed,
        language=message.language,
    )


def policy_row(message: policy_pb2.PolicyRow) -> PolicyRow:
    """Return the row in `message`."""
    return PolicyRow(id=message.id, section=message.section, fields=tuple(message.fields))


def policy(message: policy_pb2.GetPolicyResponse) -> Policy:
    """Return the policy in `message`."""
    return Policy(
        revision=message.revision,
        world_seq=message.world_seq,
        model=message.model,
        vocabulary=message.vocabulary,
        rows=tuple(map(policy_row, message.rows)),
    )


def target_of(target: LockTarget | str) -> LockTarget:
    """Return what a lock matches, also if a person wrote it.

    Raises:
        BadQuestion: a text that names nothing.
    """
    if isinstance(target, LockTarget):
        return target
    try:
        return LockTarget.parse(target)
    except (BadNameError, BadRequestError) as error:
        raise BadQuestion(error.reason, error.message) from error


def target_message(target: LockTarget) -> lock_pb2.LockTarget:
    """Return the message that names what a lock matches."""
    match target.kind:
        case LockKind.PRINCIPAL:
            return lock_pb2.LockTarget(principal=target.principal)
        case LockKind.RESOURCE:
            return lock_pb2.LockTarget(resource=target.resource)
        case LockKind.CERTIFICATE:
            return lock_pb2.LockTarget(certificate=target.value)
        case LockKind.JTI | LockKind.SESSION | LockKind.SERIAL | LockKind.ACCOUNT_UID | LockKind.POD_UID:
            scoped = lock_pb2.IssuerScoped(issuer=target.issuer, id=target.value)
            message = lock_pb2.LockTarget()
            getattr(message, target.kind.value).CopyFrom(scoped)
            return message
        case LockKind.ISSUED_BEFORE:
            before = lock_pb2.IssuedBefore(issuer=target.issuer, time_s=target.time_s, principal=target.principal)
            return lock_pb2.LockTarget(issued_before=before)


def lock(message: lock_pb2.Lock) -> Lock:
    """Return the lock in `message`.

    Raises:
        PdpFault: it is of a kind that this client does not know (FAILURE.md F28); to leave it out would hide a lock.
    """
    try:
        return _lock(message)
    except ValueError as error:
        told = f"the PDP told of a lock that this client cannot read: {error}"
        raise PdpFault(Reason.INTERNAL_ERROR, told, advice="upgrade the client") from error


def _lock(message: lock_pb2.Lock) -> Lock:
    return Lock(
        id=message.id,
        target=_target(message.target),
        reason=message.reason,
        source=message.source,
        world_seq=message.world_seq,
        start_ms=message.start_ms,
        end_ms=message.end_ms,
    )


def _target(message: lock_pb2.LockTarget) -> LockTarget:
    kind = LockKind(message.WhichOneof("target"))
    match kind:
        case LockKind.PRINCIPAL:
            return LockTarget(kind=kind, principal=message.principal)
        case LockKind.RESOURCE:
            return LockTarget(kind=kind, resource=message.resource)
        case LockKind.CERTIFICATE:
            return LockTarget(kind=kind, value=message.certificate)
        case LockKind.JTI | LockKind.SESSION | LockKind.SERIAL | LockKind.ACCOUNT_UID | LockKind.POD_UID:
            scoped = getattr(message, kind.value)
            return LockTarget(kind=kind, issuer=scoped.issuer, value=scoped.id)
        case LockKind.ISSUED_BEFORE:
            before = message.issued_before
            return LockTarget(kind=kind, issuer=before.issuer, time_s=before.time_s, principal=before.principal)


def receipt(message: lock_pb2.Receipt) -> Receipt:
    """Return the receipt in `message`."""
    return Receipt(
        world_seq=message.world_seq,
        connected=message.connected,
        holding=message.holding,
        missing=tuple(message.missing),
        slowest_ms=message.slowest_ms,
    )


def replicas(messages: Iterable[replication_pb2.ReplicaStatus]) -> tuple[Replica, ...]:
    """Return the enforcement points in `messages`."""
    return tuple(
        Replica(
            identity=status.identity,
            role=status.role,
            version=status.version,
            seq=status.seq,
            staleness_s=status.staleness_s,
            connected=status.connected,
        )
        for status in messages
    )
