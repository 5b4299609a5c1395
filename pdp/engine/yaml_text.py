"""Strict YAML for the files of a pack: plain data with the place of every value.

A subset, on purpose: mappings with text keys, lists, strings, numbers, truth values. Anchors, aliases, tags, merge keys,
several documents and repeated keys are findings: each lets two readers see two different files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from pdp.engine.findings import Finding, finding
from pdp.engine.text import check_characters
from pdp.limits import MAX_JSON_DEPTH

_MAP, _SEQ, _STR = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:str"
_BOOL, _INT, _FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_TRUTH: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value with its place. `value` is a mapping of nodes, a tuple of nodes, a string, a number or a truth value."""

    value: Any
    file: str
    line: int
    column: int

    def problem(self, code: str, message: str) -> Finding:
        """Return a finding at this place."""
        return finding(code, message, file=self.file, line=self.line, column=self.column)

    @property
    def mapping(self) -> Mapping[str, "Node"]:
        """The entries, if this is a mapping; else none."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> tuple["Node", ...]:
        """The items, if this is a list; else none."""
        return self.value if isinstance(self.value, tuple) else ()

    @property
    def plain(self) -> Any:
        """The value without places; a list is a tuple."""
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        return tuple(node.plain for node in self.value) if isinstance(self.value, tuple) else self.value


class _RefusedError(Exception):
    def __init__(self, found: Finding) -> None:
        super().__init__(str(found))
        self.found = found


class _Loader(yaml.SafeLoader):
    """Composes the subset alone, and refuses what is outside it before it goes deeper: what nests without end needs no stack."""

    def __init__(self, text: str, file: str) -> None:
        super().__init__(text)
        self._file = file
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        opens = isinstance(event, yaml.CollectionStartEvent)
        if self._depth + opens > MAX_JSON_DEPTH:
            raise _refused("PC505", f"nested deeper than {MAX_JSON_DEPTH}", event.start_mark, self._file)
        if getattr(event, "anchor", None) is not None:
            raise _refused("PC505", "anchors and aliases are not used here", event.start_mark, self._file)
        if getattr(event, "tag", None) is not None:
            raise _refused("PC505", "tags are not used here", event.start_mark, self._file)
        self._depth += opens
        node = super().compose_node(parent, index)
        self._depth -= opens
        return node


def read_yaml(text: str, *, file: str) -> Node | tuple[Finding, ...]:
    """Return the one document of `text`, or every finding that refuses it."""
    found = tuple(check_characters(text, file=file))
    if found:
        return found
    try:
        tree = _composed(text, file)
        if tree is None:
            raise _RefusedError(finding("PC505", "an empty document", file=file))
        return _node(tree, file)
    except _RefusedError as error:
        return (error.found,)
    except yaml.YAMLError as error:
        return (_yaml_error(error, file),)
    except (ValueError, OverflowError):
        # PyYAML's scanner turns escapes such as `"\UFFFFFFFF"` into characters that do not exist.
        return (finding("PC505", "not YAML", file=file),)


def _composed(text: str, file: str) -> yaml.Node | None:
    loader = _Loader(text, file)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _yaml_error(error: yaml.YAMLError, file: str) -> Finding:
    mark = getattr(error, "problem_mark", None)
    message = str(getattr(error, "problem", None) or "not YAML")
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return finding("PC505", message, file=file, line=line, column=column)


def _refused(code: str, message: str, mark: Any, file: str) -> _RefusedError:
    return _RefusedError(finding(code, message, file=file, line=mark.line + 1, column=mark.column + 1))


def _node(tree: yaml.Node, file: str) -> Node:
    mark: Any = tree.start_mark
    return Node(value=_value(tree, file), file=file, line=mark.line + 1, column=mark.column + 1)


def _value(tree: yaml.Node, file: str) -> Any:
    if isinstance(tree, yaml.MappingNode) and tree.tag == _MAP:
        return _mapping(tree, file)
    if isinstance(tree, yaml.SequenceNode) and tree.tag == _SEQ:
        return tuple(_node(child, file) for child in tree.value)
    return _scalar(tree, file)


def _mapping(tree: yaml.MappingNode, file: str) -> dict[str, Node]:
    entries: dict[str, Node] = {}
    for key, value in tree.value:
        if not isinstance(key, yaml.ScalarNode) or not key.value:
            raise _refused("PC505", "a key is a text", key.start_mark, file)
        if key.value in entries:
            raise _refused("PC118", f"`{key.value}` stands twice", key.start_mark, file)
        entries[key.value] = _node(value, file)
    return entries


def _scalar(tree: yaml.Node, file: str) -> str | int | float | bool:
    text = str(tree.value)
    try:
        if tree.tag == _STR:
            return text
        if tree.tag == _BOOL and text in _TRUTH:
            return _TRUTH[text]
        if tree.tag == _INT:
            return int(text)
        if tree.tag == _FLOAT:
            return float(text)
    except (ValueError, OverflowError):
        pass
    message = f"`{text[:40]}` could be read in two ways; quote it, or write true, false or a plain number"
    raise _refused("PC505", message, tree.start_mark, file)


def each(nodes: tuple[Node, ...], wanted: type) -> Iterator[Finding]:
    """Yield a finding for each node whose value is not exactly of type `wanted`."""
    for node in nodes:
        if type(node.value) is not wanted:
            yield node.problem("PC505", f"{'a text' if wanted is str else wanted.__name__} is wanted")
