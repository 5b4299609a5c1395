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
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from pdp.engine.casbin_text import Context, EffectRule, Model, Row, check_shape, parse_model
from pdp.engine.checks import Problem, check_plain, check_role_row, check_value
from pdp.engine.closures import ClosureMaker, Compiled, Test
from pdp.engine.conditions import Condition, ConditionError, Conditions
from pdp.engine.digests import RowBuckets, bucket_rows
from pdp.engine.expression import Call, ExpressionError, parse, walk
from pdp.engine.findings import Finding, errors, finding, in_order
from pdp.engine.functions import ANY, action_alternatives
from pdp.engine.index import (
    Entry,
    ExactStep,
    Level,
    MixedStep,
    Path,
    RoleStep,
    Search,
    Step,
    TableStep,
    insert,
)
from pdp.engine.matcher import Scope, check_expression, column_patterns
from pdp.engine.memory import Memory
from pdp.engine.obligations import ObligationError, parse_then
from pdp.engine.order import check_order, priority_of, subject_levels
from pdp.engine.patterns import PATTERN_FUNCTIONS, read_pattern
from pdp.engine.plan import EQUAL, LITERAL, ROLE, Branch, Column, Plan, Term, make_plan, scanned
from pdp.engine.roles import RoleGraph, Timed, close
from pdp.engine.tables import is_pattern, split_version
from pdp.engine.vocabulary_text import parse_vocabulary
from pdp.model.decision import Obligation
from pdp.model.vocabulary import Vocabulary

