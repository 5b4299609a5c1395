from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrialMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRIAL_MODE_UNSPECIFIED: _ClassVar[TrialMode]
    TRIAL_MODE_SHADOW: _ClassVar[TrialMode]
    TRIAL_MODE_CANARY: _ClassVar[TrialMode]
TRIAL_MODE_UNSPECIFIED: TrialMode
TRIAL_MODE_SHADOW: TrialMode
TRIAL_MODE_CANARY: TrialMode

class PackFile(_message.Message):
    __slots__ = ("path", "content")
    PATH_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    path: str
    content: bytes
    def __init__(self, path: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class ProposeRequest(_message.Message):
    __slots__ = ("files", "message", "edit", "restore_seq", "activate")
    FILES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EDIT_FIELD_NUMBER: _ClassVar[int]
    RESTORE_SEQ_FIELD_NUMBER: _ClassVar[int]
    ACTIVATE_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[PackFile]
    message: str
    edit: Edit
    restore_seq: int
    activate: bool
    def __init__(self, files: _Optional[_Iterable[_Union[PackFile, _Mapping]]] = ..., message: _Optional[str] = ..., edit: _Optional[_Union[Edit, _Mapping]] = ..., restore_seq: _Optional[int] = ..., activate: bool = ...) -> None: ...

class Edit(_message.Message):
    __slots__ = ("add", "remove")
    ADD_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    add: _containers.RepeatedScalarFieldContainer[str]
    remove: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, add: _Optional[_Iterable[str]] = ..., remove: _Optional[_Iterable[str]] = ...) -> None: ...

class ProposeResponse(_message.Message):
    __slots__ = ("proposal_id", "warnings", "rows_added", "rows_removed", "base_seq", "digest", "approvals_needed", "world_seq", "revision")
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    ROWS_ADDED_FIELD_NUMBER: _ClassVar[int]
    ROWS_REMOVED_FIELD_NUMBER: _ClassVar[int]
    BASE_SEQ_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    proposal_id: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    rows_added: int
    rows_removed: int
    base_seq: int
    digest: str
    approvals_needed: int
    world_seq: int
    revision: str
    def __init__(self, proposal_id: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., rows_added: _Optional[int] = ..., rows_removed: _Optional[int] = ..., base_seq: _Optional[int] = ..., digest: _Optional[str] = ..., approvals_needed: _Optional[int] = ..., world_seq: _Optional[int] = ..., revision: _Optional[str] = ...) -> None: ...

class ActivateRequest(_message.Message):
    __slots__ = ("proposal_id",)
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    proposal_id: str
    def __init__(self, proposal_id: _Optional[str] = ...) -> None: ...

class ActivateResponse(_message.Message):
    __slots__ = ("world_seq", "revision")
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    revision: str
    def __init__(self, world_seq: _Optional[int] = ..., revision: _Optional[str] = ...) -> None: ...

