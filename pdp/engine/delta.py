"""A policy after a few changed rows, without compiling the others: what is not touched is shared with the old snapshot.

Theory of operation. A row stands in the index under a path of keys; adding or removing it copies the levels along that path
and nothing else. A role row is closed anew for its own name and for the names below it. The digest of the rows is kept in
buckets, of which a row touches one. Whoever holds the old snapshot goes on reading it undisturbed.

Law (tests/spec/test_delta.py): `apply_delta(compile(rows), added, removed)` is `compile(rows after)`, digest for digest and
answer for answer. What is not the model we ship, or changes much, is compiled whole. Warnings stay those of the last whole
compilation and of the added rows.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from pdp.engine.casbin_text import Row, check_shape
from pdp.engine.checks import check_role_row
from pdp.engine.compiler import CompiledContext, Rule, RuleReader, Snapshot, compile_policy, entry_readers, path_of
from pdp.engine.conditions import Conditions
from pdp.engine.findings import Finding, errors, in_order
from pdp.engine.index import Level, Path, PatternLevel, TableStep, rules_at
from pdp.engine.roles import changed
from pdp.engine.tables import Trie
from pdp.engine.tables import path_of as trie_path
from pdp.limits import MAX_DELTA_ROWS


def apply_delta(snapshot: Snapshot, added: Sequence[Row], removed: Sequence[Row]) -> Snapshot | tuple[Finding, ...]:
    """Return the snapshot of the rows of `snapshot` without `removed` and with `added`, or every finding.

    Raises:
        KeyError: a removed row is not there, or an added one is.
    """
    rows = _rows(snapshot.rows, added, removed)
    if not _is_foldable(snapshot) or len(added) + len(removed) > MAX_DELTA_ROWS:
        return compile_policy(snapshot.model, snapshot.vocabulary, rows)
    found: list[Finding] = [problem for row in added for problem in check_shape(row, snapshot.model)]
    if errors(found):
        return in_order(found)
    graphs = {name: _graph(snapshot, name, added, removed, found) for name in snapshot.graphs}
    conditions = Conditions(snapshot.vocabulary)
    contexts = {
        suffix: _context(snapshot, compiled, added, removed, (conditions, found))
        for suffix, compiled in snapshot.contexts.items()
    }
    if errors(found) or not contexts[""].rules:
        # Compiled whole, so that what is wrong is told as it always is.
        return compile_policy(snapshot.model, snapshot.vocabulary, rows)
    buckets = snapshot.buckets.changed(added, removed)
    return replace(
        snapshot,
        rows=rows,
        digest=buckets.digest,
        buckets=buckets,
        role_names=_role_names(snapshot, rows, added, removed),
        contexts=MappingProxyType(contexts),
        graphs=MappingProxyType(graphs),
        warnings=in_order((*snapshot.warnings, *found)),
    )


def _is_foldable(snapshot: Snapshot) -> bool:
    return not snapshot.model.plain and all(
        compiled.direct and not any(isinstance(step, TableStep) for step in compiled.steps)
        for compiled in snapshot.contexts.values()
    )


def _place(row: Row) -> tuple[str, int, str, tuple[str, ...]]:
    return row.file, row.line, row.section, row.fields


def _rows(rows: tuple[Row, ...], added: Sequence[Row], removed: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows in the order of their places; the old ones are in that order already, or are put into it."""
    found = list(rows)
    if any(_place(one) > _place(other) for one, other in zip(rows[:1], rows[-1:], strict=True)):
        found.sort(key=_place)
    for row in removed:
        at = bisect_left(found, _place(row), key=_place)
        if at == len(found) or found[at] != row:
            found.sort(key=_place)
            at = bisect_left(found, _place(row), key=_place)
        if at == len(found) or found[at] != row:
            raise KeyError(row.id)
        del found[at]
    for row in added:
        at = bisect_left(found, _place(row), key=_place)
        if at < len(found) and found[at] == row:
            raise KeyError(row.id)
        found.insert(at, row)
    return tuple(found)


def _role_names(
    snapshot: Snapshot, rows: Sequence[Row], added: Sequence[Row], removed: Sequence[Row]
) -> frozenset[str]:
    if any(row.section == "g" for row in removed):
        return frozenset(row.fields[1] for row in rows if row.section == "g")
    return snapshot.role_names | {row.fields[1] for row in added if row.section == "g"}


