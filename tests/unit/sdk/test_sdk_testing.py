"""The fixture `pdp_world`, by which users test their own code against a pack."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pdp.errors import Reason
from pdp.sdk import AccessDenied, AccessEnded, BadQuestion, Bearer, Client, PolicyRefused
from pdp.sdk.testing import PackClient, PackWorld

PACK = Path(__file__).parents[3] / "policies"
BOB = "g, user:bob, role:data-scientist, dev"
SALES = ("dataset.read", "dataset/sales")
ASSETS = {"dataset/sales": {"environment": "dev"}, "dataset/wages": {"environment": "prod"}}


def test_the_fixture_makes_a_world_of_a_pack(pdp_world: Callable[..., PackWorld]) -> None:
    world = pdp_world(PACK, rows=BOB, assets=ASSETS)
    bob = world.client("user:bob")
    assert bob.check(*SALES).allowed
    with pytest.raises(AccessDenied):
        bob.require("dataset.read", "dataset/wages")
    assert [asked.decision.allowed for asked in world.asked] == [True, False]
    assert bob.explain("dataset.read", "dataset/wages").nearest_miss is not None or world.asked


def test_what_changes_is_seen_and_ends_leases() -> None:
    world = PackWorld(PACK, rows=BOB, assets=ASSETS)
    bob = world.client("user:bob")
    with bob.lease(*SALES) as lease:
        lock = world.lock("resource:dataset/sales")
        with pytest.raises(AccessEnded):
            list(lease.iterate(itertools.repeat(None)))
    assert bob.check(*SALES).reason is Reason.LOCKED
    world.unlock(lock)
    assert bob.check(*SALES).allowed
    world.revoke(BOB)
    assert not bob.check(*SALES).allowed


def test_groups_tokens_workloads_and_time() -> None:
    rows = (
        "g, group:ml, role:data-scientist, dev, 2026-01-01T00:00:00Z, 2026-02-01T00:00:00Z\n"
        "g3, workload:spiffe://x/web, segment:apps\n"
    )
    world = PackWorld(PACK, rows=rows, assets=ASSETS, now=datetime(2026, 1, 15, tzinfo=UTC))
    assert world.client("user:any", groups=["group:ml"]).check(*SALES).allowed
    web = world.client("user:any", groups=["group:ml"], workload="workload:spiffe://x/web")
    assert web.check(*SALES).reason is Reason.SEGMENT_DENIED
    shown = Bearer(world.token("user:any", groups=["group:ml"]))
    assert world.client("user:svc").check(*SALES, subject=shown).allowed
    assert not world.client("user:svc").check(*SALES, subject=Bearer("made-up")).allowed
    late = PackWorld(PACK, rows=rows, assets=ASSETS, now=datetime(2026, 3, 1, tzinfo=UTC))
    assert not late.client("user:any", groups=["group:ml"]).check(*SALES).allowed


def test_what_is_wrong_is_told_as_by_a_pdp() -> None:
    world = PackWorld(PACK, assets=ASSETS)
    with pytest.raises(BadQuestion):
        world.client("user:bob").check("nonsense", "dataset/sales")
    with pytest.raises(PolicyRefused) as refused:
        world.grant("p, nonsense")
    assert refused.value.findings


def test_it_has_the_methods_of_a_client() -> None:
    asked = {"check", "require", "check_many", "explain", "watch", "lease", "who_can", "what_can", "close"}
    assert asked <= set(dir(Client))
    assert asked <= set(dir(PackClient))
    bob = PackWorld(PACK, rows=BOB, assets=ASSETS).client("user:bob")
    assert "user:bob" in {entry.subject for entry in bob.who_can(*SALES).entries}
    assert "dataset/sales" in {entry.resource for entry in bob.what_can().entries}
    assert next(bob.watch(*SALES)).allowed


def test_a_users_own_suite_gets_the_fixture_and_loads_nothing_before(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npdp_pack = {PACK}\n")
    (tmp_path / "test_mine.py").write_text(
        "import sys\n"
        "EARLY = [name for name in sys.modules if name.startswith(('pdp.sdk', 'grpc'))]\n"
        "def test_mine(pdp_world):\n"
        "    assert not EARLY\n"
        f"    world = pdp_world(rows='{BOB}', assets={{'dataset/sales': {{'environment': 'dev'}}}})\n"
        "    assert world.client('user:bob').check('dataset.read', 'dataset/sales').allowed\n"
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout
