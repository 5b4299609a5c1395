"""`decide(world, question, now)`: the one place where an access is granted.

A pure function, total: it awaits nothing, reads no clock, logs nothing and raises nothing in normal use. The stages run in
the order of ARCHITECTURE section 5, and the first that refuses is the answer:

    question well-formed -> locks -> asset registered -> segmentation (r2/p2) -> grants (r/p/g) -> actors -> obligations

While a canary runs, the questions in its scope are decided under its candidate in the place of the live policy, and their
decisions say so. It never decides about administration: who may change or end it, only the live policy says.

Both segmentation and grants must allow; a delegated access needs an allow for the subject and for the current actor, and
every nested actor may only tighten (IDENTITY.md AC-1, AC-2).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from pdp.engine.compiler import Snapshot
from pdp.engine.evaluate import EngineRequest, Outcome
from pdp.engine.explain import nearest_miss
from pdp.engine.memory import Kept
from pdp.engine.obligations import merge, recheck_after_s
from pdp.engine.recall import BROUGHT, recall
from pdp.engine.roles import Timed
from pdp.errors import BadRequestError, Reason
from pdp.inventory import BUILTIN_ASSETS, Asset
from pdp.limits import MAX_CLOCK_SKEW_S, MAX_RECHECK_S, MAX_STALENESS_S
from pdp.model.attributes import Attributes, Value, check_value
from pdp.model.decision import Decision, Effect, NearestMiss, Obligation, Settled, deny
from pdp.model.names import NO_SEGMENT, Kind, Principal
from pdp.model.request import Party, Question
from pdp.signals.locks import Lock
from pdp.world import Policy, World

GRANTS: Final = ""
SEGMENTATION: Final = "2"
_NOTHING: Final[frozenset[str]] = frozenset()
_OF_SUBJECT: Final = frozenset({"subject.id", "subject.kind", "subject.groups"})
"""The attributes that follow from a subject's principal and groups."""
_STRICTEST_S: Final = min(MAX_STALENESS_S.values())
_ALLOW: Final = Effect.ALLOW  # a member of an enumeration takes 50 ns to look up
CLOCK_OFF: Final = (
    f"this clock is over {MAX_CLOCK_SKEW_S:.0f} s off signed time: roles with a start or an end do not count"
)
"""Detail of a deny while the clock is off (FAILURE.md F12)."""


def decide(world: World, question: Question, now_ms: int, *, clock_off: bool = False, point: str = "") -> Decision:
    """Decide `question` in `world` at wall-clock time `now_ms` (milliseconds since the epoch).

    With `clock_off` the clock is too far off signed time to say whether a role with a start or an end is in force: such a
    role then allows nothing, and what it denies stays denied. `point` is the enforcement point that decides, where it has a
    name: a canary may be for some alone.
    """
    settled = question.settled
    if settled is not None and settled.world is world.mark and not clock_off:
        return _until_expiry(settled.decision, question.credential.expires_at_s, now_ms)
    candidate = world.candidate and candidate_for(world, question, now_ms, clock_off=clock_off, point=point)
    case = open_case(world, question, candidate)
    if isinstance(case, Decision):
        decision = case
    elif clock_off:
        decision = _doubted(case, now_ms)
    else:
        decision = _decided(case, now_ms)
    return decision if candidate is None else _of_canary(world, decision, candidate, now_ms)


def candidate_for(
    world: World, question: Question, now_ms: int, *, clock_off: bool = False, point: str = ""
) -> Policy | None:
    """Return the policy of the canary, if the question is in its scope; None where the live policy decides.

    A clock that is off cannot tell whether the canary's time is over, so that then it is.
    """
    if world.candidate is None or clock_off or str(question.resource) in BUILTIN_ASSETS:
        return None
    canary = world.trials.canary
    covered = canary is not None and canary.covers(str(question.subject.principal), point, now_ms)
    return world.candidate if covered else None


def _of_canary(world: World, decision: Decision, candidate: Policy, now_ms: int) -> Decision:
    """Say of a decision whose it is, and have it looked at again when the canary's time is over."""
    canary = world.trials.canary
    ends = [(canary.end_ms - now_ms) / 1000] if canary else []
    again_s = min(bound for bound in (decision.recheck_after_s, *ends) if bound is not None)
    return replace(decision, candidate=candidate.revision, recheck_after_s=again_s)


