import pytest

from pdp.audit import chain
from pdp.audit.chain import START, Broken, Link, Malformed, Verdict
from pdp.audit.verify import verify


def records(count: int, *, kind: str = "decision") -> list[dict[str, object]]:
    first = {"v": 1, "kind": "open", "time_ms": 1, "chain": "pdp-1", "reason": "start"}
    return [first, *({"v": 1, "kind": kind, "time_ms": n, "detail": f"no {n}"} for n in range(2, count + 1))]


def sealed(count: int, after: Link = START) -> tuple[list[bytes], Link]:
    contents = []
    for record in records(count):
        content, after = chain.seal(record, after)
        contents.append(content)
    return contents, after


def segment(contents: list[bytes]) -> bytes:
    return b"".join(map(chain.frame, contents))


def test_a_sealed_record_reads_back_with_its_number_and_link() -> None:
    contents, head = sealed(3)
    assert head.n == 3
    record, link = chain.unseal(contents[2], chain.unseal(contents[1])[1])
    assert link == head
    assert (record["n"], record["detail"], record["digest"]) == (3, "no 3", head.digest)


def test_a_nested_digest_key_does_not_mislead_the_seal() -> None:
    record = {"a": {"digest": ""}, "zz": {"digest": "0" * 64}, "attributes": {'","digest":"': '"digest":""'}}
    content, link = chain.seal(record, START)
    assert chain.unseal(content, START)[1] == link


def test_a_record_without_a_key_before_digest_is_still_canonical() -> None:
    content, link = chain.seal({"v": 1}, START)
    assert chain.unseal(content, START)[1] == link


def test_a_chain_of_two_segments_verifies() -> None:
    contents, head = sealed(3)
    more, head = sealed(2, head)
    report = verify([("one", segment(contents)), ("two", segment(more))], checkpoint=head)
    assert (report.verdict, report.records, report.head) == (Verdict.OK, 5, head)


@pytest.mark.holds("N8", "adv_log_injection")
def test_control_characters_stay_inside_one_line() -> None:
    content, _ = chain.seal({"detail": "a\nb\r\x00\x1b[31m\u202e"}, START)
    assert segment([content]).count(b"\n") == 1
    assert content.decode("ascii").isprintable()


@pytest.mark.parametrize("value", [float("nan"), object(), b"bytes"])
def test_what_is_no_json_cannot_be_sealed(value: object) -> None:
    with pytest.raises(Malformed):
        chain.seal({"detail": value}, START)


@pytest.mark.holds("L1")
def test_a_record_beyond_the_limit_cannot_be_sealed() -> None:
    with pytest.raises(Malformed):
        chain.seal({"detail": "x" * chain.MAX_AUDIT_RECORD_BYTES}, START)


@pytest.mark.holds("S7", "adv_verify_exit")
def test_nothing_at_all_is_unreadable_and_never_ok() -> None:
    assert verify([]).verdict is Verdict.UNREADABLE
    assert verify([("one", b"")]).verdict is Verdict.UNREADABLE
    contents, _ = sealed(2)
    assert verify([("one", segment(contents)), ("two", b"")]).verdict is Verdict.UNREADABLE


def test_a_chain_that_ends_before_a_known_link_is_short() -> None:
    contents, head = sealed(4)
    report = verify([("one", segment(contents[:3]))], checkpoint=head)
    assert report.verdict is Verdict.SHORT


def test_a_chain_rewritten_from_the_start_does_not_reach_the_known_link() -> None:
    contents, head = sealed(4)
    forged = Link(n=2, digest="ab" * 32)
    assert verify([("one", segment(contents))], checkpoint=forged).verdict is Verdict.BROKEN
    assert verify([("one", segment(contents))], checkpoint=head).verdict is Verdict.OK


def test_a_new_segment_may_leave_out_what_a_failed_write_left_behind() -> None:
    contents, _ = sealed(4)
    acknowledged = chain.unseal(contents[1])[1]
    opening = {"v": 1, "kind": "open", "time_ms": 9, "chain": "pdp-1", "reason": "failure"}
    content, head = chain.seal(opening, acknowledged)
    report = verify([("one", segment(contents)), ("two", segment([content]))])
    assert (report.verdict, report.head) == (Verdict.OK, head)


def test_a_new_segment_of_another_reason_may_not() -> None:
    contents, _ = sealed(4)
    acknowledged = chain.unseal(contents[1])[1]
    opening = {"v": 1, "kind": "open", "time_ms": 9, "chain": "pdp-1", "reason": "size"}
    content, _ = chain.seal(opening, acknowledged)
    assert verify([("one", segment(contents)), ("two", segment([content]))]).verdict is Verdict.BROKEN


def test_a_segment_starts_with_an_open_record() -> None:
    contents, head = sealed(3)
    more, _ = sealed(3, head)
    follower, _ = chain.seal({"v": 1, "kind": "decision"}, head)
    assert verify([("one", segment(contents)), ("two", segment([follower]))]).verdict is Verdict.BROKEN
    assert verify([("one", segment(contents)), ("two", segment(more))]).verdict is Verdict.OK


def test_the_report_names_file_and_line_of_the_damage() -> None:
    contents, _ = sealed(4)
    contents[2] = contents[2].replace(b"no 3", b"no 9")
    report = verify([("pdp-1.000000000001.log", segment(contents))])
    assert (report.verdict, report.where) == (Verdict.BROKEN, "pdp-1.000000000001.log:3")
    assert "digest does not match" in str(report)


def test_a_torn_tail_is_told_from_a_changed_file() -> None:
    contents, _ = sealed(4)
    whole = segment(contents)
    torn = chain.scan(whole[:-5])
    assert torn is not None
    assert torn.torn
    assert torn.valid_bytes == len(segment(contents[:3]))
    changed = chain.scan(whole.replace(b"no 3", b"no 9"))
    assert changed is not None
    assert not changed.torn
    assert not changed.whole
    assert chain.scan(whole[:10]) is None


def test_unsealing_checks_the_predecessor() -> None:
    contents, head = sealed(2)
    with pytest.raises(Broken):
        chain.unseal(contents[1], head)
    with pytest.raises(Malformed):
        chain.unseal(b"[]")
    with pytest.raises(Malformed):
        chain.unseal(b'{"digest":"","n":0,"prev":""}')