def _graph(snapshot: Snapshot, section: str, added: Sequence[Row], removed: Sequence[Row], found: list[Finding]) -> Any:
    plus, minus = _of(added, section), _of(removed, section)
    definition = snapshot.model.roles[section]
    problems = [problem for row in plus for problem in check_role_row(row, definition, snapshot.vocabulary)]
    found.extend(problems)
    graph = snapshot.graphs[section]
    return graph if problems or not (plus or minus) else changed(graph, plus, minus, found)


def _of(rows: Sequence[Row], section: str) -> list[Row]:
    return [row for row in rows if row.section == section]


def _context(
    snapshot: Snapshot,
    compiled: CompiledContext,
    added: Sequence[Row],
    removed: Sequence[Row],
    shared: tuple[Conditions, list[Finding]],
) -> CompiledContext:
    plus, minus = _of(added, compiled.context.section), _of(removed, compiled.context.section)
    if not (plus or minus):
        return compiled
    conditions, found = shared
    reader = RuleReader(snapshot.model, snapshot.vocabulary, compiled.context, compiled.plan, conditions)
    rules, root = list(compiled.rules), compiled.root
    for row in minus:
        at = bisect_left(rules, _place(row), key=lambda rule: _place(rule.row))
        if at == len(rules) or rules[at].row != row:
            at = next(number for number, rule in enumerate(rules) if rule.row == row)
        root = _edited(root, _path(row, compiled), 0, rules.pop(at), add=False)
    for row in plus:
        rule = reader.read(row, found)
        if rule is not None:
            rules.insert(bisect_left(rules, _place(row), key=lambda each: _place(each.row)), rule)
            root = _edited(root, _path(row, compiled), 0, rule, add=True)
    branch = replace(compiled.branches[0], root=root)
    return replace(compiled, rules=tuple(rules), branches=(branch,))


def _path(row: Row, compiled: CompiledContext) -> Path:
    readers = entry_readers(compiled.plan.branches[0])
    return path_of(row, compiled.steps, readers)


def _edited(level: Level, path: Path, depth: int, rule: Rule, *, add: bool) -> Level:
    """Return a copy of `level` with or without `rule` at the end of `path`; None if nothing is left in it."""
    if depth == len(path):
        held = () if level is None else rules_at(level)
        rules = [*held, rule] if add else [other for other in held if other is not rule]
        return rules if len(rules) > 1 else next(iter(rules), None)
    step, entries = path[depth]
    copied = _copy(level) if level is not None else step.empty()
    for entry in entries:
        after = _edited(step.get(copied, entry), path, depth + 1, rule, add=add)
        if isinstance(copied, PatternLevel) and entry.pattern:
            copied.patterns = _edited_trie(copied.patterns, entry.key, after)
        else:
            copied = step.put(copied, entry, after)
    return copied if _holds(copied) else None


def _copy(level: Level) -> Level:
    """Return a level that may be written: a lone key never is, and a trie is copied along the pattern that changes."""
    if not isinstance(level, PatternLevel):
        return dict(level) if isinstance(level, dict) else level
    copied = PatternLevel()
    copied.exact = dict(level.exact)
    copied.patterns = level.patterns
    return copied


def _holds(level: Level) -> bool:
    return bool(level.exact) or not level.patterns.empty if isinstance(level, PatternLevel) else bool(level)


def _edited_trie(trie: Trie, pattern: str, value: Level) -> Trie:
    """Return a trie with another value for `pattern`: nodes are copied along it, and those that are left empty dropped."""
    segments, deep, version = trie_path(pattern)
    nodes = [trie.copied()]
    for segment in segments:
        children = nodes[-1].children or {}
        following = nodes[-1].star if segment == "*" else children.get(segment)
        nodes.append(following.copied() if following is not None else Trie())
    nodes[-1].set(value, deep=deep, version=version)
    for number in range(len(segments) - 1, -1, -1):
        child = None if nodes[number + 1].empty else nodes[number + 1]
        nodes[number].link(segments[number], child)
    return nodes[0]


def delta_of(payload: Mapping[str, Any]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Return the added and the removed rows that a policy entry carries."""
    return tuple(map(Row.from_json, payload["added"])), tuple(map(Row.from_json, payload["removed"]))
