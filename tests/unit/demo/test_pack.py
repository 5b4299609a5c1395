"""The demonstration's sources: the shipped pack with our people over it, and configuration that its readers accept."""

import datetime as dt
import json
from pathlib import Path

from pdp.adapters.pack_files import STARTER, read_pack
from pdp.adapters.trust_file import load_trust
from pdp.demo.authority import create_authority
from pdp.demo.pack import OVERLAY, SERVED, write_pack, write_routes, write_trust
from pdp.demo.story import ADA, DANA, MIA, PERSONAL_DATA, SAM, TRAINING_DATA, WORKLOADS
from pdp.engine.pack import Pack, load_pack
from pdp.identity.development import DEVELOPMENT_ISS, DevelopmentIssuer
from sidecar.config import load_routes


def test_the_shipped_grants_and_segmentation_are_used_unchanged(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack")
    for name in ("grants.csv", "roles.csv", "segmentation.csv", "model.conf", "vocabulary.yaml"):
        assert (tmp_path / "pack" / name).read_bytes() == (STARTER / name).read_bytes()
    assert {path.name for path in OVERLAY.iterdir()} == {"assignments.csv", "assets.yaml"}


def test_the_pack_compiles_and_knows_everybody(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack")
    pack = load_pack(read_pack(tmp_path / "pack"))
    assert isinstance(pack, Pack), [str(finding) for finding in pack]
    subjects = {row.fields[0] for row in pack.rows if row.section == "g"}
    assert {person.principal for person in (SAM, DANA, MIA, ADA)} <= subjects


def test_every_asset_of_the_story_is_registered_but_the_shadow(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack")
    pack = load_pack(read_pack(tmp_path / "pack"))
    assert isinstance(pack, Pack)
    registered = {seed.name for seed in pack.assets}
    assert registered >= {TRAINING_DATA, PERSONAL_DATA}
    assert {entry["resource"] for entry in SERVED.values()} - registered == {"endpoint/digits-shadow"}


def test_the_issuer_table_is_one_that_the_pdp_reads(tmp_path: Path) -> None:

    authority = create_authority(tmp_path / "pki", dt.datetime.now(dt.UTC))
    (tmp_path / "jwks.json").write_bytes(DevelopmentIssuer.generate().jwks())
    write_trust(tmp_path / "trust.yaml", jwks=tmp_path / "jwks.json", ca=authority.bundle)
    table = load_trust(tmp_path / "trust.yaml")
    assert set(table.issuers) == {DEVELOPMENT_ISS}
    assert set(table.trust_domains) == {"demo.portcullis"}
    assert table.development


def test_the_routes_are_ones_that_the_sidecar_reads(tmp_path: Path) -> None:
    write_routes(tmp_path / "routes.yaml")
    load_routes(tmp_path / "routes.yaml")
    assert set(json.loads((tmp_path / "routes.yaml").read_text("utf-8"))["served"]) == set(SERVED)


def test_every_workload_stands_in_a_segment_of_its_own_namespace() -> None:
    placed = (OVERLAY / "assignments.csv").read_text("utf-8")
    for workload in WORKLOADS:
        namespace = workload.spiffe_id.rpartition("/sa/")[0]
        assert f"g3, workload:{namespace}/**, segment:" in placed
