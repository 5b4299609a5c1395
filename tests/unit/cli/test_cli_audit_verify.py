from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdp.audit.chain import START, Link, frame, seal

Pdp = Callable[..., Any]


def segment(count: int, after: Link = START) -> tuple[bytes, list[Link]]:
    data, links = b"", []
    for number in range(count):
        kind = "decision" if number else "open"
        content, after = seal({"v": 1, "kind": kind, "time_ms": number, "reason": "size"}, after)
        data += frame(content)
        links.append(after)
    return data, links


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Path, list[Link]]:
    """Return a directory with one chain of two segments, and a received chain in a folder below."""
    first, links = segment(3)
    second, more = segment(2, links[-1])
    (tmp_path / "pdp-1.000000000001.log").write_bytes(first)
    (tmp_path / "pdp-1.000000000004.log").write_bytes(second)
    (tmp_path / "received").mkdir()
    (tmp_path / "received" / "abc.000000000001.log").write_bytes(segment(2)[0])
    return tmp_path, links + more


Chain = tuple[Path, list[Link]]


def test_whole_chains_are_exit_code_0(pdp: Pdp, chain: Chain) -> None:
    ended = pdp("audit", "verify", chain[0], "--json")
    assert (ended.code, ended.json["ok"]) == (0, True)
    records = {told["chain"]: told["records"] for told in ended.json["chains"]}
    assert records == {"pdp-1": 5, "received/abc": 2}
    assert "5 records verified" in pdp("audit", "verify", chain[0]).out


def test_one_file_is_verified_with_those_before_it(pdp: Pdp, chain: Chain) -> None:
    assert pdp("audit", "verify", chain[0] / "pdp-1.000000000001.log", "--json").json["chains"][0]["records"] == 3
    assert pdp("audit", "verify", chain[0] / "pdp-1.000000000004.log", "--json").json["chains"][0]["records"] == 5


@pytest.mark.holds("S7", "adv_verify_exit")
def test_a_changed_record_is_exit_code_1(pdp: Pdp, chain: Chain) -> None:
    path = chain[0] / "pdp-1.000000000001.log"
    path.write_bytes(path.read_bytes().replace(b'"time_ms":1', b'"time_ms":9'))
    ended = pdp("audit", "verify", chain[0], "--json")
    assert ended.code == 1
    assert {told["verdict"] for told in ended.json["chains"]} == {"broken", "ok"}


def test_a_removed_segment_is_exit_code_1(pdp: Pdp, chain: Chain) -> None:
    (chain[0] / "pdp-1.000000000001.log").unlink()
    assert pdp("audit", "verify", chain[0]).code == 1


@pytest.mark.holds("S7", "adv_verify_exit")
@pytest.mark.parametrize("content", [b"", b"garbage\n", b"000002 {}\n"])
def test_what_is_no_chain_is_exit_code_2(pdp: Pdp, chain: Chain, content: bytes) -> None:
    (chain[0] / "received" / "abc.000000000001.log").write_bytes(content)
    assert pdp("audit", "verify", chain[0]).code == 2


def test_a_torn_tail_is_exit_code_2(pdp: Pdp, chain: Chain) -> None:
    path = chain[0] / "pdp-1.000000000004.log"
    path.write_bytes(path.read_bytes()[:-3])
    assert pdp("audit", "verify", chain[0]).code == 2


def test_a_file_that_is_not_named_like_a_segment_is_not_passed_over(pdp: Pdp, chain: Chain) -> None:
    (chain[0] / "pdp-1.000000000006.log.log").write_bytes(b"x")
    assert pdp("audit", "verify", chain[0]).code == 2


@pytest.mark.holds("S7")
def test_nothing_to_verify_is_exit_code_2(pdp: Pdp, tmp_path: Path) -> None:
    assert pdp("audit", "verify", tmp_path).code == 2
    ended = pdp("audit", "verify", tmp_path / "gone")
    assert ended.code == 2
    assert "no such file" in ended.out


@pytest.mark.holds("S7", "adv_verify_exit")
def test_a_chain_that_ends_before_a_checkpoint_is_exit_code_3(pdp: Pdp, chain: Chain) -> None:
    directory, links = chain
    known = f"pdp-1={links[-1].n}:{links[-1].digest}"
    assert pdp("audit", "verify", directory, "--checkpoint", known).code == 0
    (directory / "pdp-1.000000000004.log").unlink()
    assert pdp("audit", "verify", directory, "--checkpoint", known).code == 3


def test_a_rewritten_chain_does_not_pass_a_checkpoint(pdp: Pdp, chain: Chain) -> None:
    known = f"pdp-1=2:{'0' * 64}"
    assert pdp("audit", "verify", chain[0], "--checkpoint", known).code == 1


def test_a_checkpoint_of_a_chain_that_is_gone_is_no_success(pdp: Pdp, chain: Chain) -> None:
    assert pdp("audit", "verify", chain[0], "--checkpoint", f"gone=1:{'0' * 64}").code == 2


@pytest.mark.parametrize("checkpoint", ["1:abc", f"1:{'0' * 64}", f"-1:{'0' * 64}"])
def test_a_malformed_or_ambiguous_checkpoint_is_one_line(pdp: Pdp, chain: Chain, checkpoint: str) -> None:
    ended = pdp("audit", "verify", chain[0], f"--checkpoint={checkpoint}")
    assert (ended.code, ended.err.count("\n")) == (2, 1)


@pytest.mark.holds("S7", "adv_verify_exit")
def test_every_single_byte_changed_is_noticed(pdp: Pdp, tmp_path: Path) -> None:
    path = tmp_path / "a.000000000001.log"
    data, _ = segment(2)
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert pdp("audit", "verify", tmp_path).code in {1, 2}, position
