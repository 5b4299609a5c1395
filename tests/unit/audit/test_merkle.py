"""The hashes and paths of RFC 6962, held to its own recursive definition."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.audit.merkle import EMPTY_ROOT, Frontier, Tree, consistent, frontier_of, root_by_inclusion, spelled

LEAVES = [bytes([n]) * 32 for n in range(70)]


def defined(leaves: list[bytes]) -> bytes:
    """Return MTH(D[n]) as section 2.1 defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return hashlib.sha256(b"\x01" + defined(leaves[:middle]) + defined(leaves[middle:])).digest()


def grown(size: int) -> Frontier:
    tree = Frontier()
    tree.extend(LEAVES[:size])
    return tree


def test_the_root_is_the_one_that_the_rfc_defines() -> None:
    assert [grown(size).root() for size in range(70)] == [defined(LEAVES[:size]) for size in range(70)]
    assert grown(0).root() == EMPTY_ROOT


def test_the_root_of_a_known_log() -> None:
    """Source: the test vectors of certificate-transparency-go, `testonly/reference.go`."""
    tree = Frontier()
    tree.extend([b"", b"\x00", b"\x10", bytes.fromhex("2021"), bytes.fromhex("3031"), bytes.fromhex("40414243")])
    tree.extend([bytes.fromhex("5051525354555657"), bytes.fromhex("606162636465666768696a6b6c6d6e6f")])
    assert tree.root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(st.data())
def test_what_is_proved_is_proved_from_any_part_that_remains(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 69))
    first = data.draw(st.integers(0, size - 1))
    index = data.draw(st.integers(first, size - 1))
    old = data.draw(st.integers(first, size))
    tree = Tree(grown(first), LEAVES[first:size])
    root = defined(LEAVES[:size])
    path = tree.inclusion(index, size)
    assert tree.root(size) == root
    assert root_by_inclusion(LEAVES[index], index, size, path) == root
    assert consistent((old, defined(LEAVES[:old])), (size, root), tree.consistency(old, size))


@given(st.data())
def test_no_other_leaf_place_size_or_path_leads_to_the_root(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 69))
    index = data.draw(st.integers(0, size - 1))
    tree, root = Tree(Frontier(), LEAVES[:size]), defined(LEAVES[:size])
    path = tree.inclusion(index, size)
    assert root_by_inclusion(LEAVES[(index + 1) % size], index, size, path) != root
    assert root_by_inclusion(LEAVES[index], (index + 1) % size, size, path) != root
    for wrong in (path[:-1], [*path, path[0]], [bytes(32), *path[1:]]):
        assert root_by_inclusion(LEAVES[index], index, size, wrong) != root
    assert root_by_inclusion(LEAVES[index], size, size, path) is None
    assert root_by_inclusion(LEAVES[index], -1, size, path) is None


@given(st.data())
def test_no_other_history_is_consistent(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 69))
    old = data.draw(st.integers(1, size - 1))
    path = Tree(Frontier(), LEAVES[:size]).consistency(old, size)
    roots = (old, defined(LEAVES[:old])), (size, defined(LEAVES[:size]))
    forged = (old, defined([b"x" * 32, *LEAVES[1:old]]))
    assert not consistent(forged, roots[1], path)
    assert not consistent(roots[0], (size, bytes(32)), path)
    assert not consistent(roots[0], roots[1], [*path, bytes(32)])
    assert not consistent(roots[1], roots[0], path)
    assert not consistent(roots[0], (old, bytes(32)), [])


@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 69])
def test_a_tree_goes_on_from_how_a_record_spells_it(size: int) -> None:
    held = spelled(grown(size))
    tree = frontier_of(held["size"], held["peaks"])  # type: ignore[arg-type]
    tree.extend(LEAVES[size:70])
    assert tree == grown(70)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 31, 33, 64])
def test_a_tree_grows_to_the_same_in_whatever_groups(size: int) -> None:
    for end in range(size, 70):
        tree = grown(size)
        tree.extend(iter(LEAVES[size:end]))
        assert (tree.root(), tree) == (defined(LEAVES[:end]), grown(end))


def test_a_frontier_of_another_size_is_none() -> None:
    for size, peaks in ((1, []), (3, ["00" * 32]), (1, ["00" * 31]), (1, ["zz"])):
        with pytest.raises(ValueError, match=r"."):
            frontier_of(size, peaks)
