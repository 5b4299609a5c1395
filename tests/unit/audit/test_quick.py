"""The fast reader of decisions accepts nothing that the strict one would not, and says the same of it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.audit import chain
from pdp.audit.chain import START, Broken, Malformed
from pdp.audit.quick import quick
from pdp.model.names import Principal
from pdp.model.request import CredentialFacts, Party
from tests.unit.audit.test_record import question, record

ODD = [
    record(question()),
    record(question(attributes={"request.purpose": 'a"b\\c{}[],', "request.n": 7})),
    record(question(attributes={}, claims={}, credential=CredentialFacts(), supports=None, actors=(), workload=None)),
    record(question(actors=tuple(Party(principal=Principal.parse(f"agent:a{n}")) for n in range(3)))),
]
FRAMES = [chain.frame(chain.seal(made, START)[0]) for made in ODD]


def strict(data: bytes) -> tuple[int, int, str, str] | None:
    try:
        ((end, content),) = chain.frames(data)
        read, own = chain.unseal(content)
    except (Malformed, Broken, ValueError):
        return None
    return end, own.n, read["prev"], own.digest


def fast(data: bytes) -> tuple[int, int, str, str] | None:
    try:
        return quick(data, 0, chain._digest)
    except Malformed:
        return None


def test_most_decisions_are_read_fast() -> None:
    assert [fast(frame) for frame in FRAMES] == [strict(FRAMES[0]), None, *(strict(frame) for frame in FRAMES[2:])]


@settings(max_examples=300)
@given(st.sampled_from(FRAMES), st.data())
def test_what_is_read_fast_is_read_the_same_strictly(frame: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(frame) - 1))
    until = data.draw(st.integers(at, min(len(frame), at + 4)))
    put = data.draw(st.sampled_from([b"", b"0", b'"', b"{", b"}", b",", b"\\", b" ", b"\x7f", b"\xff", b"1e9", b"{}"]))
    mutant = frame[:at] + put + frame[until:]
    assert fast(mutant) in (None, strict(mutant))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"claims":{"subject.acr":"gold"}', b'"claims":{"subject.acr": "gold"}'),
        (b'"claims":{"subject.acr":"gold"}', b'"claims":{"b":1,"a":2}'),
        (b'"claims":{"subject.acr":"gold"}', b'"claims":{"a":1,"a":2}'),
        (b'"claims":{"subject.acr":"gold"}', b'"claims":{"subject.acr":"\\u0067old"}'),
        (b'"now_ms":1', b'"now_ms":01'),
        (b'"staleness_ms":2', b'"staleness_ms":-0'),
        (b'"kind":"decision"', b'"kind":"decision","kind":"decision"'),
    ],
)
def test_a_second_spelling_sealed_with_its_right_digest_is_read_by_neither(old: bytes, new: bytes) -> None:
    """Attack: a forger writes what two readers understand differently, and seals it as it should be."""
    content, _ = chain.seal(record(question()), START)
    forged = content.replace(old, new)
    assert forged != content
    own = json.loads(content)["digest"].encode()
    digest = chain._digest(forged.replace(own, b"0" * 64))
    data = chain.frame(forged.replace(own, digest.encode()))
    assert strict(data) is None
    assert fast(data) is None
