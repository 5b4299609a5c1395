"""Bytes that no pack should hold: each is a finding with a place, never a traceback and never half a policy."""

import contextlib
import sys
from collections.abc import Iterator

import pytest

from pdp.engine.casbin_lint import lint_files
from pdp.engine.casbin_text import parse_model, parse_rows
from pdp.engine.conditions import ConditionError, Conditions
from pdp.engine.expression import ExpressionError, parse
from pdp.engine.findings import errors
from pdp.engine.obligations import ObligationError, parse_then
from pdp.engine.pack import Pack, load_pack
from pdp.engine.pack_tests import read_tests
from pdp.engine.patterns import PatternError, read_pattern
from pdp.engine.vocabulary_text import parse_vocabulary
from pdp.model.vocabulary import Vocabulary

FILES = ("model.conf", "vocabulary.yaml", "segmentation.csv", "assets.yaml", "tests/release.yaml")
ROW = b"p, role:x, dataset.read, dataset/a, dev, , , allow\n"
MEGABYTE = 2**20 + 1


def refused(files: dict[str, bytes]) -> list[str]:
    found = load_pack(files)
    assert isinstance(found, tuple), "the pack was taken"
    assert errors(found)
    assert all(item.line >= 1 and item.column >= 1 and "\n" not in str(item) for item in found)
    return [item.code for item in found]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\xef\xbb\xbf", "PC115"),
        ("\ufeff".encode("utf-16-le"), "PC115"),
        (b"a\r\nb\r\n", "PC115"),
        (b"a\rb", "PC115"),
        (b"caf\xe9\n", "PC115"),
        (b"\xc3\xa9 and \xe9\n", "PC115"),
        (b"\xed\xa0\x80\n", "PC115"),
        (b"\xc0\xaf\n", "PC115"),
        ("a\u200bb\n".encode(), "PC115"),
        ("a\u202eb\n".encode(), "PC115"),
        ("a\u2060\n".encode(), "PC115"),
        ("e\u0301\n".encode(), "PC115"),
        (b"a\0b\n", "PC115"),
        (b"a" * MEGABYTE, "PC506"),
        (b"(" * MEGABYTE, "PC506"),
        (b"," * MEGABYTE, "PC506"),
        (b'"' * MEGABYTE, "PC506"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_text_that_looks_other_than_it_is_or_is_endless_is_a_finding(
    shipped: dict[str, bytes], name: str, raw: bytes, code: str
) -> None:
    for text in (raw, *((shipped.get(name, b"") + raw,) if len(raw) < MEGABYTE else ())):
        assert code in refused({**shipped, name: text})


def cut(raw: bytes) -> Iterator[bytes]:
    yield from (raw[:end] for end in range(len(raw)))


def test_every_prefix_of_a_model_and_of_rows_is_taken_or_refused(shipped: dict[str, bytes]) -> None:
    own, _ = parse_model(shipped["model.conf"].decode(), file="model.conf")
    assert own is not None
    for raw in cut(shipped["model.conf"]):
        model, found = parse_model(raw.decode(), file="model.conf")
        assert (model is None) is bool(errors(found))
        assert model is None or len(raw) >= len(shipped["model.conf"].rstrip()) or model != own
    for raw in cut(shipped["segmentation.csv"]):
        rows, found = parse_rows(raw.decode(errors="replace"), file="a.csv", model=own)
        assert len(rows) + len(found) <= raw.count(b"\n") + 1


def test_prefixes_of_yaml_are_taken_or_refused(shipped: dict[str, bytes]) -> None:
    for name in ("vocabulary.yaml", "tests/release.yaml"):
        for end in range(0, len(shipped[name]), 97):
            text = shipped[name][:end].decode(errors="replace")
            vocabulary, found = parse_vocabulary(text, file=name)
            assert (vocabulary is None) is bool(errors(found))
            read_tests(text, file=name)


@pytest.mark.nightly
@pytest.mark.timeout(1_800)
def test_every_prefix_of_the_whole_pack_is_a_pack_or_findings(shipped: dict[str, bytes]) -> None:
    for name, whole in shipped.items():
        for raw in cut(whole) if not name.startswith("golden") else ():
            found = load_pack({**shipped, name: raw})
            assert isinstance(found, Pack) or errors(found)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000, "!" * 100_000, "f(" * 100_000, "r.a in [" * 100_000, "r.a == (" * 50_000 + "1" + ")" * 50_000,
        "r.a" + ".b" * 100_000, "r.a == 1 && " * 100_000, "not " * 100_000 + "r.a", '"' + "a" * MEGABYTE, "9" * MEGABYTE,
        "r.a == r.b " * 3, "a" * MEGABYTE,
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_a_matcher_without_end_is_refused_or_read_and_never_a_traceback(text: str) -> None:
    before = sys.getrecursionlimit()
    with contextlib.suppress(ExpressionError):
        parse(text)
    assert sys.getrecursionlimit() == before


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "^(a|a)*$",
        "^(a|aa)+$",
        "^(.*)*x$",
        "^a{1,1000}$",
        "^((a{1,100}){1,100}){1,100}$",
        "^" + "(" * 400 + ")" * 400 + "$",
    ],
    ids=lambda text: text[:16],
)
def test_a_regex_bomb_is_refused_or_answers_at_once(pattern: str) -> None:
    with contextlib.suppress(PatternError):
        assert read_pattern("regexMatch", pattern).covers("a" * 5_000 + "b") in {True, False}


@pytest.mark.parametrize(
    "text", ["(" * 50_000, "a" * MEGABYTE, "[" * 5_000, "!" * 50_000, "'" * 9, "1 +" * 5_000, "\0", "x\u2028y"]
)
def test_a_condition_that_nobody_can_mean_is_refused(text: str) -> None:
    with pytest.raises(ConditionError):
        Conditions(Vocabulary(types={}, attributes={})).compiled(text)


@pytest.mark.parametrize(
    "text", ['row_filter={"a":' * 1_000, "row_filter=" + "[" * 50_000, "=" * MEGABYTE, ";" * 1_000, "a=" * 9_999]
)
def test_obligations_that_nobody_can_mean_are_refused(text: str) -> None:
    with pytest.raises(ObligationError):
        parse_then(text)


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe", b"[matchers]\nm = " + b"(" * 60_000, b"m" * MEGABYTE, b"\\\n" * 1_000, b"[" * 9_999]
)
def test_lint_of_somebody_elses_files_reports_and_never_raises(raw: bytes) -> None:
    assert lint_files(raw, raw, model_file="model.conf", policy_file="policy.csv").traps
