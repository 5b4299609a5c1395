"""Why not, under any matcher: the rule that came closest to granting, and the parts of the matcher that it fails.

The parts are those of the plan (columns, guards, what is left), each evaluated on every rule by itself: an explanation
shares the tests of the matcher with the decision, but not the index. Values of the question stand beside the part, so that
the reader sees what was compared.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pdp.engine.casbin_text import EffectRule, print_row
from pdp.engine.closures import Test
from pdp.engine.compiler import CompiledContext, Rule, Snapshot
from pdp.engine.evaluate import EngineRequest, asker, in_order
from pdp.engine.expression import Expression, Field, walk
from pdp.engine.expression_text import printed
from pdp.engine.functions import Truth, attribute, kleene_and, kleene_or
from pdp.engine.question import refusal
from pdp.model.decision import NearestMiss

_MOST_FAILED: Final = 2
"""A rule that misses by more parts than this says nothing about the question."""
_LONGEST: Final = 160
"""Characters of a row, or of a value, that a sentence shows."""

_GUARD: Final = "question"
"""The name of a part that reads the question alone."""

Ask = Callable[[Test, Rule], Truth]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A part of the matcher: its name, its tree, and the test that was made of it."""

    name: str
    tree: Expression
    test: Test


def general_miss(snapshot: Snapshot, request: EngineRequest, now_ms: int) -> NearestMiss | None:
    """Return the deny row that refused `request`, or else the allow row that came closest; None if no rule was asked."""
    compiled = snapshot.contexts[request.context]
    if refusal(snapshot.model, snapshot.role_names, request) is not None:
        return None
    ask = asker(snapshot, request, now_ms)
    branches = tuple(tuple(_parts(compiled, number)) for number in range(len(compiled.branches)))
    explainer = _Explainer(compiled, request, now_ms, ask, branches)
    return explainer.refusing() or explainer.nearest()


def _parts(compiled: CompiledContext, number: int) -> Iterator[_Part]:
    planned, made = compiled.plan.branches[number], compiled.branches[number]
    for tree, test in zip(planned.guards, made.guards, strict=True):
        yield _Part(name=_GUARD, tree=tree, test=test)
    names = [*(column.name for column in planned.columns), *("matcher" for _ in planned.residual)]
    trees = [*(column.tree for column in planned.columns), *planned.residual]
    for name, tree, test in zip(names, trees, made.whole, strict=True):
        yield _Part(name=name, tree=tree, test=test)


@dataclass(frozen=True, slots=True)
class _Explainer:
    compiled: CompiledContext
    request: EngineRequest
    now_ms: int
    ask: Ask
    branches: tuple[tuple[_Part, ...], ...]

    def refusing(self) -> NearestMiss | None:
        """Return the deny row that decides, if one does."""
        effect = self.compiled.context.effect
        if effect is EffectRule.ALLOW_OVERRIDE:
            return None
        found = [(rule, self._truth(rule)) for rule in sorted(self.compiled.rules, key=in_order)]
        # A deny that cannot be ruled out counts; an allow that cannot be said to hold is passed over.
        counts = [(rule, truth) for rule, truth in found if truth is True or (truth is None and not rule.allow)]
        deciding = counts[:1] if effect.ordered else [one for one in counts if not one[0].allow]
        for rule, truth in sorted(deciding, key=lambda one: one[1] is None):
            if not rule.allow:
                why = "" if truth else "; it cannot be ruled out, and so it counts"
                return NearestMiss(rule=rule.row.id, failed="deny", text=f"`{_short(print_row(rule.row))}` denies{why}")
        return None

    def nearest(self) -> NearestMiss | None:
        best: tuple[int, bool, int] = (_MOST_FAILED + 1, False, 0)
        found: NearestMiss | None = None
        for place, rule in enumerate(sorted(self.compiled.rules, key=in_order)):
            for parts in self.branches if rule.allow else ():
                failed = tuple(self._failures(rule, parts))
                # What only reads the question ("is it root?") is fewest parts away from everybody: said last.
                rank = len(failed), bool(failed) and failed[0][0] == _GUARD, place
                if failed and rank < best:
                    best = rank
                    text = "; ".join((f"`{_short(print_row(rule.row))}` allows", *(differs for _, differs in failed)))
                    found = NearestMiss(rule=rule.row.id, failed=failed[0][0], text=text)
        return found

    def _failures(self, rule: Rule, parts: Iterable[_Part]) -> Iterator[tuple[str, str]]:
        """Yield name and sentence of each part that does not hold for a rule, its own condition last."""
        for part in parts:
            truth = self.ask(part.test, rule)
            if truth is not True:
                yield part.name, self._differs(part, truth)
        if rule.condition is not None:
            verdict = rule.condition.holds(self.request.attributes, self.now_ms)
            if verdict is not True:
                says = "does not hold" if verdict is False else "cannot be evaluated"
                yield "condition", f"its condition `{rule.condition.text}` {says}"

    def _truth(self, rule: Rule) -> Truth:
        matched = kleene_or(kleene_and(self.ask(part.test, rule) for part in parts) for parts in self.branches)
        own = rule.condition.holds(self.request.attributes, self.now_ms) if rule.condition else True
        return kleene_and((matched, own))

    def _differs(self, part: _Part, truth: Truth) -> str:
        fields = dict.fromkeys(
            node for node in walk(part.tree) if isinstance(node, Field) and node.scope.startswith("r")
        )
        values = dict(zip(self.compiled.context.request, self.request.values, strict=True))
        shown = {printed(field): attribute(values[field.name], field.rest) for field in fields}
        asked = ", ".join(f"`{name}` is {_value(value)}" for name, value in shown.items())
        says = "does not hold" if truth is False else "cannot be said to hold"
        return f"`{printed(part.tree)}` {says}" + (f": {asked}" if asked else "")


def _value(value: object) -> str:
    if value is None:
        return "absent"
    return f"`{_short(value)}`" if isinstance(value, str) else f"`{_short(repr(value))}`"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
