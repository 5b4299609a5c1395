"""`docs/sdk.md`: every block is type-checked and runs in order, and what stands in its tables is so."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import mypy.api
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pdp.errors import MEANINGS, Reason
from pdp.identity.issuers import parse_trust
from pdp.model.names import Principal
from pdp.sdk.dataset import SUPPORTS
from pdp.sdk.errors import error_class
from tests.support.deploy import accepted
from tests.support.pages import ROOT, SDK_PAGE, blocks, reader_of_the_page

PAGE = SDK_PAGE.read_text("utf-8")
IDENTITY = (ROOT / "docs/identity.md").read_text("utf-8")
FRAME = {"country": ["DE", "FR", "DE"], "amount": [1.5, 2.5, 3.5]}


def test_the_blocks_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(path: Path) -> None:
        pq.write_table(pa.table(FRAME), path)

    with reader_of_the_page(tmp_path, monkeypatch, write) as pdp:
        namespace: dict[str, Any] = {
            "root_digest": pdp.root_digest,
            "trust": pdp.trust,
            "state_dir": tmp_path / "state",
        }
        for block in blocks(SDK_PAGE):
            if block.needs in {"", "arrow", "local"}:
                block.run(namespace)
        namespace["client"].close()
    told = capsys.readouterr().out
    assert "True granted" in told
    assert "segment_denied" in told
    assert "[True, False]" in told
    assert "dataset.read dataset/sales ALLOW" in told
    assert "training on 2" in told
    assert "rows of sales" in told


def test_the_block_for_pytest_is_a_test_that_passes(tmp_path: Path) -> None:
    (block,) = (block for block in blocks(SDK_PAGE) if block.needs == "pytest")
    (tmp_path / "test_page.py").write_text(block.text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout


def test_the_blocks_are_well_typed(tmp_path: Path) -> None:
    given = "from pathlib import Path\n\nroot_digest, trust, state_dir = '', Path(), Path()\n"
    texts = [block.text for block in blocks(SDK_PAGE) if block.needs in {"", "arrow", "local"}]
    (tmp_path / "page.py").write_text(given + "\n".join(texts))
    # The cache of `make lint`: what the page imports is checked already.
    settings = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    told, faults, code = mypy.api.run([*settings, str(tmp_path / "page.py")])
    assert code == 0, told + faults


def test_every_kind_of_block_is_run_by_a_test() -> None:
    assert {block.needs for block in blocks(SDK_PAGE)} == {"", "arrow", "local", "mlflow", "pytest", "real"}


def test_the_class_of_every_reason_is_that_of_the_table() -> None:
    table = PAGE.partition("## When it does not work")[2]
    classes = {int(code): name for code, name in re.findall(r"^\| (\d) \| `(\w+)` \|", table, re.MULTILINE)}
    for reason in set(Reason) - {Reason.GRANTED, Reason.POLICY_REFUSED}:
        assert classes[MEANINGS[reason].exit_code] == error_class(reason).__name__


def test_the_job_is_one_that_a_cluster_takes_and_its_grants_are_commands() -> None:
    recipe = PAGE.partition("### Jobs")[2].partition("\n### ")[0]
    job = yaml.safe_load(recipe.partition("```yaml\n")[2].partition("```")[0])
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    account = (
        f"system:serviceaccount:{job['metadata']['namespace']}:{job['spec']['template']['spec']['serviceAccountName']}"
    )
    for line in re.findall(r"^\$ (.*)$", recipe, re.MULTILINE):
        given = accepted(shlex.split(line))
        assert str(Principal.parse(given["who"])) == f"workload:cluster-a/{account}"
    entry = IDENTITY.partition("### Kubernetes\n\n```yaml\n")[2].partition("```")[0]
    (cluster,) = parse_trust(entry, file="identity.md").issuers.values()
    assert cluster.namespace == "cluster-a"
    assert re.fullmatch(cluster.sub_pattern, account)


def test_every_obligation_that_is_carried_out_is_told() -> None:
    table = PAGE.partition("| obligation | what happens |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == set(SUPPORTS)
