"""The reader of `vocabulary.yaml`: types with their verbs, attributes with their types."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pdp.engine.findings import Finding, errors, in_order, suggest
from pdp.engine.yaml_text import Node, each, read_yaml
from pdp.limits import VOCABULARY_CACHE_CHARACTERS, VOCABULARY_CACHE_ENTRIES
from pdp.model.attributes import AttributeType
from pdp.model.vocabulary import AttributeInfo, TypeInfo, Vocabulary

_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ATTRIBUTE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}(?:\.[a-z][a-z0-9_]{0,62})+")
_TYPES: Final = tuple(kind.value for kind in AttributeType)
_ASSERTERS: Final = ("caller", "enforcement_point")
"""Who may assert a request attribute: anyone who may ask, or only who may also assert subjects."""


def parse_vocabulary(text: str, *, file: str) -> tuple[Vocabulary | None, tuple[Finding, ...]]:
    """Return the vocabulary that `text` writes, or None and everything that is wrong with it.

    The last few are remembered: a pack is read, compiled and folded with one vocabulary, and so is what comes after it.
    """
    return (_remembered if len(text) <= VOCABULARY_CACHE_CHARACTERS else _parsed)(text, file)


def _parsed(text: str, file: str) -> tuple[Vocabulary | None, tuple[Finding, ...]]:
    root = read_yaml(text, file=file)
    if not isinstance(root, Node):
        return None, root
    found = list(check_keys(root, required=("types", "attributes"), optional=()))
    types = {name: _type(name, node, found) for name, node in _entries(root, "types", found).items()}
    attributes = {name: _attribute(name, node, found) for name, node in _entries(root, "attributes", found).items()}
    if errors(found):
        return None, in_order(found)
    known = {name: info for name, info in attributes.items() if info is not None}
    return Vocabulary(types=MappingProxyType(types), attributes=MappingProxyType(known)), ()


# A pure function of two texts, and what it returns is immutable: there is nothing to invalidate.
_remembered: Final = lru_cache(maxsize=VOCABULARY_CACHE_ENTRIES)(_parsed)


def check_keys(node: Node, *, required: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[Finding]:
    """Yield a finding for a node that is no mapping, for each key that is missing and for each that is unknown."""
    if not isinstance(node.value, dict):
        yield node.problem("PC505", f"a mapping with {', '.join(required)} is wanted")
        return
    for key in required:
        if key not in node.mapping:
            yield node.problem("PC505", f"`{key}` is missing")
    for key, child in node.mapping.items():
        if key not in (*required, *optional):
            yield child.problem("PC203", f"unknown key `{key}`{suggest(key, (*required, *optional))}")


def _entries(root: Node, key: str, found: list[Finding]) -> Mapping[str, Node]:
    node = root.mapping.get(key)
    if node is not None and not isinstance(node.value, dict):
        found.append(node.problem("PC505", f"`{key}` is a mapping"))
    return node.mapping if node else {}


def _type(name: str, node: Node, found: list[Finding]) -> TypeInfo:
    found.extend(check_keys(node, required=("verbs",), optional=("versioned", "segmented")))
    if not _WORD.fullmatch(name):
        found.append(node.problem("PC115", f"`{name[:40]}` is not the name of a type"))
    verbs = _words(node.mapping.get("verbs"), found)
    versioned = _words(node.mapping.get("versioned"), found)
    found.extend(
        node.problem("PC203", f"`{verb}` needs a version and is no verb of `{name}`{suggest(verb, verbs)}")
        for verb in sorted(versioned - verbs)
    )
    segmented = node.mapping.get("segmented")
    if segmented is not None:
        found.extend(each((segmented,), bool))
    return TypeInfo(verbs=verbs, versioned_verbs=versioned, segmented=segmented is not None and segmented.value is True)


def _words(node: Node | None, found: list[Finding]) -> frozenset[str]:
    if node is None:
        return frozenset()
    if not isinstance(node.value, tuple):
        found.append(node.problem("PC505", "a list of words is wanted"))
    words = [item for item in node.items if type(item.value) is str and _WORD.fullmatch(item.value)]
    found.extend(item.problem("PC115", "not a word of lower-case letters") for item in node.items if item not in words)
    return frozenset(str(item.value) for item in words)


def _attribute(name: str, node: Node, found: list[Finding]) -> AttributeInfo | None:
    found.extend(check_keys(node, required=("type",), optional=("asserted_by",)))
    if not _ATTRIBUTE.fullmatch(name):
        found.append(node.problem("PC115", f"`{name[:40]}` is not a dotted name, such as `resource.owner`"))
    asserted_by = _words(node.mapping.get("asserted_by"), found)
    found.extend(
        node.problem("PC203", f"`{word}` cannot assert an attribute{suggest(word, _ASSERTERS)}")
        for word in sorted(asserted_by - set(_ASSERTERS))
    )
    kind = node.mapping.get("type")
    if kind is None or kind.plain not in _TYPES:
        found.append((kind or node).problem("PC203", f"an attribute's type is one of {', '.join(_TYPES)}"))
        return None
    return AttributeInfo(type=AttributeType(kind.value), asserted_by=tuple(sorted(asserted_by)))
