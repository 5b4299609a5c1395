"""Verifying a pack against pycasbin: the same questions to both engines, and every difference with its number.

Three sources of questions: the pack's own tests, each in the world that it is given; decisions of an audit log, asked again
of the pack; and the rows themselves, each asked about what it says. A difference that no entry of CASBIN.md section 2
explains is *unlisted*, and a defect of ours.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from pdp.adapters.casbin_bridge import Oracle, Testimony
from pdp.decide import Case, grant_request, open_case, segmentation_request
from pdp.engine.casbin_codes import NARROWER
from pdp.engine.casbin_lint import find_traps_in
from pdp.engine.casbin_text import Context, Row
from pdp.engine.casbin_traps import Answer
from pdp.engine.compiler import Snapshot
from pdp.engine.evaluate import EngineRequest, Outcome, evaluate
from pdp.engine.expression import Call, Compare, Literal, Not, walk
from pdp.engine.pack import Pack
from pdp.errors import PortcullisError, Reason
from pdp.model.attributes import NO_ATTRIBUTES
from pdp.model.decision import Decision, Effect
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.service.policy_tests import pack_world, questions_of

UNLISTED: Final = ""
_ABSENT: Final = "AttributeDoesNotExist"
"""What pycasbin's evaluator raises for an attribute that is not there."""
_DEEP: Final = 9
"""Links over which pycasbin still inherits (D-39)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A question that the two engines answer differently; `divergence` is its number, empty if none explains it."""

    where: str
    question: str
    ours: str
    theirs: str
    divergence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a verification found: questions asked of both engines, logged decisions that could not be, differences."""

    asked: int
    skipped: int
    differences: tuple[Difference, ...]

    @property
    def unlisted(self) -> tuple[Difference, ...]:
        """The differences that no entry explains."""
        return tuple(one for one in self.differences if one.divergence == UNLISTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Put:
    """One question to the engine: where it comes from, the policy it is asked of, and the instant."""

    where: str
    snapshot: Snapshot
    request: EngineRequest
    now_ms: int


def verify_pack(
    pack: Pack, snapshot: Snapshot, *, now_ms: int, records: Iterable[Mapping[str, Any]] = ()
) -> Verification:
    """Ask both engines what the pack's tests, its rows and logged decisions ask; `now_ms` is when rows are asked about."""
    judge = _Judge(pack.model_text)
    skipped = 0
    for put in (*_of_tests(pack, snapshot), *_of_rows(snapshot, now_ms)):
        judge.hear(put)
    for record in records:
        puts = _of_record(pack, snapshot, record)
        skipped += not puts
        for put in puts:
            judge.hear(put)
    return Verification(asked=judge.asked, skipped=skipped, differences=tuple(judge.differences))


class _Judge:
    """Hears both engines; keeps the oracle of the last policy, for most questions are put to the same."""

    def __init__(self, model_text: str) -> None:
        self._text = model_text
        self._oracle: tuple[Snapshot, int, Oracle] | None = None
        self._traps: tuple[Snapshot, frozenset[str]] | None = None
        self.asked = 0
        self.differences: list[Difference] = []

    def hear(self, put: _Put) -> None:
        ours = evaluate(put.snapshot, put.request, put.now_ms)
        theirs = self._oracle_of(put).ask(put.request)
        self.asked += 1
        if theirs.allowed is (ours.effect is Effect.ALLOW):
            return
        self.differences.append(
            Difference(
                where=put.where,
                question=", ".join((f"r{put.request.context}", *map(str, put.request.values))),
                ours=f"{ours.effect.name.lower()} {ours.reason.value}",
                theirs=_told(theirs),
                divergence=self._explained(put, ours, theirs),
            )
        )

    def _oracle_of(self, put: _Put) -> Oracle:
        if self._oracle is None or self._oracle[0] is not put.snapshot or self._oracle[1] != put.now_ms:
            snapshot = put.snapshot
            oracle = Oracle(
                model_text=self._text,
                model=snapshot.model,
                vocabulary=snapshot.vocabulary,
                rows=snapshot.rows,
                now_ms=put.now_ms,
            )
            self._oracle = (snapshot, put.now_ms, oracle)
        return self._oracle[2]

    def _explained(self, put: _Put, ours: Outcome, theirs: Testimony) -> str:
        return explain_difference(put.snapshot, put.request, ours, theirs, self._traps_of(put.snapshot))

    def _traps_of(self, snapshot: Snapshot) -> frozenset[str]:
        """Return the numbers of the entries that the policy touches and that change answers without refusing it."""
        if self._traps is None or self._traps[0] is not snapshot:
            found = frozenset(
                trap.divergence
                for trap in find_traps_in(self._text, snapshot.rows)
                if trap.answer in {Answer.NARROWER, Answer.WIDER} or trap.divergence in NARROWER
            )
            self._traps = (snapshot, found)
        return self._traps[1]


def _told(theirs: Testimony) -> str:
    if theirs.allowed is None:
        return f"raised {theirs.error}"
    return "allow" if theirs.allowed else "deny"


def explain_difference(
    snapshot: Snapshot, request: EngineRequest, ours: Outcome, theirs: Testimony, traps: frozenset[str]
) -> str:
    """Return the number of the entry that explains a difference, or an empty string."""
    context = snapshot.model.contexts[request.context]
    reasons = {
        Reason.SUBJECT_IS_ROLE: "D-44",
        Reason.BAD_REQUEST: "D-03",
        Reason.BAD_NAME: "D-27",
        Reason.BUDGET_EXCEEDED: "D-34",
    }
    if ours.reason in reasons:
        return reasons[ours.reason]
    if not any(row.section == context.section for row in snapshot.rows):
        return "D-02"
    if request.context and context.effect is not snapshot.model.contexts[""].effect:
        return "D-05"
    if len(ours.role_path) > _DEEP or "D-39" in traps:
        return "D-39"
    if theirs.error.startswith(_ABSENT):
        return "D-24"
    mapped = any(type(value) is str and value.lower().startswith("::ffff:") for value in request.values)
    by_construct = _by_construct(context, traps, raised=theirs.allowed is None, mapped=mapped)
    return "D-24" if by_construct == UNLISTED and ours.reason is Reason.CONDITION_ERROR else by_construct


def _by_construct(context: Context, traps: frozenset[str], *, raised: bool, mapped: bool) -> str:
    """Return the entry that the matcher itself, or what its rows hold, explains a difference by."""
    for node in walk(context.matcher):
        if isinstance(node, Literal) and isinstance(node.value, str) and "D-19" in traps:
            return "D-19"
        if isinstance(node, Call) and node.function == "ipMatch" and (raised or mapped):
            return "D-36"
        if isinstance(node, Not) and any(isinstance(one, Call) and one.function == "when" for one in walk(node)):
            return "D-24"
        if isinstance(node, Compare) and raised:
            return "D-21"
    return next((entry for entry in ("D-28", "D-34") if entry in traps), UNLISTED)


# --- where questions come from ---------------------------------------------------------------------------------------


def _of_tests(pack: Pack, snapshot: Snapshot) -> Iterator[_Put]:
    for asked in questions_of(pack, snapshot):
        case = open_case(asked.world, asked.question)
        yield from _of_case(case, f"{asked.test.file}:{asked.test.line}", asked.now_ms)


def _of_case(case: Case | Decision, where: str, now_ms: int) -> Iterator[_Put]:
    """Yield what `decide` asks the engine about one question; nothing if it is refused before."""
    if isinstance(case, Decision):
        return
    requests = [grant_request(case, party) for party in (case.question.subject, *case.question.actors)]
    if case.segmented:
        requests.insert(0, segmentation_request(case, now_ms))
    for request in requests:
        yield _Put(where=where, snapshot=case.snapshot, request=request, now_ms=now_ms)


def _of_record(pack: Pack, snapshot: Snapshot, record: Mapping[str, Any]) -> tuple[_Put, ...]:
    """Return what a logged decision asks, of the pack; nothing if the pack does not know its asset or its words."""
    try:
        question = Question(
            subject=_party(record),
            actors=tuple(_party(actor) for actor in record["actors"]),
            action=Action.parse(record["action"]),
            resource=Resource.parse(record["resource"]),
            workload=Principal.parse(record["workload"]) if record["workload"] else None,
            serves=Resource.parse(record["serves"]) if record["serves"] else None,
            attributes=_values(record["attributes"]),
            claims=_values(record.get("claims", {})),
        )
        case = open_case(pack_world(pack, snapshot), question)
        return tuple(_of_case(case, f"decision {record['decision_id']}", int(record["now_ms"])))
    except (PortcullisError, KeyError, TypeError, ValueError):
        return ()


def _party(raw: Mapping[str, Any]) -> Party:
    return Party(principal=Principal.parse(raw["principal"]), groups=frozenset(raw["groups"]))


def _values(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}


_HOLDERS: Final = 3
"""Names that hold a row's role directly and are asked about, beside the one in the row."""


def _of_rows(snapshot: Snapshot, now_ms: int) -> Iterator[_Put]:
    """Yield the question that each policy row answers, with a name for each of its patterns."""
    for context in snapshot.model.contexts.values():
        for row in snapshot.rows:
            if row.section == context.section:
                for values in _asked_by(row, context, snapshot.rows):
                    request = EngineRequest(
                        context=context.suffix, values=values, memberships={}, attributes=NO_ATTRIBUTES
                    )
                    yield _Put(where=row.id, snapshot=snapshot, request=request, now_ms=now_ms)


def _named(value: str, at: int) -> str:
    """Return a name that a resource pattern of ours covers: a name holds no `*`, so no question could ask about one."""
    if at == 0 or "/" not in value:
        return value
    return re.sub(r"(?<=/)\*\*?(?=/|@|$)", "any", value)


def _asked_by(row: Row, context: Context, rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Yield requests about what a row says: for the name in it, and for some who hold that name as a role."""
    fields = dict(zip(context.policy, row.fields, strict=True))
    subject = context.policy[0]
    told = [_named(fields.get(name, row.fields[0] if at == 0 else ""), at) for at, name in enumerate(context.request)]
    if "" in told:
        return
    yield tuple(told)
    place = context.request.index(subject) if subject in context.request else 0
    holders = (link.fields[0] for link in rows if link.section[0] == "g" and link.fields[1] == told[place])
    for holder in islice(dict.fromkeys(holders), _HOLDERS):
        yield (*told[:place], holder, *told[place + 1 :])