def _decided(case: "Case", now_ms: int) -> Decision:
    lock = case.world.locks.match(case.question, now_ms)
    return _judge(case, now_ms) if lock is None else _locked(case, lock, now_ms)


def _locked(case: "Case", lock: Lock, now_ms: int) -> Decision:
    again_s = (lock.end_ms - now_ms) / 1000 if lock.end_ms else None
    return case.deny(Reason.LOCKED, detail=f"lock `{lock.id}`", again_s=again_s)


def _doubted(case: "Case", now_ms: int) -> Decision:
    """Allow only what is allowed whichever of the timed roles are in force.

    Allow rows can only be fewer than with none of them, deny rows only more than with all of them, so that both together
    bound every time there is.
    """
    every, no = (_decided(case._replace(snapshot=case.snapshot.under(how)), now_ms) for how in (Timed.ALL, Timed.NONE))
    decision = no if every.allowed else every
    soon = MAX_RECHECK_S if decision.recheck_after_s is None else min(MAX_RECHECK_S, decision.recheck_after_s)
    detail = decision.detail if decision.allowed or decision.detail else CLOCK_OFF
    return replace(decision, recheck_after_s=soon, detail=detail)


def explain(world: World, question: Question, now_ms: int, *, clock_off: bool = False, point: str = "") -> Decision:
    """As `decide`; a deny that some rule nearly turned into an allow also carries the nearest miss."""
    decision = decide(world, question, now_ms, clock_off=clock_off, point=point)
    case = open_case(world, question, candidate_for(world, question, now_ms, clock_off=clock_off, point=point))
    if decision.allowed or isinstance(case, Decision):
        return decision
    miss = _miss(case, decision, now_ms)
    return replace(decision, nearest_miss=miss) if miss else decision


def bounded(decision: Decision, world: World, question: Question, staleness_s: float) -> Decision:
    """Turn an allow into deny `world_stale` if the world is older than the asset's sensitivity bears (FAILURE.md P6)."""
    if staleness_s <= _STRICTEST_S or not decision.allowed or staleness_s <= max_staleness_s(world, question):
        return decision
    return decision.refused(Reason.WORLD_STALE, "the newest signed head is older than this asset's sensitivity allows")


def max_staleness_s(world: World, question: Question) -> float:
    """Return how old, in seconds, the signed head may be for the asset in question, and for the model behind it."""
    touched = [world.asset(name) for name in (question.resource, question.serves) if name is not None]
    return min(MAX_STALENESS_S[asset.sensitivity if asset else "high"] for asset in touched)


class Case(NamedTuple):
    """A well-formed question about a registered asset, with everything that the engine reads."""

    world: World
    snapshot: Snapshot
    question: Question
    asset: Asset
    attributes: Attributes
    segmented: bool

    def deny(
        self, reason: Reason, outcome: Outcome | None = None, detail: str = "", again_s: float | None = None
    ) -> Decision:
        """Return a deny for this case, with the rules of `outcome` if one determined it."""
        return Decision(
            effect=Effect.DENY,
            reason=reason,
            world_seq=self.world.seq,
            determining=outcome.determining if outcome else (),
            role_path=outcome.role_path if outcome else (),
            recheck_after_s=again_s,
            detail=detail,
        )


def open_case(world: World, question: Question, policy: Policy | None = None) -> Case | Decision:
    """Check the question against vocabulary and inventory; locks are looked at in `_decided`. `policy`: not the live one."""
    snapshot = policy.snapshot if policy else world.snapshot
    if snapshot is None:
        return deny(Reason.WORLD_STALE, world_seq=world.seq, detail="no policy is held yet")
    refusal = _malformed(snapshot, question)
    if refusal is not None:
        return deny(refusal[0], world_seq=world.seq, detail=refusal[1])
    asset = world.asset(question.resource)
    if asset is None or (question.serves is not None and world.asset(question.serves) is None):
        return _unregistered(world, question, asset)
    info = snapshot.vocabulary.types[question.action.type]
    return Case(world, snapshot, question, asset, _Gathered(snapshot, question, asset), info.segmented)


def _unregistered(world: World, question: Question, asset: Asset | None) -> Decision:
    missing = question.resource if asset is None else question.serves
    retired = world.retired.get(str(missing))
    if retired is not None:
        detail = f"`{missing}` was retired in entry {retired.seq}: {retired.reason}"
        return deny(Reason.ASSET_RETIRED, world_seq=world.seq, detail=detail)
    return deny(Reason.ASSET_UNREGISTERED, world_seq=world.seq, detail=f"`{missing}` is not in the inventory")


def _malformed(snapshot: Snapshot, question: Question) -> tuple[Reason, str] | None:
    """Return why the question cannot be asked in this vocabulary, or None."""
    action, resource = question.action, question.resource
    if not snapshot.vocabulary.knows(action):
        return Reason.UNKNOWN_ACTION, f"the vocabulary knows no action `{action}`"
    if action.type != resource.type:
        return Reason.BAD_REQUEST, f"`{action}` is no action on a {resource.type}"
    if not resource.version and action.verb in snapshot.vocabulary.types[action.type].versioned_verbs:
        return Reason.BAD_REQUEST, f"`{action}` needs a version: `{resource}@<version>`"
    for party in (question.subject, *question.actors):
        if party.principal.text in snapshot.role_names:
            return Reason.SUBJECT_IS_ROLE, "a principal bears the name of a role"
    return _bad_attribute(snapshot, question) if question.attributes else None


def _bad_attribute(snapshot: Snapshot, question: Question) -> tuple[Reason, str] | None:
    known = snapshot.vocabulary.attributes
    for name, value in question.attributes.items():
        if not name.startswith(BROUGHT) or name not in known:
            return Reason.BAD_REQUEST, f"the vocabulary knows no request attribute `{name}`"
        try:
            check_value(name, value, known[name].type)
        except BadRequestError as error:
            return Reason.BAD_REQUEST, error.message
    return None


class _Gathered(Mapping[str, Value]):
    """What conditions may read, gathered when the first one does: most rules have none, and it costs 4 us."""

    __slots__ = ("_held", "_of")

    def __init__(self, snapshot: Snapshot, question: Question, asset: Asset) -> None:
        self._of = snapshot, question, asset
        self._held: dict[str, Value] | None = None

    def _all(self) -> dict[str, Value]:
        if self._held is None:
            self._held = _attributes(*self._of)
        return self._held

    def __getitem__(self, name: str) -> Value:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def _attributes(snapshot: Snapshot, question: Question, asset: Asset) -> dict[str, Value]:
    """Gather what conditions may read; the inventory is written last, so that it beats the request."""
    subject = question.subject.principal
    derived: dict[str, Value] = {
        "subject.id": str(subject),
        "subject.kind": subject.kind.value,
        "subject.groups": tuple(sorted(question.subject.groups)),
        "resource.type": question.resource.type,
        "resource.registered": True,
    }
    if question.credential.issuer:
        derived["subject.iss"] = question.credential.issuer
    if question.workload is not None:
        derived["subject.workload_id"] = str(question.workload)
    if question.actors:
        derived["actor.id"] = str(question.actors[0].principal)
    known = snapshot.vocabulary.attributes
    return {
        **question.attributes,
        # INVARIANT: what begins with `resource.` is the inventory's alone to say; `recall` counts on it.
        **{name: value for name, value in question.claims.items() if name.startswith("subject.") and name in known},
        **{name: value for name, value in derived.items() if name in known},
        **asset.attributes,
    }


class _Made(NamedTuple):
    """A decision, and all that it was made of: for the next question that leads to the same."""

    world_seq: int
    outcomes: list[Outcome]
    supports: frozenset[str] | None
    decision: Decision

    def follows(self, world_seq: int, outcomes: list[Outcome], supports: frozenset[str] | None) -> bool:
        """Tell whether the decision follows from these, too."""
        return self.world_seq == world_seq and self.supports == supports and self.outcomes == outcomes


def _judge(case: Case, now_ms: int) -> Decision:
    """Run the stages and return what follows from them: the decision made before, where it does and time cannot change it.

    But for the credential's end, which only bounds the time of the next look.
    """
    asked, refusal = _asked(case, now_ms)
    outcomes = [one.outcome for one in asked]
    question, made = case.question, asked[-1].made
    expires_at_s = question.credential.expires_at_s
    decision: Decision
    if made is not None and made.follows(case.world.seq, outcomes, question.supports):
        decision = made.decision
    else:
        decision = _settle(case, outcomes, refusal, now_ms)
        if any(outcome.reads_now or outcome.valid_until_ms is not None for outcome in outcomes):
            return _until_expiry(decision, expires_at_s, now_ms)
        asked[-1].made = _Made(case.world.seq, outcomes, question.supports, decision)
    if all(one.lasting for one in asked):
        _stand(case, decision)
    return _until_expiry(decision, expires_at_s, now_ms)


def _until_expiry(decision: Decision, expires_at_s: int, now_ms: int) -> Decision:
    """Return the decision, to be looked at again no later than when the credential ends; 0: it does not."""
    if not expires_at_s or decision.reason is Reason.OBLIGATION_UNSUPPORTED:  # no time turns that around
        return decision
    left_s, again_s = max(0.0, expires_at_s - now_ms / 1000), decision.recheck_after_s
    return decision if again_s is not None and again_s <= left_s else replace(decision, recheck_after_s=left_s)


def _stand(case: Case, decision: Decision) -> None:
    """Lay a decision that time cannot change beside its question, unless a lock or a canary could."""
    world, question = case.world, case.question
    if world.candidate is None and case.snapshot is world.snapshot and not world.locks.meets(question):
        object.__setattr__(question, "settled", Settled(world.mark, decision))


def _asked(case: Case, now_ms: int) -> tuple[list[Kept], Reason | None]:
    """Ask stage after stage, up to the first that refuses; return all that was said, and why the last refuses, if it does."""
    question = case.question
    asked: list[Kept] = []
    if case.segmented:
        asked.append(reach := _reach(case, now_ms))
        if reach.outcome.effect is not _ALLOW:
            return asked, Reason.SEGMENT_DENIED
    asked.append(own := _grant(case, question.subject, now_ms))
    if own.outcome.effect is not _ALLOW:
        return asked, own.outcome.reason
    for depth, actor in enumerate(question.actors):
        asked.append(acting := _grant(case, actor, now_ms))
        # A nested actor, behind the current one, needs no grant of its own: only a deny rule on it counts. Its outcome
        # goes along all the same, for a role that starts later may bring that rule.
        indifferent = depth > 0 and acting.outcome.reason is Reason.NO_GRANT
        if acting.outcome.effect is not _ALLOW and not indifferent:
            return asked, Reason.DELEGATION_DENIED
    return asked, None


def _reach(case: Case, now_ms: int) -> Kept:
    """Return whether segmentation lets the source reach the target."""
    question = case.question
    source = _source(question)
    return recall(
        case.snapshot,
        SEGMENTATION,
        now_ms,
        said=(source.text if source else NO_SEGMENT, question.action.text, question.resource.text),
        given=_NOTHING,
        asset=case.asset,
        brought=question.attributes,
        attributes=case.attributes,
        request=lambda: segmentation_request(case, now_ms),
    )


def _grant(case: Case, party: Party, now_ms: int) -> Kept:
    """Return whether `party` is granted the access."""
    question = case.question
    return recall(
        case.snapshot,
        GRANTS,
        now_ms,
        said=(party.principal.text, party.groups, question.action.text, question.resource.text),
        given=_OF_SUBJECT if party is question.subject else _NOTHING,
        asset=case.asset,
        brought=question.attributes,
        attributes=case.attributes,
        request=lambda: grant_request(case, party),
    )


def grant_request(case: Case, party: Party) -> EngineRequest:
    """Return the question whether `party` is granted the access."""
    question = case.question
    values = (str(party.principal), str(question.action), str(question.resource), case.asset.environment)
    return EngineRequest(GRANTS, values, {"sub": tuple(party.groups)} if party.groups else {}, case.attributes)


