"""Dashboards, alerts and their page name metrics that a running PDP and a sidecar show, and every alert has its runbook."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pdp.errors import Reason
from sidecar.metrics import MEANINGS, Tally, exposition
from tests.support.deploy import DEPLOY, ROOT
from tests.support.pdp import running_pdp

PAGE = (ROOT / "docs/observability.md").read_text()
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
BOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
OF_PROMETHEUS = {"up"}


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    for path in BOARDS:
        yield from (target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"])


def selectors(text: str) -> list[Any]:
    """Return the metrics that an expression reads, as Prometheus's own grammar has it."""
    found: list[Any] = []

    def walk(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
            below = getattr(node, name, None)
            if below is not None:
                walk(below)
        for below in getattr(node, "args", ()):
            walk(below)

    walk(promql_parser.parse(text))
    return found


def shown(page: str) -> dict[str, str]:
    """Return the type of each metric on a page, by the name that the page declares."""
    return dict(re.findall(r"^# TYPE (\S+) (counter|gauge|histogram)$", page, re.MULTILINE))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    async def page(directory: Path) -> str:
        async with running_pdp(directory) as pdp:
            pdp.app.metrics.call("/pdp.v1.DecisionService/Evaluate", "OK", 0.1)
            pdp.app.metrics.decided("deny", Reason.INTERNAL_ERROR.value)
            return pdp.app.page().decode()

    tally = Tally()
    tally.decided(Reason.GRANTED, allowed=True)
    tally.cut(Reason.TOKEN_EXPIRED)
    return asyncio.run(page(tmp_path_factory.mktemp("pdp"))), exposition(dict.fromkeys(MEANINGS, 0.0), tally)


def test_every_expression_reads_a_metric_and_labels_that_are_shown(pages: tuple[str, str]) -> None:
    samples: dict[str, set[str]] = {name: {"job", "instance"} for name in OF_PROMETHEUS}
    for family in (family for page in pages for family in text_string_to_metric_families(page)):
        for sample in family.samples:
            samples.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    read = [(text, each) for text in expressions() for each in selectors(text)]
    assert len(read) > 40
    assert [text for text, each in read if each.name not in samples] == []
    for text, each in read:
        assert {match.name for match in each.matchers.matchers} <= samples[each.name], text
        assert set(re.findall(r"[a-z]+", "".join(re.findall(r"by \(([^)]*)\)", text)))) <= samples[each.name], text


def test_a_reason_that_an_expression_names_is_one() -> None:
    named = {
        match.value for text in expressions() for each in selectors(text) for match in each.matchers.matchers
        if match.name == "reason"
    }  # fmt: skip
    assert named
    assert named <= {reason.value for reason in Reason}


@pytest.mark.parametrize("text", ["sum(rate(pdp_ready[5m])", "pdp_ready >", "rate(pdp_ready)"])
def test_a_broken_expression_would_be_noticed(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        selectors(text)


def test_the_page_lists_exactly_the_metrics_that_are_shown_with_their_types(pages: tuple[str, str]) -> None:
    listed = dict(re.findall(r"^\| `(pdp_\S+)` \| (\w+) \|", PAGE, re.MULTILINE))
    declared = {name: kind for page in pages for name, kind in shown(page).items() if not name.endswith("_created")}
    assert listed == declared


def test_promtool_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine; the grammar is checked above")
    rules = str(DEPLOY / "prometheus/alerts.yaml")
    result = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_file_that_a_page_names_below_deploy_is_there() -> None:
    named = {
        name for page in (ROOT / "docs").glob("*.md") for name in re.findall(r"`(deploy/[^`* ]+)`", page.read_text())
    }
    assert len(named) > 8
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-"): body
        for title, body in re.findall(r"^#+ (.*)\n((?:(?!#).*\n?)*)", (ROOT / file).read_text(), re.MULTILINE)
    }
    assert len(headings[anchor].split()) > 8
    assert anchor == rule["alert"].lower()
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"].endswith(".")


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_reads_what_its_user_chose_and_no_panel_covers_another(path: Path) -> None:
    board = json.loads(path.read_text())
    assert [item["name"] for item in board["templating"]["list"]] == ["datasource"]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in board["panels"])
    cells = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(cells)) == len(cells) == len(set(ids))
    assert all(panel["gridPos"]["w"] == 8 and panel["gridPos"]["x"] in {0, 8, 16} for panel in board["panels"])
