import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdp.engine.findings import Finding, Severity, errors
from pdp.engine.matrix import matrix
from pdp.engine.pack import Pack, load_pack
from tests.unit.engine.conftest import POLICIES

TOTAL = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(files: dict[str, bytes]) -> list[str]:
    found = load_pack(files)
    assert isinstance(found, tuple)
    assert errors(found)
    return [str(item) for item in found]


def test_the_shipped_pack_loads_without_a_warning(shipped: dict[str, bytes]) -> None:
    pack = load_pack(shipped)
    assert isinstance(pack, Pack), [str(item) for item in pack]
    assert pack.warnings == ()
    assert pack.tests
    assert pack.assets == ()


def test_the_shipped_pack_names_nobody(shipped: dict[str, bytes]) -> None:
    pack = load_pack(shipped)
    assert isinstance(pack, Pack)
    assert not [row for row in pack.rows if row.fields[0].startswith(("user:", "workload:", "agent:"))]


def test_the_golden_matrix_is_that_of_the_shipped_pack(shipped: dict[str, bytes]) -> None:
    """Regenerate with `python -m tests.unit.engine.golden` after a wanted change, and read the diff."""
    pack = load_pack(shipped)
    assert isinstance(pack, Pack)
    assert (POLICIES / "golden" / "matrix.txt").read_text(encoding="utf-8") == matrix(pack.snapshot)


@pytest.mark.holds("adv_exemptions")
def test_no_shipped_row_lets_a_caller_without_a_segment_reach_prod(shipped: dict[str, bytes]) -> None:
    pack = load_pack(shipped)
    assert isinstance(pack, Pack)
    rows = [row for row in pack.rows if row.section == "p2" and "segment:none" in row.fields[:3]]
    assert rows
    assert all(row.fields[3] == "resource.environment == 'dev'" for row in rows)


def test_policy_administrators_hold_no_data_rights(shipped: dict[str, bytes]) -> None:
    pack = load_pack(shipped)
    assert isinstance(pack, Pack)
    lines = [line.split() for line in matrix(pack.snapshot).split("\n") if line.startswith("role:policy-admin ")]
    data = [
        line for line in lines if any(line[1].startswith(kind) for kind in ("dataset", "model", "artifact", "endpoint"))
    ]
    assert data
    assert all(set(line[-4:]) == {"✘"} for line in data)


def test_findings_of_all_files_come_at_once(shipped: dict[str, bytes]) -> None:
    broken = {
        **shipped,
        "more.csv": b"p, role:x, dataset.raed, dataset/a, dev, , , allow\nq, x\n",
        "assets.yaml": b"dataset/a: {environment: produ, ownr: x}\nbad name: {}\n",
        "tests/more.yaml": b"- {name: x, ask: {subject: 1}, want: {effect: perhaps}, extra: 1}\n",
    }
    text = "\n".join(refused(broken))
    for expected in (
        "assets.yaml:1:26: PC203 unknown_name",
        "assets.yaml:1:39: PC203 unknown_name",
        "assets.yaml:2:11: PC115 bad_character",
        "more.csv:1:12: PC203 unknown_name: the vocabulary knows no action `dataset.raed`; did you mean `dataset.read`?",
        "more.csv:2:1: PC110 unknown_ptype",
        "tests/more.yaml:1:28: PC505 bad_yaml",
        "tests/more.yaml:1:47: PC101 unknown_effect",
        "PC203 unknown_name: unknown key `extra`",
    ):
        assert expected in text, text


