"""Whoever rewrites a signed decision log is found out by its checkpoints, also if every digest in it is right again.

The attacker here can write every file of the log and knows the format; the audit key, and a checkpoint that somebody else
holds, are out of reach. Source: issue 8, line 7; FAILURE.md S7.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.adapters.audit_key import AuditSigner
from pdp.adapters.audit_reader import read_segments
from pdp.audit.chain import START, Link, Report, Verdict, frame, frames, seal
from pdp.audit.verify import Known, Reading, verify
from tests.support.chains import decision, signer, written

Contents = list[list[bytes]]
KEY = signer()
CAUGHT = {Verdict.BROKEN, Verdict.UNREADABLE, Verdict.SHORT}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return contents_of(tmp_path_factory.mktemp("log"))


def contents_of(directory: Path, key: AuditSigner | None = KEY, **options: Any) -> Contents:
    written(directory, key, **options)
    (held,) = read_segments(directory).values()
    return [[content for _, content in frames(data)] for _, data in held]


def files_of(log: Contents) -> list[tuple[str, bytes]]:
    return [(f"pdp-1.{n}.log", b"".join(map(frame, contents))) for n, contents in enumerate(log)]


def last_note(log: Contents) -> str:
    reading = Reading()
    for name, data in files_of(log):
        reading.segment(name, data)
    return reading.note


def checked(files: list[tuple[str, bytes]], log: Contents) -> Report:
    """Verify as somebody does who holds the writer's key and the newest checkpoint of the honest log."""
    return verify(files, known=Known(keys=(KEY.key,), notes=(last_note(log),)))


def resealed(log: Contents, change: Callable[[list[dict[str, Any]]], None]) -> Contents:
    """Return the log after `change`, every number, predecessor, tree and digest made right again; signatures as they were."""
    records = [json.loads(content) for contents in log for content in contents]
    change(records)
    link, made = START, Contents()
    for record in records:
        plain = {name: value for name, value in record.items() if name not in ("n", "prev", "digest", "tree")}
        content, link = seal(plain, link)
        if record["kind"] == "open" or not made:
            made.append([])
        made[-1].append(content)
    return made


def test_the_honest_log_holds(log: Contents) -> None:
    report = checked(files_of(log), log)
    assert (report.verdict, report.signed, report.key) == (Verdict.OK, report.records - 1, str(KEY.key))


@settings(max_examples=200)
@given(st.data())
def test_any_bytes_changed_removed_or_put_in(log: Contents, data: st.DataObject) -> None:
    files = files_of(log)
    number = data.draw(st.integers(0, len(files) - 1))
    name, whole = files[number]
    at = data.draw(st.integers(0, len(whole) - 1))
    until = data.draw(st.sampled_from([at, at + 1, at + 7, len(whole)]))
    put = data.draw(st.sampled_from([b"", b"\x00", b"0", b"\n", b"{}", b"00", whole[at:until] * 2]))
    changed = whole[:at] + put + whole[until:]
    if changed == whole or (
        number == len(files) - 1 and whole.startswith(changed) and is_last_checkpoint(log, changed)
    ):
        return
    files[number] = (name, changed)
    assert checked(files, log).verdict in CAUGHT


def is_last_checkpoint(log: Contents, left: bytes) -> bool:
    """Tell whether all that was cut is the last checkpoint itself, which its holder has."""
    return left == b"".join(map(frame, log[-1][:-1]))


@settings(max_examples=100)
@given(st.data())
def test_records_removed_repeated_or_in_another_order(log: Contents, data: st.DataObject) -> None:
    flat = [content for contents in log for content in contents]
    order = data.draw(
        st.one_of(
            st.permutations(range(len(flat))),
            st.lists(st.integers(0, len(flat) - 1), max_size=len(flat) + 2),
            st.integers(0, len(flat) - 2).map(lambda end: list(range(end))),
        )
    )
    if list(order) in (list(range(len(flat))), list(range(len(flat) - 1))):
        return
    assert checked([("pdp-1.log", b"".join(frame(flat[n]) for n in order))], log).verdict in CAUGHT


@settings(max_examples=50)
@given(st.data())
def test_segments_removed_repeated_or_in_another_order(log: Contents, data: st.DataObject) -> None:
    files = files_of(log)
    order = data.draw(st.lists(st.integers(0, len(files) - 1), max_size=len(files) + 1))
    if order != list(range(len(files))):
        assert checked([files[n] for n in order], log).verdict in CAUGHT


def _edit(records: list[dict[str, Any]], at: int) -> None:
    records[at]["detail"] = "something else"


def _delete(records: list[dict[str, Any]], at: int) -> None:
    del records[at]


def _insert(records: list[dict[str, Any]], at: int) -> None:
    records.insert(at + 1, decision(99))


def _swap(records: list[dict[str, Any]], at: int) -> None:
    other = next(n for n in range(len(records) - 1, 0, -1) if records[n]["kind"] == "decision" and n != at)
    records[at], records[other] = records[other], records[at]


