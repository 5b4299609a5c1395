"""Configuration in YAML, read strictly: plain values, no aliases, no key twice, and the line of each for the error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from pdp.errors import ConfigError

Path = tuple[str | int, ...]
_COLLECTIONS: Final = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The values of a document and, for each path into it, its line."""

    file: str
    value: Any
    lines: Mapping[Path, int]

    def where(self, path: Path) -> str:
        """Return `file:line` of the value at `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.file}:{self.lines.get(path, 1)}"


class _Loader(yaml.SafeLoader):
    """A safe loader without aliases: a page of them can stand for gigabytes, or for itself."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


def read_yaml(text: str, *, file: str) -> Document:
    """Return the document in `text`.

    Raises:
        ConfigError: not YAML, an alias, or a key that stands twice or is no text; with `file:line`.
    """
    lines: dict[Path, int] = {}
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        value = None if node is None else _value(loader, node, (), lines)
    except _KeyError as error:
        raise ConfigError(f"{file}:{error.line}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{file}:1: nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{file}:{mark.line + 1 if mark else 1}: not valid YAML: {problem}") from error
    return Document(file=file, value=value, lines=lines)


class _KeyError(ValueError):
    """A key that stands twice or is no text, or a tag that stands for something else."""

    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(message)
        self.line = line


def _value(loader: _Loader, node: yaml.Node, path: Path, lines: dict[Path, int]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    # An explicit tag on a collection would be lost in silence: only scalars are constructed by their tag.
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
        raise _KeyError(f"`{node.tag}` is not allowed", line=node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, path, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*path, index), lines) for index, item in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


def _mapping(loader: _Loader, node: yaml.MappingNode, path: Path, lines: dict[Path, int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if key_node.tag != "tag:yaml.org,2002:str":
            raise _KeyError("a key is plain text", line=line)
        if key in result:
            raise _KeyError(f"`{key}` stands twice", line=line)
        lines[(*path, key)] = line
        result[key] = _value(loader, value_node, (*path, key), lines)
    return result
