"""A policy pack: the files of one directory, read whole or refused whole with every finding (POLICY.md section 3).

The caller reads the directory; here are only bytes. A pack that is returned has compiled.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pdp.engine.casbin_text import Model, Row, parse_model, parse_rows
from pdp.engine.compiler import MODEL_FILE, VOCABULARY_FILE, Snapshot, compile_policy
from pdp.engine.digests import rows_digest
from pdp.engine.findings import Finding, errors, finding, in_order, suggest
from pdp.engine.pack_tests import PackTest, read_tests
from pdp.engine.text import decode
from pdp.engine.vocabulary_text import parse_vocabulary
from pdp.engine.yaml_text import Node, read_yaml
from pdp.errors import BadNameError, BadRequestError
from pdp.model.attributes import Value, check_value
from pdp.model.names import ENVIRONMENTS, Resource
from pdp.model.vocabulary import Vocabulary

__all__ = ["AssetSeed", "Pack", "PackTest", "load_pack", "read_assets", "rows_digest"]

ASSETS_FILE: Final = "assets.yaml"
TESTS_FOLDER: Final = "tests/"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetSeed:
    """An asset as a pack seeds it; attributes without the `resource.` in front."""

    name: str
    attributes: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Everything that a pack says, checked; `snapshot` is its compiled policy."""

    model_text: str
    vocabulary_text: str
    rows: tuple[Row, ...]
    assets: tuple[AssetSeed, ...]
    tests: tuple[PackTest, ...]
    warnings: tuple[Finding, ...]
    snapshot: Snapshot


def load_pack(files: Mapping[str, bytes]) -> Pack | tuple[Finding, ...]:
    """Return the pack whose files, by path relative to it, are `files`; or every finding of all of them."""
    return _Loader(files).load()


class _Loader:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._found: list[Finding] = []
        self._texts: dict[str, str] = {}
        for file in sorted(name for name in files if _is_read(name)):
            text = decode(files[file], file=file)
            if isinstance(text, str):
                self._texts[file] = text
            else:
                self._found.append(text)
        for file in (MODEL_FILE, VOCABULARY_FILE):
            if file not in files:
                self._found.append(finding("PC504", "a pack needs this file", file=file))

    def load(self) -> Pack | tuple[Finding, ...]:
        model, model_findings = parse_model(self._texts.get(MODEL_FILE, ""), file=MODEL_FILE)
        vocabulary, word_findings = parse_vocabulary(self._texts.get(VOCABULARY_FILE, ""), file=VOCABULARY_FILE)
        self._found.extend((*model_findings, *word_findings))
        if model is None or vocabulary is None:
            return in_order(self._found)
        rows = self._rows(model)
        assets = self._assets(vocabulary)
        tests = tuple(test for file in self._named(".yaml", TESTS_FOLDER) for test in self._tests(file))
        snapshot = compile_policy(model, vocabulary, rows)
        self._found.extend(snapshot if isinstance(snapshot, tuple) else snapshot.warnings)
        if errors(self._found) or not isinstance(snapshot, Snapshot):
            return in_order(self._found)
        return Pack(
            model_text=self._texts[MODEL_FILE],
            vocabulary_text=self._texts[VOCABULARY_FILE],
            rows=rows,
            assets=assets,
            tests=tests,
            warnings=in_order(self._found),
            snapshot=snapshot,
        )

    def _named(self, ending: str, folder: str = "") -> list[str]:
        return [name for name in self._texts if name.endswith(ending) and name.startswith(folder)]

    def _rows(self, model: Model) -> tuple[Row, ...]:
        rows: list[Row] = []
        for file in self._named(".csv"):
            some, found = parse_rows(self._texts[file], file=file, model=model)
            rows.extend(some)
            self._found.extend(found)
        return tuple(rows)

    def _assets(self, vocabulary: Vocabulary) -> tuple[AssetSeed, ...]:
        if ASSETS_FILE not in self._texts:
            return ()
        root = read_yaml(self._texts[ASSETS_FILE], file=ASSETS_FILE)
        if not isinstance(root, Node):
            self._found.extend(root)
            return ()
        self._found.extend(check_assets(root, vocabulary))
        return read_assets(root)

    def _tests(self, file: str) -> tuple[PackTest, ...]:
        tests, found = read_tests(self._texts[file], file=file)
        self._found.extend(found)
        return tests


def _is_read(name: str) -> bool:
    return (
        name in {MODEL_FILE, VOCABULARY_FILE, ASSETS_FILE}
        or name.endswith(".csv")
        or (name.startswith(TESTS_FOLDER) and name.endswith(".yaml"))
    )


def read_assets(root: Node) -> tuple[AssetSeed, ...]:
    """Return the seeds of a mapping from names to attributes."""
    return tuple(
        AssetSeed(name=name, attributes=MappingProxyType(node.plain))
        for name, node in root.mapping.items()
        if isinstance(node.value, dict)
    )


def check_assets(root: Node, vocabulary: Vocabulary) -> Iterator[Finding]:
    """Yield what is wrong with a mapping from asset names to attributes."""
    if not isinstance(root.value, dict):
        yield root.problem("PC505", "a mapping from names of assets to their attributes is wanted")
    for name, node in root.mapping.items():
        try:
            resource = Resource.parse(name)
        except BadNameError as error:
            yield node.problem("PC115", error.message)
            continue
        if resource.type not in vocabulary.types:
            hint = suggest(resource.type, vocabulary.types)
            yield node.problem("PC203", f"the vocabulary knows no type `{resource.type}`{hint}")
        yield from _check_attributes(node, vocabulary)


def _check_attributes(node: Node, vocabulary: Vocabulary) -> Iterator[Finding]:
    environment = node.mapping.get("environment")
    if environment is None or environment.plain not in ENVIRONMENTS:
        yield (environment or node).problem("PC203", f"an asset's `environment` is one of {', '.join(ENVIRONMENTS)}")
    for key, child in node.mapping.items():
        info = vocabulary.attributes.get(f"resource.{key}")
        if info is None:
            known = [name.removeprefix("resource.") for name in vocabulary.attributes if name.startswith("resource.")]
            yield child.problem("PC203", f"the vocabulary knows no attribute `resource.{key}`{suggest(key, known)}")
            continue
        try:
            check_value(f"resource.{key}", child.plain, info.type)
        except BadRequestError as error:
            yield child.problem("PC206", error.message)
