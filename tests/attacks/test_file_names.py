"""S6: a name from input never becomes the name of a file.

Source: python-tuf CVE-2021-41131; go-tuf CVE-2026-24686; sigstore CVE-2026-24137; Casdoor CVE-2022-38638, CVE-2026-6815.
"""

import re
from pathlib import Path

import pytest

from pdp.adapters.audit_file import AuditChain, segments
from pdp.adapters.audit_received import ReceivedChain
from pdp.adapters.pack_files import read_pack
from pdp.errors import ConfigError

HOSTILE = [
    "../../outside",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "a\x00b",
    "x" * 5_000,
    "ünïcödé",
    "*.log",
    "a\nb",
]
STORED = re.compile(r"\.?[0-9a-f]{32}\.(\d{12}\.log|last)")


def shipped(directory: Path) -> list[bytes]:
    """Return the records of a chain that some other process wrote."""
    chain = AuditChain.open(directory, name="sidecar", who=dict, now_ms=lambda: 1)
    chain.append([{"v": 1, "kind": "decision", "time_ms": 1}])
    chain.close()
    (segment,) = segments(directory)
    return [line.split(b" ", 1)[1] for line in segment.path.read_bytes().splitlines()]


@pytest.mark.holds("S6", "adv_file_names")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_chains_name_and_owner_are_stored_by_their_digest(tmp_path: Path, name: str) -> None:
    records = shipped(tmp_path / "edge")
    room = tmp_path / "pdp" / "received"
    before = {path for path in tmp_path.rglob("*") if room not in path.parents}
    for owner, chain in ((name, "sidecar"), ("workload:edge", name)):
        received = ReceivedChain(room, owner=owner, chain=chain)
        received.append(records)
        received.close()
    assert {path for path in tmp_path.rglob("*") if room not in path.parents} - before <= {room, room.parent}
    names = [path.name for path in room.iterdir()]
    assert len({name.strip(".")[:32] for name in names}) == 2
    assert all(STORED.fullmatch(found) for found in names)


@pytest.mark.holds("S6", "adv_file_names")
def test_two_names_never_share_a_file(tmp_path: Path) -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("1:a", "b"), ("1", ":ab"), ("", "abc"), ("abc", "")]
    assert len({ReceivedChain(tmp_path, owner=owner, chain=chain).name for owner, chain in pairs}) == len(pairs)


@pytest.mark.holds("S6", "adv_file_names")
def test_no_link_in_a_pack_leads_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("g, user:eve@x, role:policy-admin, prod\n")
    pack = tmp_path / "pack"
    (pack / "inside").mkdir(parents=True)
    (pack / "inside" / "rows.csv").write_text("# none\n")
    (pack / "fine.csv").symlink_to("inside/rows.csv")  # as in a mounted ConfigMap
    assert set(read_pack(pack)) == {"fine.csv", "inside/rows.csv"}
    (pack / "linked.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(ConfigError, match=r"linked\.csv is a link that leads out") as refusal:
        read_pack(pack)
    assert "eve" not in str(refusal.value)
