"""A pack's own tests, as written: given a world, ask a question, want an answer (POLICY.md section 3).

Here they are only read; `pdp/service/policy_tests.py` puts them to `decide`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pdp.engine.findings import Finding, errors, in_order
from pdp.engine.vocabulary_text import check_keys
from pdp.engine.yaml_text import Node, each, read_yaml
from pdp.model.attributes import Value

_ASK: Final = ("groups", "actors", "workload", "serves", "attributes", "supports", "at")
_WANT: Final = ("reason", "by", "obligations")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackTest:
    """One test: rows (type first) and assets that are added to the pack's, a question, and what it should answer.

    `ask` has `subject`, `action` and `resource`, and may have `groups`, `actors`, `workload`, `serves`, `attributes`,
    `supports` and `at` (an instant); `want` has `effect`, and may have `reason`, `by` (a row id) and `obligations`.
    """

    name: str
    file: str
    line: int
    rows: tuple[tuple[str, ...], ...]
    assets: Mapping[str, Mapping[str, Value]]
    ask: Mapping[str, Any]
    want: Mapping[str, Any]


def read_tests(text: str, *, file: str) -> tuple[tuple[PackTest, ...], tuple[Finding, ...]]:
    """Return the tests of one file, and everything that is wrong with it."""
    root = read_yaml(text, file=file)
    if not isinstance(root, Node):
        return (), root
    if not isinstance(root.value, tuple):
        return (), (root.problem("PC505", "a list of tests is wanted"),)
    tests: list[PackTest] = []
    found: list[Finding] = []
    for node in root.items:
        problems = tuple(_check(node))
        found.extend(problems)
        if not errors(problems):
            tests.append(_test(node))
    return tuple(tests), in_order(found)


def _check(node: Node) -> Iterator[Finding]:
    yield from check_keys(node, required=("name", "ask", "want"), optional=("given",))
    if not {"name", "ask", "want"} <= node.mapping.keys():
        return
    yield from each((node.mapping["name"],), str)
    ask, want, given = node.mapping["ask"], node.mapping["want"], node.mapping.get("given")
    yield from check_keys(ask, required=("subject", "action", "resource"), optional=_ASK)
    yield from check_keys(want, required=("effect",), optional=_WANT)
    yield from _check_texts(ask, ("subject", "action", "resource", "workload", "serves", "at"))
    yield from _check_texts(want, ("effect", "reason", "by"))
    for parent, keys in ((ask, ("groups", "actors", "supports")), (want, ("obligations",))):
        yield from _check_lists(parent, keys)
    if "attributes" in ask.mapping:
        yield from each((ask.mapping["attributes"],), dict)
    effect = want.mapping.get("effect")
    if effect is not None and effect.plain not in ("allow", "deny"):
        yield effect.problem("PC101", "`effect` is `allow` or `deny`")
    if given is not None:
        yield from _check_given(given)


def _check_given(given: Node) -> Iterator[Finding]:
    yield from check_keys(given, required=(), optional=("assignments", "rows", "assets"))
    for key in ("assignments", "rows"):
        if key in given.mapping:
            yield from each((given.mapping[key],), tuple)
            for row in given.mapping[key].items:
                yield from each((row,), tuple)
                yield from each(row.items, str)
                if not row.items:
                    yield row.problem("PC505", "an empty row")
    if "assets" in given.mapping:
        yield from each((given.mapping["assets"],), dict)
        yield from each(tuple(given.mapping["assets"].mapping.values()), dict)


def _check_texts(parent: Node, keys: tuple[str, ...]) -> Iterator[Finding]:
    yield from each(tuple(parent.mapping[key] for key in keys if key in parent.mapping), str)


def _check_lists(parent: Node, keys: tuple[str, ...]) -> Iterator[Finding]:
    for key in keys:
        if key in parent.mapping:
            yield from each((parent.mapping[key],), tuple)
            yield from each(parent.mapping[key].items, str)


def _test(node: Node) -> PackTest:
    plain = node.plain
    given = plain.get("given", {})
    rows = [("g", *fields) for fields in given.get("assignments", ())]
    return PackTest(
        name=plain["name"],
        file=node.file,
        line=node.line,
        rows=(*rows, *given.get("rows", ())),
        assets=MappingProxyType(given.get("assets", {})),
        ask=MappingProxyType(plain["ask"]),
        want=MappingProxyType(plain["want"]),
    )
