import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters import audit_prune
from pdp.adapters.audit_file import segments
from pdp.adapters.audit_key import audit_signer
from tests.support.chains import signer, written

Pdp = Callable[..., Any]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state directory whose log has three segments, long ago."""
    written(tmp_path / "audit", audit_signer(tmp_path))
    return tmp_path


def pruned(pdp: Pdp, state: Path, *more: object) -> Any:
    return pdp("audit", "prune", "--state-dir", state, "--because", "rule 7", "--by", "user:ada@x.org", *more)


@pytest.fixture
def _long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log was written at a set time, which lies ahead: a year behind it, all of it is old."""
    monkeypatch.setattr("pdp.cli.audit_prune.time.time_ns", lambda: 1_900_000_000_000_000_000)


pytestmark = pytest.mark.usefixtures("_long_ago")


def test_what_was_removed_by_policy_is_said_and_never_called_whole(pdp: Pdp, state: Path) -> None:
    assert pruned(pdp, state, "--older-than", "1d").code == 0
    ended = pdp("audit", "verify", state / "audit", "--key", state / "audit.pub")
    assert ended.code == 4
    assert "pruned" in ended.out
    assert "records 1 to 18 were removed by policy at 2030-03-17T17:46:40Z by user:ada@x.org: rule 7" in ended.out
    assert [segment.first for segment in segments(state / "audit")] == [19]
    told = pdp("audit", "verify", state / "audit", "--json").json
    assert (told["ok"], told["chains"][0]["verdict"], len(told["chains"][0]["removed"])) == (False, "pruned", 1)


def test_nothing_goes_that_is_not_old_enough_and_never_the_last_segment(pdp: Pdp, state: Path) -> None:
    assert pruned(pdp, state, "--older-than", "2000d", "--json").json == {"removed": []}
    assert pdp("audit", "verify", state / "audit").code == 0
    pruned(pdp, state, "--older-than", "1d")
    assert pruned(pdp, state, "--older-than", "1d", "--json").json == {"removed": []}


def test_what_remains_is_proved_and_grows_as_before(pdp: Pdp, state: Path) -> None:
    kept = state / "kept"
    kept.write_text(pdp("audit", "checkpoint", state / "audit").out)
    pruned(pdp, state, "--older-than", "1d")
    proof = state / "proof"
    proof.write_text(pdp("audit", "prove", "d12", state / "audit").out)
    assert pdp("audit", "check-proof", proof, "--key", state / "audit.pub").code == 0
    written(state / "audit", audit_signer(state), segments=2)
    ended = pdp("audit", "verify", state / "audit", "--checkpoint", kept, "--key", state / "audit.pub")
    assert ended.code == 4


def test_a_second_removal_is_told_beside_the_first(pdp: Pdp, state: Path) -> None:
    pruned(pdp, state, "--older-than", "1d")
    written(state / "audit", audit_signer(state), segments=2)
    pruned(pdp, state, "--older-than", "1d", "--by", "user:olga@x.org")
    out = pdp("audit", "verify", state / "audit", "--key", state / "audit.pub").out
    assert "records 1 to 18 were removed" in out
    assert "records 19 to " in out
    assert "by user:olga@x.org" in out


def test_any_other_gap_is_a_broken_chain(pdp: Pdp, state: Path) -> None:
    found = segments(state / "audit")
    found[0].path.unlink()
    ended = pdp("audit", "verify", state / "audit")
    assert (ended.code, "are missing" in ended.out) == (1, True)
    ended = pruned(pdp, state, "--older-than", "1d")
    assert (ended.code, "evidence" in ended.err) == (2, True)
    assert len(segments(state / "audit")) == 2


def test_a_tombstone_does_not_cover_more_than_it_says(pdp: Pdp, state: Path) -> None:
    """Attack: after a removal by policy, somebody removes more."""
    pruned(pdp, state, "--older-than", "1d")
    written(state / "audit", audit_signer(state), segments=3)
    segments(state / "audit")[0].path.unlink()
    assert pdp("audit", "verify", state / "audit").code == 1


def test_a_tombstone_that_is_gone_forged_or_of_another_key_covers_nothing(pdp: Pdp, state: Path) -> None:
    pruned(pdp, state, "--older-than", "1d")
    (path,) = (state / "audit").glob("*.removed")
    held = path.read_text()
    line = json.loads(held)
    for forged in (
        "",
        "garbage\n",
        held.replace("user:ada@x.org", "user:eve@x.org"),
        held.replace("removed 1 ", "removed 2 "),
        held + held,
        json.dumps({**line, "key": str(signer().key)}) + "\n",
    ):
        path.write_text(forged)
        assert pdp("audit", "verify", state / "audit").code == 1, forged
    path.unlink()
    assert pdp("audit", "verify", state / "audit").code == 1
    path.write_text(held)
    other = state / "other.pub"
    other.write_text(f"{signer().key}\n")
    assert pdp("audit", "verify", state / "audit", "--key", other).code == 1
    assert pdp("audit", "verify", state / "audit").code == 4


def test_a_removal_that_was_cut_short_is_finished_by_the_next(
    pdp: Pdp, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, calls = audit_prune._finish, iter([False, True])

    def crashing(directory: Path, chain: str) -> None:
        if next(calls, False):
            segments(directory, chain)[0].path.unlink()
            raise KeyboardInterrupt
        finish(directory, chain)

    monkeypatch.setattr(audit_prune, "_finish", crashing)
    assert pruned(pdp, state, "--older-than", "1d").code == 130
    assert pdp("audit", "verify", state / "audit").code == 1
    assert pruned(pdp, state, "--older-than", "1d").code == 0
    assert pdp("audit", "verify", state / "audit").code == 4


def test_the_index_follows_and_other_gaps_stay_visible_in_it(pdp: Pdp, state: Path) -> None:
    query = ("audit", "query", "--audit", state / "audit", "--json", "--limit", 0)
    assert len(pdp(*query).out.splitlines()) == 15
    pruned(pdp, state, "--older-than", "1d")
    ended = pdp(*query)
    assert (ended.code, len(ended.out.splitlines())) == (0, 5)
    written(state / "audit", audit_signer(state), segments=2)
    assert pdp(*query).code == 0
    segments(state / "audit")[0].path.unlink()
    assert pdp(*query).code == 1