@pytest.mark.parametrize("missing", ["model.conf", "vocabulary.yaml"])
def test_a_pack_without_its_model_or_words_is_refused(shipped: dict[str, bytes], missing: str) -> None:
    files = {name: raw for name, raw in shipped.items() if name != missing}
    assert any(f"{missing}:1:1: PC504 missing_file" in line for line in refused(files))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: &x 1\nb: *x\n", "PC505"),
        ("a: !!python/object:os.system x\n", "PC505"),
        ("a: 1\na: 2\n", "PC118"),
        ("[" * 2000, "PC505"),
        ("a: 2026-01-01\n", "PC505"),
        ("a: yes\n", "PC505"),
        ("a: ~\n", "PC505"),
        ("? [a]\n: b\n", "PC505"),
        ("---\na: 1\n---\nb: 2\n", "PC505"),
        ('a: "\\UFFFFFFFF"\n', "PC505"),
        ("a: 1e999999\n", "PC505"),
        ("", "PC505"),
        ("types: []\nattributes: {x: {type: strin}}\n", "PC203"),
        ("types: {a: {verbs: [B]}}\nattributes: {}\n", "PC115"),
        ("types: {a: {verbs: [b], versioned: [c]}}\nattributes: {}\n", "PC203"),
        ("types: {a: {verbs: [b], segmented: 1}}\nattributes: {}\n", "PC505"),
        ("types: {}\nattributes: {a.b: {type: string, asserted_by: [anyone]}}\n", "PC203"),
        ("types: {}\nattributes: {ab: {type: string}}\n", "PC115"),
        ("types: {}\nattributes: {a.b: {type: [x]}}\n", "PC203"),
    ],
)
def test_a_vocabulary_that_could_be_read_in_two_ways_is_refused(
    shipped: dict[str, bytes], text: str, code: str
) -> None:
    found = load_pack({**shipped, "vocabulary.yaml": text.encode()})
    assert isinstance(found, tuple)
    assert code in {item.code for item in found if item.file == "vocabulary.yaml"}


def test_bytes_that_are_not_utf_8_have_a_place(shipped: dict[str, bytes]) -> None:
    assert "bad.csv:2:4: PC115 bad_character: not UTF-8" in refused({**shipped, "bad.csv": b"# x\np, \xff\n"})


def test_every_truncation_of_a_file_is_a_pack_or_findings(shipped: dict[str, bytes]) -> None:
    for name in ("model.conf", "segmentation.csv"):
        whole = shipped[name]
        for end in range(0, len(whole), 37):
            total(load_pack({**shipped, name: whole[:end]}))


def total(loaded: Pack | tuple[Finding, ...]) -> None:
    if not isinstance(loaded, Pack):
        assert any(item.severity is Severity.ERROR for item in loaded)
        assert all(item.line >= 1 and item.column >= 1 for item in loaded)


@pytest.mark.holds("L9", "adv_malformed_peer", "P11")
@TOTAL
@given(
    raw=st.binary(max_size=200),
    name=st.sampled_from(["model.conf", "vocabulary.yaml", "a.csv", "assets.yaml", "tests/a.yaml"]),
)
def test_any_bytes_are_a_pack_or_findings(shipped: dict[str, bytes], raw: bytes, name: str) -> None:
    total(load_pack({**shipped, name: raw}))


_LINES = st.lists(st.text(alphabet='pg23,_ "ae:/*@.|\t#{}[]&!-=\n\r\u200b\ufeffZ0', max_size=30), max_size=8)


@TOTAL
@given(lines=_LINES, name=st.sampled_from(["model.conf", "vocabulary.yaml", "a.csv", "assets.yaml", "tests/a.yaml"]))
def test_any_lines_are_a_pack_or_findings(shipped: dict[str, bytes], lines: list[str], name: str) -> None:
    total(load_pack({**shipped, name: "\n".join(lines).encode()}))


@TOTAL
@given(data=st.data())
def test_a_pack_with_bytes_changed_is_a_pack_or_findings(shipped: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["model.conf", "vocabulary.yaml", "segmentation.csv", "tests/release.yaml"]))
    raw = bytearray(shipped[name])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    total(load_pack({**shipped, name: bytes(raw)}))


def test_a_line_of_a_megabyte_is_a_finding(shipped: dict[str, bytes]) -> None:
    assert any("PC506" in line for line in refused({**shipped, "a.csv": b"p, " + b"\xc3\xa9" * 1_100_000}))
