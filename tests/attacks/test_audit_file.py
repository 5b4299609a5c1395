"""Whoever can write the audit file cannot change it unnoticed. Source: FAILURE.md S3, S7, F9; `adv_verify_exit`."""

import itertools

import pytest

from pdp.audit import chain
from pdp.audit.chain import START, Verdict
from pdp.audit.verify import verify


@pytest.fixture(scope="module")
def contents() -> list[bytes]:
    records: list[dict[str, object]] = [{"v": 1, "kind": "open", "chain": "pdp-1", "reason": "start", "time_ms": 1}]
    records += [{"v": 1, "kind": "decision", "effect": "deny", "reason": "no_grant", "time_ms": n} for n in range(4)]
    link, found = START, []
    for record in records:
        content, link = chain.seal(record, link)
        found.append(content)
    return found


def verdict(data: bytes) -> Verdict:
    return verify([("audit.log", data)]).verdict


def file_of(contents: list[bytes]) -> bytes:
    return b"".join(map(chain.frame, contents))


def test_the_file_itself_verifies(contents: list[bytes]) -> None:
    assert verdict(file_of(contents)) is Verdict.OK


@pytest.mark.holds("S3", "S7", "adv_verify_exit")
def test_edit_of_any_byte(contents: list[bytes]) -> None:
    whole = file_of(contents)
    for position, flip in itertools.product(range(len(whole)), (0x01, 0x20, 0x80)):
        changed = bytearray(whole)
        changed[position] ^= flip
        assert verdict(bytes(changed)) in (Verdict.BROKEN, Verdict.UNREADABLE), position


def test_edit_of_an_answer_with_the_length_kept(contents: list[bytes]) -> None:
    changed = [content.replace(b'"no_grant"', b'"granted!"') for content in contents]
    assert verdict(file_of(changed)) is Verdict.BROKEN


def test_edit_with_a_new_own_digest_breaks_the_next_link(contents: list[bytes]) -> None:
    record, _ = chain.unseal(contents[2])
    before = chain.unseal(contents[1])[1]
    kept = {name: value for name, value in record.items() if name not in ("n", "prev", "digest")}
    forged, _ = chain.seal(kept | {"effect": "allow"}, before)
    assert verdict(file_of([*contents[:2], forged, *contents[3:]])) is Verdict.BROKEN


@pytest.mark.parametrize("gone", range(4))
def test_delete(contents: list[bytes], gone: int) -> None:
    assert verdict(file_of(contents[:gone] + contents[gone + 1 :])) is Verdict.BROKEN


def test_reorder(contents: list[bytes]) -> None:
    for order in itertools.permutations(range(len(contents))):
        if list(order) != sorted(order):
            assert verdict(file_of([contents[n] for n in order])) is Verdict.BROKEN


@pytest.mark.parametrize("place", range(1, 6))
def test_insert(contents: list[bytes], place: int) -> None:
    stranger, _ = chain.seal({"v": 1, "kind": "decision", "effect": "allow"}, START)
    assert verdict(file_of([*contents[:place], stranger, *contents[place:]])) is Verdict.BROKEN
    repeated = [*contents[:place], contents[place - 1], *contents[place:]]
    assert verdict(file_of(repeated)) is Verdict.BROKEN


@pytest.mark.holds("F9", "S3")
def test_truncate_at_every_byte(contents: list[bytes]) -> None:
    whole = file_of(contents)
    head = chain.unseal(contents[-1])[1]
    boundaries = {len(file_of(contents[:count])) for count in range(1, len(contents))}
    for size in range(len(whole)):
        report = verify([("audit.log", whole[:size])], checkpoint=head)
        expected = Verdict.SHORT if size in boundaries else Verdict.UNREADABLE
        assert report.verdict is expected, size


def test_garbage_after_the_end(contents: list[bytes]) -> None:
    for garbage in (b"\n", b" ", b"{}", b"\x00" * 512, b"000002 {}\n"):
        assert verdict(file_of(contents) + garbage) is Verdict.UNREADABLE


def test_a_second_spelling_of_a_record_is_refused(contents: list[bytes]) -> None:
    spaced = contents[1].replace(b'"effect":"deny"', b'"effect": "deny"')
    assert verdict(file_of([contents[0], spaced, *contents[2:]])) is Verdict.UNREADABLE