MODEL_FILE: Final = "model.conf"
WORDS: Final = frozenset({"actionMatch", "envMatch"})
"""Tests whose values are words of the vocabulary: few."""
VOCABULARY_FILE: Final = "vocabulary.yaml"


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy row as decisions use it. Equality is identity: a row that is found by two keys is one rule.

    `priority` is its rank under an ordered effect (lower first), `compiled` what was compiled of further texts in it.
    """

    row: Row
    allow: bool
    condition: Condition | None
    obligations: tuple[Obligation, ...]
    priority: int = 0
    compiled: Compiled | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the row."""
        return self.row.fields

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledBranch:
    """One alternative of the matcher: the steps and the root of its index, and what is evaluated beside it.

    `terms` are the tests of the index: a value of the request that is not of their kind cannot be looked up, and then
    `whole` is evaluated on every rule instead.
    """

    steps: tuple[Step, ...]
    root: Any
    guards: tuple[Test, ...] = ()
    residual: tuple[Test, ...] = ()
    terms: tuple[Term, ...] = ()
    whole: tuple[Test, ...] = ()
    search: Search = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "search", Search(self.root, self.steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledContext:
    """One numbered set, ready to decide: its definition, its plan, its rules and its branches.

    `direct` tells that the index alone finds the rules, and that their order does not count: the model we ship.
    `reads_now` tells that a matcher or a text in a row reads the clock beside conditions.
    """

    context: Context
    plan: Plan
    rules: tuple[Rule, ...]
    branches: tuple[CompiledBranch, ...]
    direct: bool
    reads_now: bool

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the first branch: of the only one, in the model we ship."""
        return self.branches[0].steps

    @property
    def root(self) -> Any:
        """The root of the first branch."""
        return self.branches[0].root


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
    buckets: RowBuckets
    warnings: tuple[Finding, ...] = ()
    memory: Memory = field(init=False, default_factory=Memory, repr=False, compare=False)
    """No part of the policy: what it has said before (`recall.py`)."""

    def groups_of(self, section: str, name: str, now_ms: int, domain: str = ANY) -> frozenset[str]:
        """Return all that `name` stands for in role section `section` now, without itself."""
        graph = self.graphs.get(section)
        if graph is None:
            return frozenset()
        standing, _ = graph.standing((name,), domain, now_ms)
        return frozenset(standing - {name})

    def under(self, timed: Timed) -> "Snapshot":
        """Return this snapshot with links that have a start or an end counting as `timed` says."""
        made: Snapshot | None = self.memory.derived.get(("under", timed))
        if made is None:
            graphs = {section: replace(graph, timed=timed) for section, graph in self.graphs.items()}
            made = self.memory.derived["under", timed] = replace(self, graphs=MappingProxyType(graphs))
        return made


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
    found.extend(_nothing_to_decide(model, contexts, refused=bool(errors(found))))
    if errors(found):
        return in_order(found)
    buckets = bucket_rows(rows)
    return Snapshot(
        model=model,
        vocabulary=vocabulary,
        rows=tuple(rows),
        digest=buckets.digest,
        buckets=buckets,
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
        self._found.extend(scanned(context, plan, self._model.file))
        reader = RuleReader(self._model, self._vocabulary, context, plan, self._conditions)
        if context.effect is EffectRule.SUBJECT_PRIORITY:
            reader.levels = subject_levels(self._rows.get(context.hierarchy, ()), self._model, context)
        rules = []
        for row in self._rows[context.section]:
            rule = reader.read(row, self._found)
            if rule is not None:
                rules.append(rule)
        self._found.extend(
            check_order(((rule.row, rule.allow, rule.priority) for rule in rules), context, reader.levels)
        )
        closures = ClosureMaker(context, self._model)
        return CompiledContext(
            context=context,
            plan=plan,
            rules=tuple(rules),
            branches=tuple(_branch(branch, rules, closures) for branch in plan.branches),
            direct=plan.simple and not self._model.plain and not context.effect.ordered,
            reads_now=_reads_now(context, rules),
        )


def _branch(branch: Branch, rules: Sequence[Rule], closures: ClosureMaker) -> CompiledBranch:
    steps = tuple(_step(column) for column in branch.columns)
    root: Level = None
    readers = entry_readers(branch)
    for rule in rules:
        root = insert(root, path_of(rule.row, steps, readers), rule)
    residual = tuple(closures.test(tree) for tree in branch.residual)
    indexed = tuple(closures.test(column.tree) for column in branch.columns)
    return CompiledBranch(
        steps=steps,
        root=root,
        guards=tuple(closures.test(tree) for tree in branch.guards),
        residual=residual,
        terms=tuple(term for column in branch.columns for term in column.terms if term.kind != LITERAL),
        whole=(*indexed, *residual),
    )


def entry_readers(branch: Branch) -> tuple["EntryReader", ...]:
    """Return what reads the entries of a row, for each step of a branch."""
    return tuple(EntryReader(column) for column in branch.columns)


def path_of(row: Row, steps: Sequence[Step], readers: Sequence["EntryReader"]) -> Path:
    """Return under which entries a row stands in each step of a branch."""
    return [(step, reader.entries(row)) for step, reader in zip(steps, readers, strict=True)]


def _reads_now(context: Context, rules: Sequence[Rule]) -> bool:
    timed = any(isinstance(node, Call) and node.function == "timeMatch" for node in walk(context.matcher))
    return timed or (bool(context.eval_columns) and any("timeMatch" in text for rule in rules for text in rule.fields))


class RuleReader:
    """Reads the rows of one context: checks what their fields mean, and compiles the texts in them."""

    def __init__(
        self, model: Model, vocabulary: Vocabulary, context: Context, plan: Plan, conditions: Conditions
    ) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._context = context
        self._plan = plan
        self._conditions = conditions
        self._closures = ClosureMaker(context, model)
        self._obligations: dict[str, tuple[Obligation, ...]] = {}
        self._values: dict[tuple[int, str], tuple[Problem, ...]] = {}
        self._tests: dict[tuple[int, str], Test] = {}
        self._texts = _texts(context, plan)
        self._kinds = _kinds(context, plan)
        self.levels: Mapping[tuple[str, str], int] = {}
        """The level of each subject, by domain and name, where subjects rank rows."""

    def read(self, row: Row, found: list[Finding]) -> Rule | None:
        """Return the rule that a row writes, or None after what is wrong with it is added to `found`."""
        problems = [
            row.problem(code, message, position)
            for position, kinds in self._kinds
            for code, message in self._checked(row.fields[position], position, kinds)
        ]
        condition = self._condition(row, problems)
        obligations = self._duties(row, problems)
        compiled = self._compiled(row, problems) if self._texts else None
        priority = self._priority(row, problems)
        problems.extend(self._doubtful(row))
        found.extend(problems)
        if errors(problems):
            return None
        allow = self._plan.eft is None or row.fields[self._plan.eft] == "allow"
        return Rule(row, allow, condition, obligations, priority, compiled)

    def _checked(self, value: str, position: int, kinds: tuple[Term, ...]) -> tuple[Problem, ...]:
        """Check a value of a column; most values stand in many rows, and are checked once."""
        key = (position, value)
        if key not in self._values:
            check = check_plain(value, kinds) if self._model.plain else check_value(value, kinds, self._vocabulary)
            self._values[key] = tuple(check)
        return self._values[key]

    def _condition(self, row: Row, problems: list[Finding]) -> Condition | None:
        return self._when(row, self._plan.when, problems) if self._plan.when is not None else None

    def _when(self, row: Row, position: int, problems: list[Finding]) -> Condition | None:
        if not row.fields[position]:
            return None
        try:
            return self._conditions.compiled(row.fields[position])
        except ConditionError as error:
            problems.extend(row.problem(code, message, position, at) for code, message, at in error.problems)
            return None

    def _duties(self, row: Row, problems: list[Finding]) -> tuple[Obligation, ...]:
        position = self._plan.then
        text = row.fields[position] if position is not None else ""
        if text and self._plan.eft is not None and row.fields[self._plan.eft] == "deny":
            problems.append(row.problem("PC214", "obligations come with an allow; a deny has none", position or 0))
        if text not in self._obligations:
            try:
                self._obligations[text] = parse_then(text)
            except ObligationError as error:
                problems.append(row.problem("PC214", error.message, position or 0, error.at))
                return ()
        return self._obligations[text]

    def _compiled(self, row: Row, problems: list[Finding]) -> Compiled:
        tests: dict[int, Test] = {}
        conditions: dict[int, object] = {}
        for function, position in self._texts:
            if function == "when":
                conditions[position] = self._when(row, position, problems)
            elif (test := self._test(row, position, problems)) is not None:
                tests[position] = test
        return Compiled(tests=tests, conditions=conditions)

    def _test(self, row: Row, position: int, problems: list[Finding]) -> Test | None:
        """Return what the `eval` text of a row says, compiled under the matcher's own grammar (D-23)."""
        key = (position, row.fields[position])
        if key in self._tests:
            return self._tests[key]
        suffix = self._context.suffix
        names = {f"r{suffix}": self._context.request, f"p{suffix}": self._context.policy}
        places = {name: role.places for name, role in self._model.roles.items()}
        try:
            tree = parse(row.fields[position])
            found = tuple(check_expression(tree, Scope(names, places, frozenset(self._model.local)), row_text=True))
        except ExpressionError as error:
            code = "PC211" if error.code == "PC201" else error.code
            found = ((code, error.message, error.at),)
        if found:
            problems.extend(row.problem(code, message, position, at) for code, message, at in found)
            return None
        self._tests[key] = self._closures.test(tree)
        return self._tests[key]

    def _priority(self, row: Row, problems: list[Finding]) -> int:
        effect = self._context.effect
        if effect is EffectRule.SUBJECT_PRIORITY:
            names = dict(zip(self._context.policy, row.fields, strict=True))
            return self.levels.get((names.get("dom", ""), names["sub"]), 0)
        if effect is not EffectRule.PRIORITY or self._plan.priority is None:
            return 0
        number = priority_of(row.fields[self._plan.priority])
        if number is None:
            message = f"`{row.fields[self._plan.priority][:40]}` is not an integer in the range of priorities"
            problems.append(row.problem("PC140", message, self._plan.priority))
        return number or 0

    def _doubtful(self, row: Row) -> Iterator[Finding]:
        """Yield warnings for patterns that reach farther, or less far, than they look (D-31, D-35)."""
        if not self._model.plain:
            return
        deny = self._plan.eft is not None and row.fields[self._plan.eft] == "deny"
        for position, kinds in self._kinds:
            for term in kinds:
                if term.kind not in PATTERN_FUNCTIONS or self._checked(row.fields[position], position, kinds):
                    continue
                pattern = read_pattern(term.kind, row.fields[position])
                if pattern.crosses:
                    yield row.problem("PC306", "`/*` crosses slashes: it matches any depth below", position)
                if deny and pattern.skips_dots:
                    yield row.problem("PC313", "this deny skips names that begin with a dot", position)


def _texts(context: Context, plan: Plan) -> tuple[tuple[str, int], ...]:
    """Return the columns whose texts are compiled row by row, beside the one `when` of the plan."""
    further = {context.policy.index(name) for name in context.condition_columns} - {plan.when}
    return (
        *(("eval", context.policy.index(name)) for name in sorted(context.eval_columns)),
        *(("when", position) for position in sorted(further)),
    )


def _kinds(context: Context, plan: Plan) -> tuple[tuple[int, tuple[Term, ...]], ...]:
    """Return for each column that holds names the tests that the matcher makes of it, anywhere."""
    named: dict[int, tuple[Term, ...]] = {}
    for branch in plan.branches:
        for column in branch.columns:
            named[column.position] = tuple(dict.fromkeys((*named.get(column.position, ()), *column.terms)))
    for call in (node for node in walk(context.matcher) if isinstance(node, Call)):
        for name in column_patterns(call):
            position = context.policy.index(name)
            if all(term.kind != call.function for term in named.get(position, ())):
                named[position] = (*named.get(position, ()), Term(kind=call.function, field=-1))
    skipped = {plan.when, plan.then, plan.eft, *(context.policy.index(name) for name in context.eval_columns)}
    skipped |= {context.policy.index(name) for name in context.condition_columns}
    for position in range(len(context.policy)):
        named.setdefault(position, ())
    return tuple((position, named[position]) for position in sorted(named) if position not in skipped)


@lru_cache(maxsize=1_024)  # actions are words of a vocabulary: few, and each asked for ever again
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


def _itself(value: str) -> tuple[str, ...]:
    return (value,)


def _step(column: Column) -> Step:
    """Return the step that searches for what the tests of `column` accept."""
    kinds = {term.kind for term in column.terms}
    roles = [term for term in column.terms if term.kind == ROLE]
    others = [term for term in column.terms if term.kind not in {ROLE, LITERAL}]
    if kinds & {LITERAL, *PATTERN_FUNCTIONS} or any(term.path for term in column.terms):
        return TableStep(
            exact=[(term, _KEYS.get(term.kind, _itself)) for term in others],
            patterns=[term for term in others if term.kind in PATTERN_FUNCTIONS or term.kind == "resourceMatch"],
            roles=roles,
            texts=[term.text for term in column.terms if term.kind == LITERAL],
        )
    if len(column.terms) == 1 and roles:
        return RoleStep(roles[0])
    named = [term.field for term in others if term.kind == "resourceMatch"]
    if len(column.terms) == 1 and not named:
        kind = others[0].kind
        return ExactStep(others[0].field, _KEYS[kind], of_words=kind in WORDS)
    exact = [(term.field, _KEYS[term.kind]) for term in others]
    return MixedStep(exact=exact, pattern=named[0] if named else None, roles=roles)


class EntryReader:
    """Says under which keys a row stands in the step of a column, and what kind of pattern each is."""

    def __init__(self, column: Column) -> None:
        self._position = column.position
        self._kinds = tuple(dict.fromkeys(term.kind for term in column.terms))
        self._own = "resourceMatch" in self._kinds
        self._words = not WORDS.isdisjoint(self._kinds)
        self._known: dict[str, Sequence[Entry]] = {}
        """Words stand in many rows, and their keys are made once. Patterns rarely do, and are not kept."""

    def entries(self, row: Row) -> Sequence[Entry]:
        """Return the entries of a row."""
        value = row.fields[self._position]
        if not self._words:
            return self._read(value)
        known = self._known.get(value)
        if known is None:
            known = self._known[value] = self._read(value)
        return known

    def _read(self, value: str) -> Sequence[Entry]:
        if "actionMatch" in self._kinds:
            further = (value,) if len(self._kinds) > 1 else ()
            return [Entry(action) for action in dict.fromkeys((*action_alternatives(value), *further))]
        pattern = self._own and is_pattern(value)
        found = []
        exact = False
        for kind in self._kinds:
            if (pattern and kind == "resourceMatch") or (
                kind in PATTERN_FUNCTIONS and not read_pattern(kind, value).literal
            ):
                found.append(Entry(value, kind))
            elif not (pattern and kind == ROLE):
                # Names of ours stand for themselves and for collections: never for a pattern.
                exact = True
        return [*found, Entry(value)] if exact else found


def _repeated(rows: Sequence[Row]) -> Iterator[Finding]:
    seen: dict[tuple[str, tuple[str, ...]], Row] = {}
    for row in rows:
        first = seen.setdefault((row.section, row.fields), row)
        if first is not row:
            yield row.problem("PC117", f"the same row as {first.id}")


def _nothing_to_decide(model: Model, contexts: Mapping[str, CompiledContext], *, refused: bool) -> Iterator[Finding]:
    """Refuse a policy without a single `p` row: more likely a loss than a wish (D-02, D-15)."""
    first = contexts[""]
    if not first.rules and not refused:
        message = "no `p` row; a policy that grants nothing to anyone is taken for a loss"
        yield finding("PC501", message, file=model.file, line=first.context.line)
