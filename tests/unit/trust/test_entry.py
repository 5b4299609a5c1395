import ast
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pdp.errors import BadRequestError
from pdp.model import canonical
from pdp.trust.entry import EntryHeader, Head, HeartbeatBody, SnapshotHeader, peek_seq, seal
from tests.support.logs import START_MS, Authority

ROOT = Path(__file__).parents[3]
AUTHORITY = Authority()
DIGEST = "ab" * 32


def header(**changes: Any) -> EntryHeader:
    fields = {
        "tenant": "main",
        "seq": 2,
        "prev": DIGEST,
        "kind": "lock",
        "payload_digest": DIGEST,
        "time_ms": START_MS,
    }
    return EntryHeader(**(fields | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 0},
        {"seq": True},
        {"seq": -1},
        {"seq": 2.0},
        {"seq": 2**53},
        {"seq": 1},
        {"prev": ""},
        {"prev": DIGEST.upper()},
        {"prev": DIGEST[:-1]},
        {"payload_digest": None},
        {"kind": 7},
        {"author": "x" * 513},
        {"min_engine": -1},
        {"time_ms": "now"},
    ],
)
def test_a_header_is_valid_or_not_made(changes: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        header(**changes)


@pytest.mark.holds("G8")
def test_headers_are_spelled_back_exactly() -> None:
    one = header(author="user:ada", expires_ms=7)
    assert EntryHeader.decode(one.encode()) == one
    beat = HeartbeatBody(tenant="main", seq=2, head=DIGEST, time_ms=START_MS)
    assert HeartbeatBody.decode(beat.encode()) == beat
    snap = SnapshotHeader(tenant="main", seq=2, head=DIGEST, state_digest=DIGEST, time_ms=START_MS)
    assert SnapshotHeader.decode(snap.encode()) == snap


@pytest.mark.parametrize("raw", [b'{"tenant":"main"}', b"[]", b"1", b'{"a":1,"a":1}', b""])
def test_a_header_with_other_fields_is_no_header(raw: bytes) -> None:
    with pytest.raises(BadRequestError):
        EntryHeader.decode(raw)


def test_blanks_between_signed_bytes_are_refused() -> None:
    with pytest.raises(BadRequestError):
        EntryHeader.decode(header().encode().replace(b":", b": "))


def test_an_empty_log_has_a_heartbeat_too() -> None:
    assert HeartbeatBody(tenant="main", seq=0, head="", time_ms=0).seq == 0
    with pytest.raises(BadRequestError):
        HeartbeatBody(tenant="main", seq=1, head="", time_ms=0)


def test_sealing_refuses_a_header_of_another_payload() -> None:
    with pytest.raises(BadRequestError):
        seal(header=header(), payload={"id": "x"}, keys=[AUTHORITY.publish])


def test_the_digest_does_not_depend_on_who_signed() -> None:
    other = Authority()
    assert AUTHORITY.entry().digest == AUTHORITY.entry(keys=[other.publish]).digest
    assert AUTHORITY.entry().digest != AUTHORITY.entry(author="user:ada").digest


def test_peeking_at_a_number_never_fails() -> None:
    entry = AUTHORITY.entry(Head(seq=8, digest=b"\xab" * 32))
    assert peek_seq(entry) == 9
    nonsense = type(entry)(header=b"\xff", payload=b"", signatures=())
    assert peek_seq(nonsense) == 0


def test_every_field_of_a_header_is_signed() -> None:
    assert set(canonical.loads(header().encode())) == set(asdict(header()))


@pytest.mark.parametrize("name", ["VerifiedEntry", "VerifiedHeartbeat", "VerifiedSnapshot"])
def test_only_the_verifier_makes_verified_values(name: str) -> None:
    makers = {
        str(path.relative_to(ROOT))
        for top in ("pdp", "sidecar")
        for path in (ROOT / top).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and name == (node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", ""))
    }
    assert makers == {"pdp/trust/verifier.py"}