class ApproveRequest(_message.Message):
    __slots__ = ("proposal_id", "digest", "message")
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    proposal_id: str
    digest: str
    message: str
    def __init__(self, proposal_id: _Optional[str] = ..., digest: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ApproveResponse(_message.Message):
    __slots__ = ("world_seq", "approved_by", "live")
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    approved_by: _containers.RepeatedScalarFieldContainer[str]
    live: bool
    def __init__(self, world_seq: _Optional[int] = ..., approved_by: _Optional[_Iterable[str]] = ..., live: bool = ...) -> None: ...

class RejectRequest(_message.Message):
    __slots__ = ("proposal_id", "message")
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    proposal_id: str
    message: str
    def __init__(self, proposal_id: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class RejectResponse(_message.Message):
    __slots__ = ("world_seq",)
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    def __init__(self, world_seq: _Optional[int] = ...) -> None: ...

class ListProposalsRequest(_message.Message):
    __slots__ = ("proposal_id",)
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    proposal_id: str
    def __init__(self, proposal_id: _Optional[str] = ...) -> None: ...

class ListProposalsResponse(_message.Message):
    __slots__ = ("proposals", "world_seq")
    PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    proposals: _containers.RepeatedCompositeFieldContainer[Proposal]
    world_seq: int
    def __init__(self, proposals: _Optional[_Iterable[_Union[Proposal, _Mapping]]] = ..., world_seq: _Optional[int] = ...) -> None: ...

class Proposal(_message.Message):
    __slots__ = ("id", "digest", "authors", "message", "time_ms", "expires_ms", "approved_by", "rows_added", "rows_removed", "current", "added", "removed", "model", "vocabulary", "access")
    ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    AUTHORS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    ROWS_ADDED_FIELD_NUMBER: _ClassVar[int]
    ROWS_REMOVED_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    id: str
    digest: str
    authors: _containers.RepeatedScalarFieldContainer[str]
    message: str
    time_ms: int
    expires_ms: int
    approved_by: _containers.RepeatedScalarFieldContainer[str]
    rows_added: int
    rows_removed: int
    current: bool
    added: _containers.RepeatedCompositeFieldContainer[PolicyRow]
    removed: _containers.RepeatedCompositeFieldContainer[PolicyRow]
    model: str
    vocabulary: str
    access: TimedAccess
    def __init__(self, id: _Optional[str] = ..., digest: _Optional[str] = ..., authors: _Optional[_Iterable[str]] = ..., message: _Optional[str] = ..., time_ms: _Optional[int] = ..., expires_ms: _Optional[int] = ..., approved_by: _Optional[_Iterable[str]] = ..., rows_added: _Optional[int] = ..., rows_removed: _Optional[int] = ..., current: bool = ..., added: _Optional[_Iterable[_Union[PolicyRow, _Mapping]]] = ..., removed: _Optional[_Iterable[_Union[PolicyRow, _Mapping]]] = ..., model: _Optional[str] = ..., vocabulary: _Optional[str] = ..., access: _Optional[_Union[TimedAccess, _Mapping]] = ...) -> None: ...

class TimedAccess(_message.Message):
    __slots__ = ("who", "role", "environment", "duration_s", "approvals_needed", "end_ms")
    WHO_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    who: str
    role: str
    environment: str
    duration_s: int
    approvals_needed: int
    end_ms: int
    def __init__(self, who: _Optional[str] = ..., role: _Optional[str] = ..., environment: _Optional[str] = ..., duration_s: _Optional[int] = ..., approvals_needed: _Optional[int] = ..., end_ms: _Optional[int] = ...) -> None: ...

class RequestAccessRequest(_message.Message):
    __slots__ = ("role", "environment", "duration_s", "reason")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    role: str
    environment: str
    duration_s: int
    reason: str
    def __init__(self, role: _Optional[str] = ..., environment: _Optional[str] = ..., duration_s: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class RequestAccessResponse(_message.Message):
    __slots__ = ("proposal_id", "approvals_needed")
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    proposal_id: str
    approvals_needed: int
    def __init__(self, proposal_id: _Optional[str] = ..., approvals_needed: _Optional[int] = ...) -> None: ...

class ListAccessRequest(_message.Message):
    __slots__ = ("all",)
    ALL_FIELD_NUMBER: _ClassVar[int]
    all: bool
    def __init__(self, all: bool = ...) -> None: ...

class ListAccessResponse(_message.Message):
    __slots__ = ("requests", "live", "world_seq")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[Proposal]
    live: _containers.RepeatedCompositeFieldContainer[TimedAccess]
    world_seq: int
    def __init__(self, requests: _Optional[_Iterable[_Union[Proposal, _Mapping]]] = ..., live: _Optional[_Iterable[_Union[TimedAccess, _Mapping]]] = ..., world_seq: _Optional[int] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PolicyRow(_message.Message):
    __slots__ = ("id", "section", "fields")
    ID_FIELD_NUMBER: _ClassVar[int]
    SECTION_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    section: str
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., section: _Optional[str] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class GetPolicyResponse(_message.Message):
    __slots__ = ("revision", "world_seq", "model", "vocabulary", "rows")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    revision: str
    world_seq: int
    model: str
    vocabulary: str
    rows: _containers.RepeatedCompositeFieldContainer[PolicyRow]
    def __init__(self, revision: _Optional[str] = ..., world_seq: _Optional[int] = ..., model: _Optional[str] = ..., vocabulary: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[PolicyRow, _Mapping]]] = ...) -> None: ...

class ListRevisionsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ListRevisionsResponse(_message.Message):
    __slots__ = ("revisions", "trials")
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.RepeatedCompositeFieldContainer[Revision]
    trials: _containers.RepeatedCompositeFieldContainer[TrialEvent]
    def __init__(self, revisions: _Optional[_Iterable[_Union[Revision, _Mapping]]] = ..., trials: _Optional[_Iterable[_Union[TrialEvent, _Mapping]]] = ...) -> None: ...

class TrialEvent(_message.Message):
    __slots__ = ("seq", "time_ms", "author", "proposal_id", "mode", "why", "detail")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    seq: int
    time_ms: int
    author: str
    proposal_id: str
    mode: str
    why: str
    detail: str
    def __init__(self, seq: _Optional[int] = ..., time_ms: _Optional[int] = ..., author: _Optional[str] = ..., proposal_id: _Optional[str] = ..., mode: _Optional[str] = ..., why: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Revision(_message.Message):
    __slots__ = ("seq", "time_ms", "author", "authors", "approved_by", "proposal_id", "message", "rows_added", "rows_removed", "language")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    AUTHORS_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROWS_ADDED_FIELD_NUMBER: _ClassVar[int]
    ROWS_REMOVED_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    seq: int
    time_ms: int
    author: str
    authors: _containers.RepeatedScalarFieldContainer[str]
    approved_by: _containers.RepeatedScalarFieldContainer[str]
    proposal_id: str
    message: str
    rows_added: int
    rows_removed: int
    language: bool
    def __init__(self, seq: _Optional[int] = ..., time_ms: _Optional[int] = ..., author: _Optional[str] = ..., authors: _Optional[_Iterable[str]] = ..., approved_by: _Optional[_Iterable[str]] = ..., proposal_id: _Optional[str] = ..., message: _Optional[str] = ..., rows_added: _Optional[int] = ..., rows_removed: _Optional[int] = ..., language: bool = ...) -> None: ...

class BlameRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BlameResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[BlamedRow]
    def __init__(self, rows: _Optional[_Iterable[_Union[BlamedRow, _Mapping]]] = ...) -> None: ...

class BlamedRow(_message.Message):
    __slots__ = ("row", "revision")
    ROW_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    row: PolicyRow
    revision: Revision
    def __init__(self, row: _Optional[_Union[PolicyRow, _Mapping]] = ..., revision: _Optional[_Union[Revision, _Mapping]] = ...) -> None: ...

class ListBreakGlassRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBreakGlassResponse(_message.Message):
    __slots__ = ("waiting", "world_seq")
    WAITING_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    waiting: _containers.RepeatedCompositeFieldContainer[BreakGlass]
    world_seq: int
    def __init__(self, waiting: _Optional[_Iterable[_Union[BreakGlass, _Mapping]]] = ..., world_seq: _Optional[int] = ...) -> None: ...

class BreakGlass(_message.Message):
    __slots__ = ("seq", "who", "role", "environment", "end_ms", "reason")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    seq: int
    who: str
    role: str
    environment: str
    end_ms: int
    reason: str
    def __init__(self, seq: _Optional[int] = ..., who: _Optional[str] = ..., role: _Optional[str] = ..., environment: _Optional[str] = ..., end_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ReviewBreakGlassRequest(_message.Message):
    __slots__ = ("seq", "message")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    seq: int
    message: str
    def __init__(self, seq: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class ReviewBreakGlassResponse(_message.Message):
    __slots__ = ("world_seq",)
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    def __init__(self, world_seq: _Optional[int] = ...) -> None: ...

class StartTrialRequest(_message.Message):
    __slots__ = ("proposal_id", "mode", "duration_s", "share", "points", "max_loses", "no_gains")
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    MAX_LOSES_FIELD_NUMBER: _ClassVar[int]
    NO_GAINS_FIELD_NUMBER: _ClassVar[int]
    proposal_id: str
    mode: TrialMode
    duration_s: int
    share: int
    points: _containers.RepeatedScalarFieldContainer[str]
    max_loses: int
    no_gains: bool
    def __init__(self, proposal_id: _Optional[str] = ..., mode: _Optional[_Union[TrialMode, str]] = ..., duration_s: _Optional[int] = ..., share: _Optional[int] = ..., points: _Optional[_Iterable[str]] = ..., max_loses: _Optional[int] = ..., no_gains: bool = ...) -> None: ...

class StartTrialResponse(_message.Message):
    __slots__ = ("world_seq", "end_ms")
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    end_ms: int
    def __init__(self, world_seq: _Optional[int] = ..., end_ms: _Optional[int] = ...) -> None: ...

class EndTrialRequest(_message.Message):
    __slots__ = ("proposal_id", "mode")
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    proposal_id: str
    mode: TrialMode
    def __init__(self, proposal_id: _Optional[str] = ..., mode: _Optional[_Union[TrialMode, str]] = ...) -> None: ...

class EndTrialResponse(_message.Message):
    __slots__ = ("world_seq",)
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    def __init__(self, world_seq: _Optional[int] = ...) -> None: ...

class ListTrialsRequest(_message.Message):
    __slots__ = ("differences",)
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    differences: bool
    def __init__(self, differences: bool = ...) -> None: ...

class ListTrialsResponse(_message.Message):
    __slots__ = ("trials", "world_seq")
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    trials: _containers.RepeatedCompositeFieldContainer[Trial]
    world_seq: int
    def __init__(self, trials: _Optional[_Iterable[_Union[Trial, _Mapping]]] = ..., world_seq: _Optional[int] = ...) -> None: ...

class Trial(_message.Message):
    __slots__ = ("proposal_id", "mode", "seq", "by", "start_ms", "end_ms", "revision", "share", "points", "max_loses", "no_gains", "tally")
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    START_MS_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    MAX_LOSES_FIELD_NUMBER: _ClassVar[int]
    NO_GAINS_FIELD_NUMBER: _ClassVar[int]
    TALLY_FIELD_NUMBER: _ClassVar[int]
    proposal_id: str
    mode: TrialMode
    seq: int
    by: _containers.RepeatedScalarFieldContainer[str]
    start_ms: int
    end_ms: int
    revision: str
    share: int
    points: _containers.RepeatedScalarFieldContainer[str]
    max_loses: int
    no_gains: bool
    tally: Tally
    def __init__(self, proposal_id: _Optional[str] = ..., mode: _Optional[_Union[TrialMode, str]] = ..., seq: _Optional[int] = ..., by: _Optional[_Iterable[str]] = ..., start_ms: _Optional[int] = ..., end_ms: _Optional[int] = ..., revision: _Optional[str] = ..., share: _Optional[int] = ..., points: _Optional[_Iterable[str]] = ..., max_loses: _Optional[int] = ..., no_gains: bool = ..., tally: _Optional[_Union[Tally, _Mapping]] = ...) -> None: ...

class Tally(_message.Message):
    __slots__ = ("compared", "gains", "loses", "obliged", "errors", "skipped", "unreadable", "others", "newest_ms", "trouble", "differences")
    COMPARED_FIELD_NUMBER: _ClassVar[int]
    GAINS_FIELD_NUMBER: _ClassVar[int]
    LOSES_FIELD_NUMBER: _ClassVar[int]
    OBLIGED_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    NEWEST_MS_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    compared: int
    gains: int
    loses: int
    obliged: int
    errors: int
    skipped: int
    unreadable: int
    others: int
    newest_ms: int
    trouble: str
    differences: _containers.RepeatedCompositeFieldContainer[Difference]
    def __init__(self, compared: _Optional[int] = ..., gains: _Optional[int] = ..., loses: _Optional[int] = ..., obliged: _Optional[int] = ..., errors: _Optional[int] = ..., skipped: _Optional[int] = ..., unreadable: _Optional[int] = ..., others: _Optional[int] = ..., newest_ms: _Optional[int] = ..., trouble: _Optional[str] = ..., differences: _Optional[_Iterable[_Union[Difference, _Mapping]]] = ...) -> None: ...

class Difference(_message.Message):
    __slots__ = ("change", "subject", "action", "resource", "before", "after", "count", "decision_id")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    change: str
    subject: str
    action: str
    resource: str
    before: Said
    after: Said
    count: int
    decision_id: str
    def __init__(self, change: _Optional[str] = ..., subject: _Optional[str] = ..., action: _Optional[str] = ..., resource: _Optional[str] = ..., before: _Optional[_Union[Said, _Mapping]] = ..., after: _Optional[_Union[Said, _Mapping]] = ..., count: _Optional[int] = ..., decision_id: _Optional[str] = ...) -> None: ...

class Said(_message.Message):
    __slots__ = ("effect", "reason", "determining", "obligations")
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETERMINING_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    effect: str
    reason: str
    determining: _containers.RepeatedScalarFieldContainer[str]
    obligations: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, effect: _Optional[str] = ..., reason: _Optional[str] = ..., determining: _Optional[_Iterable[str]] = ..., obligations: _Optional[_Iterable[str]] = ...) -> None: ...

class SignOffRequest(_message.Message):
    __slots__ = ("report", "world_seq", "since_ms", "findings", "message")
    REPORT_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    report: str
    world_seq: int
    since_ms: int
    findings: int
    message: str
    def __init__(self, report: _Optional[str] = ..., world_seq: _Optional[int] = ..., since_ms: _Optional[int] = ..., findings: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class SignOffResponse(_message.Message):
    __slots__ = ("world_seq",)
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    def __init__(self, world_seq: _Optional[int] = ...) -> None: ...