def segmentation_request(case: Case, now_ms: int) -> EngineRequest:
    """Return the question of segmentation: from the caller's own workload; who has none, or no segment, is in `segment:none`."""
    source = _source(case.question)
    name = str(source) if source else NO_SEGMENT
    target = str(case.question.resource)
    # The engine finds by itself what a name stands for: only what the role rows do not say goes along.
    memberships = {}
    if source is None or not case.snapshot.groups_of("g3", name, now_ms):
        memberships["src"] = (NO_SEGMENT,)
    if case.asset.segment:
        memberships["dst"] = (case.asset.segment,)
    elif not case.snapshot.groups_of("g3", target, now_ms):
        memberships["dst"] = (NO_SEGMENT,)
    return EngineRequest(SEGMENTATION, (name, str(case.question.action), target), memberships, case.attributes)


def _source(question: Question) -> Principal | None:
    """Return the workload that asks: the one that was verified, else an acting or asking workload identity."""
    if question.workload is not None:
        return question.workload
    asking = question.actors[0].principal if question.actors else question.subject.principal
    return asking if asking.kind is Kind.WORKLOAD else None


def _settle(case: Case, outcomes: Sequence[Outcome], refusal: Reason | None, now_ms: int) -> Decision:
    """Turn the stages' outcomes into the decision, with merged obligations and the next look that these ask for."""
    if refusal is not None:
        # Time alone may turn a deny around, too: a role starts, a condition reads the clock.
        return case.deny(refusal, outcomes[-1], again_s=_next_look_s(outcomes, (), now_ms))
    obligations = _duties(outcomes)
    if obligations is None:
        return case.deny(Reason.OBLIGATION_UNSUPPORTED, detail="two rules oblige to different things")
    supports = case.question.supports
    unable = [item.name for item in obligations if item.name not in supports] if supports is not None else ()
    if unable:
        return case.deny(Reason.OBLIGATION_UNSUPPORTED, detail=f"unable to carry out {', '.join(unable)}")
    granting = outcomes[1] if case.segmented else outcomes[0]
    return Decision(
        effect=Effect.ALLOW,
        reason=Reason.GRANTED,
        world_seq=case.world.seq,
        obligations=obligations,
        determining=tuple([row for outcome in outcomes for row in outcome.determining]),
        role_path=granting.role_path,
        recheck_after_s=_next_look_s(outcomes, obligations, now_ms),
    )


def _duties(outcomes: Sequence[Outcome]) -> tuple[Obligation, ...] | None:
    """Return what the outcomes oblige to, merged to the stricter; None if that is to deny."""
    obliging = [outcome.obligations for outcome in outcomes if outcome.obligations]
    if len(obliging) > 1:
        return merge(duty for duties in obliging for duty in duties)
    return obliging[0] if obliging else ()  # one outcome's are merged already


def _next_look_s(outcomes: Sequence[Outcome], obligations: tuple[Obligation, ...], now_ms: int) -> float | None:
    """Return the least of: obligation, role bound, and 30 s if a condition reads `now`."""
    bounds = []
    for outcome in outcomes:
        if outcome.valid_until_ms is not None:
            bounds.append((outcome.valid_until_ms - now_ms) / 1000)
        if outcome.reads_now:
            bounds.append(MAX_RECHECK_S)
    obliged = recheck_after_s(obligations) if obligations else None
    if obliged is not None:
        bounds.append(obliged)
    return max(0.0, min(bounds)) if bounds else None


def _miss(case: Case, decision: Decision, now_ms: int) -> NearestMiss | None:
    """Return the nearest miss of the stage that refused."""
    if decision.reason is Reason.SEGMENT_DENIED:
        return nearest_miss(case.snapshot, segmentation_request(case, now_ms), now_ms)
    if decision.reason is Reason.DELEGATION_DENIED:
        return nearest_miss(case.snapshot, grant_request(case, case.question.actors[0]), now_ms)
    if decision.reason in {Reason.NO_GRANT, Reason.DENIED_BY_RULE, Reason.CONDITION_ERROR}:
        return nearest_miss(case.snapshot, grant_request(case, case.question.subject), now_ms)
    return None
