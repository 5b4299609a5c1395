"""Why not: the rule that came closest to granting, and the part of it that failed. Only ever computed when asked for.

This walks every rule of the context with the functions themselves, not the index: an explanation may take milliseconds,
and must not share a mistake with what it explains.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pdp.engine.casbin_text import EffectRule
from pdp.engine.compiler import CompiledContext, Rule, Snapshot
from pdp.engine.conditions import Condition
from pdp.engine.evaluate import EngineRequest
from pdp.engine.explain_general import general_miss
from pdp.engine.functions import ANY, FUNCTIONS
from pdp.engine.plan import EQUAL, LITERAL, ROLE, Column, Term
from pdp.model.decision import NearestMiss
from pdp.model.names import NO_SEGMENT

_MOST_FAILED: Final = 2
"""A rule that misses by more than two of its parts says nothing about the question."""

_LIKELY: Final = ("condition", "time", "environment", "role", "segment", "action", "resource")
"""Which part of a rule is most likely what stood in the way, if two rules miss by one part each."""


def nearest_miss(snapshot: Snapshot, request: EngineRequest, now_ms: int) -> NearestMiss | None:
    """Return the deny row that refused `request`, or else the allow row that came closest to granting it."""
    compiled = snapshot.contexts.get(request.context)
    if compiled is None or len(request.values) != len(compiled.context.request):
        return None
    if not _tellable(snapshot, compiled, request):
        return general_miss(snapshot, request, now_ms)
    case = _Case(snapshot, compiled, request, now_ms)
    if compiled.context.effect is EffectRule.ALLOW_AND_DENY:
        for rule in compiled.rules:
            if not rule.allow and not any(case.failures(rule)):
                return NearestMiss(rule=rule.row.id, failed="deny", text=case.tell(rule, tuple(case.standing_by(rule))))
    return case.nearest()


def _tellable(snapshot: Snapshot, compiled: CompiledContext, request: EngineRequest) -> bool:
    """Tell whether a rule can be told in words of ours (role, action, resource); others are told in those of the matcher."""
    paths = any(term.path for column in compiled.plan.columns for term in column.terms)
    texts = all(type(value) is str for value in request.values)
    return compiled.direct and not snapshot.model.plain and not paths and texts


@dataclass(frozen=True, slots=True)
class _Failure:
    """A part of a rule that does not fit the question: which, and how the question differs."""

    part: str
    differs: str


class _Case:
    def __init__(self, snapshot: Snapshot, compiled: CompiledContext, request: EngineRequest, now_ms: int) -> None:
        self._compiled = compiled
        self._request = request
        self._now_ms = now_ms
        self._fields = compiled.context.request
        self._snapshot = snapshot
        self._standing: dict[tuple[Term, str], set[str]] = {}

    def nearest(self) -> NearestMiss | None:
        best: tuple[tuple[int, int, str, int], Rule, tuple[_Failure, ...]] | None = None
        for rule in self._compiled.rules:
            if not rule.allow:
                continue
            failures = tuple(self._few(rule))
            if len(failures) > _MOST_FAILED or not failures:
                continue
            likely = min(_LIKELY.index(failure.part) for failure in failures)
            rank = (len(failures), likely, rule.row.file, rule.row.line)
            if best is None or rank < best[0]:
                best = (rank, rule, failures)
        if best is None:
            return None
        _, rule, failures = best
        return NearestMiss(rule=rule.row.id, failed=failures[0].part, text=self.tell(rule, failures))

    def _few(self, rule: Rule) -> Iterator[_Failure]:
        """Yield the failures of a rule, and stop as soon as there are too many."""
        for count, failure in enumerate(self.failures(rule), start=1):
            yield failure
            if count > _MOST_FAILED:
                return

    def failures(self, rule: Rule) -> Iterator[_Failure]:
        """Yield each part of the rule that does not fit; its condition only if all else does."""
        fits = True
        for column in self._compiled.plan.columns:
            written = rule.row.fields[column.position]
            if not any(self._accepts(term, written, rule) for term in column.terms):
                fits = False
                yield self._failure(column, written, rule)
        if not fits or rule.condition is None:
            return
        verdict = rule.condition.holds(self._request.attributes, self._now_ms)
        if verdict is None and rule.allow:
            yield _Failure("condition", self._unknown(rule.condition))
        elif verdict is False:
            yield _Failure("condition", f"its condition `{rule.condition.text}` does not hold")

    def _unknown(self, condition: Condition) -> str:
        missing = [name for name, _ in condition.reads if name not in self._request.attributes]
        because = f": `{'`, `'.join(missing)}` is not known" if missing else ""
        return f"its condition `{condition.text}` cannot be evaluated{because}"

    def standing_by(self, rule: Rule) -> Iterator[_Failure]:
        """Yield why a deny that matches counts, if it has a condition: it holds, or cannot be ruled out."""
        if rule.condition is None:
            return
        if rule.condition.holds(self._request.attributes, self._now_ms) is None:
            yield _Failure("condition", f"{self._unknown(rule.condition)}, and what cannot be ruled out counts")
        else:
            yield _Failure("condition", f"its condition `{rule.condition.text}` holds")

    def _accepts(self, term: Term, written: str, rule: Rule) -> bool:
        if term.kind == ROLE:
            return written in self._stands_for(term, self._domain(term, rule))
        if term.kind == LITERAL:
            return written == term.text
        value = self._request.values[term.field]
        return bool(value == written if term.kind == EQUAL else FUNCTIONS[term.kind](value, written))

    def _failure(self, column: Column, written: str, rule: Rule) -> _Failure:
        term = column.terms[0]
        value = self._request.values[term.field]
        match term.kind:
            case "envMatch":
                return _Failure("environment", f"the asset is in `{value}`")
            case "actionMatch":
                return _Failure("action", f"the question asks for `{value}`")
            case "g" if written.startswith("segment:"):
                return _Failure("segment", self._placed(term))
            case "g" if term.domain is not None or term.section == "g":
                when = self._when(term, written, self._domain(term, rule))
                if when:
                    return _Failure("time", f"`{value}` {when}")
                return _Failure("role", f"`{value}` does not hold it{self._where(term)}")
            case _:
                return _Failure("resource", f"the question names `{value}`")

    def _when(self, term: Term, role: str, domain: str) -> str:
        """Say when the request's name holds a role that it does not hold now; nothing, if it never does."""
        graph = self._snapshot.graphs[term.section]
        reaches = [
            graph.reaches.get(each, {}).get(node) for each in {domain, ANY} for node in graph.nodes(self._names(term))
        ]
        windows = [window for reach in reaches if reach for target, window in reach.timed if target == role]
        ahead = [window.start_ms for window in windows if window.start_ms >= self._now_ms]
        if ahead:
            return f"holds it only from {_instant(min(ahead))}"
        ended = [window.end_ms for window in windows]
        return f"held it until {_instant(max(ended))}" if ended else ""

    def _placed(self, term: Term) -> str:
        segments = sorted(name for name in self._stands_for(term, ANY) if name.startswith("segment:")) or [NO_SEGMENT]
        who = "the caller" if term.field == 0 else "the asset"
        return f"{who} is in `{'`, `'.join(segments)}`"

    def _where(self, term: Term) -> str:
        return "" if term.domain is None else f" in `{self._request.values[term.domain]}`"

    def _names(self, term: Term) -> tuple[str, ...]:
        return (self._request.values[term.field], *self._request.memberships.get(self._fields[term.field], ()))

    def _domain(self, term: Term, rule: Rule) -> str:
        """Return the domain in which to look for a role: that of the rule, if the rule is for another environment.

        Who holds a role in `dev` and asks in `prod` misses by the environment alone, not by role and environment.
        """
        if term.domain is None:
            return ANY
        for column in self._compiled.plan.columns:
            written = rule.row.fields[column.position]
            if any(one.kind == "envMatch" and one.field == term.domain for one in column.terms) and written != ANY:
                return written
        return str(self._request.values[term.domain])

    def _stands_for(self, term: Term, domain: str) -> set[str]:
        if (term, domain) not in self._standing:
            graph = self._snapshot.graphs[term.section]
            self._standing[term, domain], _ = graph.standing(self._names(term), domain, self._now_ms)
        return self._standing[term, domain]

    def _what(self, actions: str, failures: tuple[_Failure, ...]) -> str:
        """Return the action that the question asks for, if the rule names it among others; else all that it names."""
        if actions != ANY and not any(failure.part == "action" for failure in failures):
            asked = dict(zip(self._fields, self._request.values, strict=True))
            actions = asked.get("act", actions)
        return "everything" if actions == ANY else f"`{actions}`"

    def tell(self, rule: Rule, failures: tuple[_Failure, ...]) -> str:
        """Return the sentence: what the rule says, and how the question differs."""
        said = dict(zip(self._compiled.context.policy, rule.row.fields, strict=True))
        who = said.get("role") or said.get("src") or said.get("sub") or rule.row.fields[0]
        what, where = self._what(said.get("act", ANY), failures), said.get("obj") or said.get("dst") or ""
        verb = "grants" if rule.allow else "denies"
        environment = said.get("env", ANY)
        scope = "" if environment == ANY else f" in `{environment}`"
        sentence = f"`{who}` {verb} {what} on `{where}`{scope}"
        return "; ".join((sentence, *(failure.differs for failure in failures)))


def _instant(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