@pytest.mark.parametrize("attack", [_edit, _delete, _insert, _swap])
@pytest.mark.parametrize("without_checkpoints", [False, True])
def test_a_log_whose_digests_are_all_made_right_again(
    log: Contents, attack: Callable[[list[dict[str, Any]], int], None], *, without_checkpoints: bool
) -> None:
    kinds = [json.loads(content)["kind"] for contents in log for content in contents]
    for at in (n for n, kind in enumerate(kinds) if kind == "decision"):

        def change(records: list[dict[str, Any]], at: int = at) -> None:
            attack(records, at)
            if without_checkpoints:
                records[:] = [record for record in records if record["kind"] != "checkpoint"]

        forged = files_of(resealed(log, change))
        assert checked(forged, log).verdict in CAUGHT, at
        # Without any knowledge from elsewhere, signatures that were left in give it away; without them nothing does.
        assert (verify(forged).verdict is Verdict.OK) is (without_checkpoints or not _signed_after(kinds, at)), at


def _signed_after(kinds: list[str], at: int) -> bool:
    return "checkpoint" in kinds[at:]


def test_a_log_signed_anew_by_another_key(log: Contents, tmp_path: Path) -> None:
    forged = contents_of(tmp_path, signer())
    assert verify(files_of(forged)).verdict is Verdict.OK
    assert checked(files_of(forged), log).verdict is Verdict.BROKEN


def test_a_log_without_signatures_where_a_key_is_asked_for(tmp_path: Path) -> None:
    unsigned = files_of(contents_of(tmp_path, None))
    assert verify(unsigned).verdict is Verdict.OK
    assert verify(unsigned, known=Known(keys=(KEY.key,))).verdict is Verdict.BROKEN


def test_a_fork_two_logs_of_one_origin_that_part(log: Contents, tmp_path: Path) -> None:
    """Attack: the writer's own key signs two histories, one for each reader; a checkpoint of the one does not fit the other."""
    other = contents_of(tmp_path, KEY, each=6)
    assert json.loads(other[0][0])["chain"] == json.loads(log[0][0])["chain"]
    report = verify(files_of(other), known=Known(keys=(KEY.key,), notes=(last_note(log),)))
    assert (report.verdict, "fork" in report.detail) == (Verdict.BROKEN, True)


def test_a_tail_cut_off_behind_a_checkpoint_that_somebody_holds_is_short(log: Contents) -> None:
    cut = [*log[:-1], log[-1][:-2]]
    assert verify(files_of(cut)).verdict is Verdict.OK  # that is why checkpoints are kept elsewhere
    assert checked(files_of(cut), log).verdict is Verdict.SHORT


def test_signed_records_cannot_be_left_out_as_if_their_writing_had_failed(log: Contents) -> None:
    """Attack: a segment that `goes on after a failure` from before what was signed, with all it must not show left behind."""
    first = [json.loads(content) for content in log[0]]
    before = Link(first[1]["n"], first[1]["digest"])
    opened = {**first[0], "reason": "failure"}
    plain = {name: value for name, value in opened.items() if name not in ("n", "prev", "digest", "tree")}
    forged = files_of([log[0], [seal(plain, before)[0]]])
    report = verify(forged)
    assert (report.verdict, "were signed" in report.detail) == (Verdict.BROKEN, True)


def test_a_checkpoint_of_another_chain_does_not_fit(log: Contents, tmp_path: Path) -> None:
    other = contents_of(tmp_path, KEY, name="sidecar")
    report = verify(files_of(log), known=Known(keys=(KEY.key,), notes=(last_note(other),)))
    assert report.verdict is Verdict.UNREADABLE


def test_a_checkpoint_moved_to_another_place_in_the_chain(log: Contents) -> None:
    kinds = [json.loads(content)["kind"] for content in log[0]]
    at = kinds.index("checkpoint")

    def move(records: list[dict[str, Any]]) -> None:
        records.insert(at + 2, records.pop(at))

    assert verify(files_of(resealed(log, move))).verdict is Verdict.BROKEN


def test_another_tree_in_a_segments_first_record(log: Contents) -> None:
    """Attack: what readers go on from after a removal is prepared while the chain is still whole."""
    opened = json.loads(log[1][0])
    opened["tree"]["peaks"][0] = "00" * 32
    plain = {name: value for name, value in opened.items() if name not in ("n", "prev", "digest")}
    before = json.loads(log[0][-1])
    content, _ = seal(plain, Link(before["n"], before["digest"]))
    assert verify(files_of([log[0], [content]])).verdict is Verdict.BROKEN


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(["size", "peaks", "x"]), below, max_size=3)
    ),
    max_leaves=5,
)
FIELD = st.sampled_from(["kind", "key", "tree", "chain", "note", "size", "reason", "time_ms", "v"])


@settings(max_examples=80)
@given(st.lists(st.dictionaries(FIELD, ODD, max_size=4), min_size=1, max_size=4), st.data())
def test_records_of_any_shape_sealed_as_they_should_be_are_a_verdict_and_never_a_crash(
    log: Contents, odd: list[dict[str, Any]], data: st.DataObject
) -> None:
    records = [json.loads(content) for contents in log for content in contents][: data.draw(st.integers(1, 8))]
    link, made = START, []
    for record in [*records, *({**records[0], **one} for one in odd)]:
        plain = {name: value for name, value in record.items() if name not in ("n", "prev", "digest")}
        content, link = seal(plain, link)
        made.append(frame(content))
    cut = data.draw(st.integers(1, len(made)))
    files = [("a", b"".join(made[:cut])), ("b", b"".join(made[cut:]))][: 1 + (cut < len(made))]
    assert isinstance(verify(files), Report)
    assert isinstance(verify(files[1:] or files, known=Known(tombstones=(("x", "y"),))), Report)
    assert verify(files, known=Known(keys=(signer().key,))).verdict in CAUGHT
