"""The compiler: model, vocabulary and rows in; an immutable, indexed snapshot out, or every finding. Never half a result.

Theory of operation. Four passes, each over what the one before has left whole:

1. *shape*: every row has a type of the model, the right number of fields, no stray blanks (`casbin_text.check_shape`);
2. *meaning*: each field is what the matcher's test of its column can compare, conditions compile against the vocabulary,
   obligations are of the closed list (`checks`, `conditions`, `obligations`);
3. *roles*: each role section is closed into a graph (`roles`), cycles and depth reported;
4. *index*: each rule is entered under the keys of the plan's steps (`plan`, `index`).

A decision then needs only what its own question names. The snapshot is never changed; a new policy is a new snapshot.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from pdp.engine.casbin_text import Context, Model, Row, check_shape, parse_model
from pdp.engine.checks import Problem, check_role_row, check_value
from pdp.engine.conditions import Condition, ConditionError, Conditions
from pdp.engine.digests import rows_digest
from pdp.engine.findings import Finding, errors, finding, in_order
from pdp.engine.functions import ANY, action_alternatives
from pdp.engine.index import ExactStep, MixedStep, RoleStep, Step, insert, is_pattern, level_of, split_version
from pdp.engine.obligations import ObligationError, parse_then
from pdp.engine.plan import EQUAL, ROLE, Column, Plan, make_plan
from pdp.engine.roles import RoleGraph, Timed, close
from pdp.engine.vocabulary_text import parse_vocabulary
from pdp.model.decision import Obligation
from pdp.model.vocabulary import Vocabulary

MODEL_FILE: Final = "model.conf"
VOCABULARY_FILE: Final = "vocabulary.yaml"


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy row as decisions use it. Equality is identity: a row that is found by two keys is one rule."""

    row: Row
    allow: bool
    condition: Condition | None
    obligations: tuple[Obligation, ...]

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledContext:
    """One numbered set, ready to decide: its definition, its plan, its rules and the root of its index."""

    context: Context
    plan: Plan
    rules: tuple[Rule, ...]
    steps: tuple[Step, ...]
    root: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A compiled policy: immutable, and all that `evaluate` reads. `role_names` are the right sides of all `g` rows."""

    model: Model
    vocabulary: Vocabulary
    rows: tuple[Row, ...]
    digest: bytes
    role_names: frozenset[str]
    contexts: Mapping[str, CompiledContext]
    graphs: Mapping[str, RoleGraph]
    warnings: tuple[Finding, ...] = ()

    def groups_of(self, section: str, name: str, now_ms: int, domain: str = ANY) -> frozenset[str]:
        """Return all that `name` stands for in role section `section` now, without itself."""
        graph = self.graphs.get(section)
        if graph is None:
            return frozenset()
        standing, _ = graph.standing((name,), domain, now_ms)
        return frozenset(standing - {name})

    def under(self, timed: Timed) -> "Snapshot":
        """Return this snapshot with links that have a start or an end counting as `timed` says."""
        graphs = {section: replace(graph, timed=timed) for section, graph in self.graphs.items()}
        return replace(self, graphs=MappingProxyType(graphs))


def compile_texts(model_text: str, vocabulary_text: str, rows: Sequence[Row]) -> Snapshot | tuple[Finding, ...]:
    """Return the snapshot of a policy as the world log carries it, or every finding."""
    model, model_findings = parse_model(model_text, file=MODEL_FILE)
    vocabulary, vocabulary_findings = parse_vocabulary(vocabulary_text, file=VOCABULARY_FILE)
    if model is None or vocabulary is None:
        return (*model_findings, *vocabulary_findings)
    return compile_policy(model, vocabulary, rows)


def compile_policy(model: Model, vocabulary: Vocabulary, rows: Sequence[Row]) -> Snapshot | tuple[Finding, ...]:
    """Return the snapshot of `rows` under `model` and `vocabulary`, or every finding."""
    found: list[Finding] = [problem for row in rows for problem in check_shape(row, model)]
    plans = {suffix: make_plan(context, model) for suffix, context in model.contexts.items()}
    found.extend(problem for plan in plans.values() if isinstance(plan, tuple) for problem in plan)
    if errors(found):
        return in_order(found)
    work = _Compilation(model, vocabulary, rows, found)
    graphs = {section: work.graph(section) for section in model.roles}
    contexts = {suffix: work.context(suffix, plan) for suffix, plan in plans.items() if isinstance(plan, Plan)}
    found.extend(_repeated(rows))
    found.extend(_nothing_to_decide(model, contexts))
    if errors(found):
        return in_order(found)
    return Snapshot(
        model=model,
        vocabulary=vocabulary,
        rows=tuple(rows),
        digest=rows_digest(rows),
        role_names=frozenset(row.fields[1] for row in rows if row.section == "g"),
        contexts=MappingProxyType(contexts),
        graphs=MappingProxyType(graphs),
        warnings=in_order(found),
    )


class _Compilation:
    """What the passes share: the rows by section, the compiled conditions, the findings so far."""

    def __init__(self, model: Model, vocabulary: Vocabulary, rows: Sequence[Row], found: list[Finding]) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._found = found
        self._conditions = Conditions(vocabulary)
        self._obligations: dict[str, tuple[Obligation, ...]] = {}
        self._values: dict[tuple[Column, str], tuple[Problem, ...]] = {}
        self._rows: dict[str, list[Row]] = {section: [] for section in model.sections}
        for row in rows:
            self._rows[row.section].append(row)

    def graph(self, section: str) -> RoleGraph:
        definition = self._model.roles[section]
        whole = []
        for row in self._rows[section]:
            problems = tuple(check_role_row(row, definition, self._vocabulary))
            self._found.extend(problems)
            if not problems:
                whole.append(row)
        return close(whole, definition, self._found)

    def context(self, suffix: str, plan: Plan) -> CompiledContext:
        context = self._model.contexts[suffix]
        steps = [_step(column) for column in plan.columns]
        root: Any = level_of(steps[0])() if steps else []
        rules: list[Rule] = []
        for row in self._rows[context.section]:
            rule = self._rule(row, plan)
            if rule is not None:
                rules.append(rule)
                path = [(step, _entries(row, column)) for step, column in zip(steps, plan.columns, strict=True)]
                insert(root, path, rule)
        return CompiledContext(context=context, plan=plan, rules=tuple(rules), steps=tuple(steps), root=root)

    def _rule(self, row: Row, plan: Plan) -> Rule | None:
        problems = [
            row.problem(code, message, column.position)
            for column in plan.columns
            for code, message in self._checked(row.fields[column.position], column)
        ]
        condition = self._condition(row, plan, problems)
        obligations = self._duties(row, plan, problems)
        self._found.extend(problems)
        if problems:
            return None
        allow = plan.eft is None or row.fields[plan.eft] == "allow"
        return Rule(row, allow, condition, obligations)

    def _checked(self, value: str, column: Column) -> tuple[Problem, ...]:
        """Check a value of a column; most values stand in many rows, and are checked once."""
        key = (column, value)
        if key not in self._values:
            self._values[key] = tuple(check_value(value, column, self._vocabulary))
        return self._values[key]

    def _condition(self, row: Row, plan: Plan, problems: list[Finding]) -> Condition | None:
        if plan.when is None or not row.fields[plan.when]:
            return None
        try:
            return self._conditions.compiled(row.fields[plan.when])
        except ConditionError as error:
            problems.extend(row.problem(code, message, plan.when, at) for code, message, at in error.problems)
            return None

    def _duties(self, row: Row, plan: Plan, problems: list[Finding]) -> tuple[Obligation, ...]:
        text = row.fields[plan.then] if plan.then is not None else ""
        if text and plan.eft is not None and row.fields[plan.eft] == "deny":
            problems.append(row.problem("PC214", "obligations come with an allow; a deny has none", plan.then or 0))
        if text not in self._obligations:
            try:
                self._obligations[text] = parse_then(text)
            except ObligationError as error:
                problems.append(row.problem("PC214", error.message, plan.then or 0, error.at))
                return ()
        return self._obligations[text]


def _action_keys(action: str) -> tuple[str, ...]:
    return (action, f"{action.partition('.')[0]}.*", ANY)


def _resource_keys(resource: str) -> tuple[str, ...]:
    base, version = split_version(resource)
    return (resource, base) if version else (resource,)


_KEYS: Final[Mapping[str, Callable[[str], tuple[str, ...]]]] = MappingProxyType(
    {
        EQUAL: lambda value: (value,),
        "actionMatch": _action_keys,
        "envMatch": lambda value: (value, ANY),
        "resourceMatch": _resource_keys,
    }
)
"""For each test, every text of a row that it accepts for a value; patterns of resources are found in tries."""


def _step(column: Column) -> Step:
    """Return the step that searches for what the tests of `column` accept."""
    roles = [term for term in column.terms if term.kind == ROLE]
    others = [term for term in column.terms if term.kind != ROLE]
    if len(column.terms) == 1 and roles:
        return RoleStep(roles[0])
    named = [term.field for term in others if term.kind == "resourceMatch"]
    if len(column.terms) == 1 and not named:
        return ExactStep(others[0].field, _KEYS[others[0].kind])
    exact = [(term.field, _KEYS[term.kind]) for term in others]
    return MixedStep(exact=exact, pattern=named[0] if named else None, roles=roles)


def _entries(row: Row, column: Column) -> list[tuple[str, bool]]:
    """Return the keys under which a row stands in the step of `column`, and whether each is a pattern."""
    value = row.fields[column.position]
    kinds = {term.kind for term in column.terms}
    if "actionMatch" in kinds:
        return [(action, False) for action in dict.fromkeys(action_alternatives(value))]
    return [(value, "resourceMatch" in kinds and is_pattern(value))]


def _repeated(rows: Sequence[Row]) -> Iterator[Finding]:
    seen: dict[tuple[str, tuple[str, ...]], Row] = {}
    for row in rows:
        first = seen.setdefault((row.section, row.fields), row)
        if first is not row:
            yield row.problem("PC117", f"the same row as {first.id}")


def _nothing_to_decide(model: Model, contexts: Mapping[str, CompiledContext]) -> Iterator[Finding]:
    """Refuse a policy without a single `p` row: more likely a loss than a wish (D-02, D-15)."""
    first = contexts[""]
    if not first.rules:
        message = "no `p` row; a policy that grants nothing to anyone is taken for a loss"
        yield finding("PC501", message, file=model.file, line=first.context.line)
