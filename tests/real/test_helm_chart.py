"""The chart, rendered by Helm's own library, makes what deploy/kubernetes/ shows and the other tests check."""

from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.real_server
helm = pytest.importorskip("helm_python", reason="needs the environment of `make test-real`")

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "portcullis"
GATE = yaml.safe_load((CHART / "gate-example.yaml").read_text())


def rendered(values: dict[str, Any], namespace: str, part: str) -> list[dict[str, Any]]:
    pages = helm.Chart.load(CHART).render(values, name="portcullis", namespace=namespace)
    return list(yaml.safe_load_all(pages[f"portcullis/templates/{part}.yaml"]))


@pytest.mark.parametrize(
    ("part", "namespace", "values"), [("pdp", "portcullis", {}), ("gate", "ml", GATE)], ids=["pdp", "gate"]
)
def test_the_plain_manifests_are_what_the_chart_renders(part: str, namespace: str, values: dict[str, Any]) -> None:
    plain = list(yaml.safe_load_all((DEPLOY / "kubernetes" / f"{part}.yaml").read_text()))
    assert rendered(values, namespace, part) == plain


@pytest.mark.parametrize(
    "values",
    [
        {"gate": {"enabled": True}},
        {"gate": {"enabled": True, "rootDigest": "trust me"}},
        {"pdp": {"replica": 3}},
        {"imagePullPolicy": "Sometimes"},
    ],
    ids=["no digest", "no hex", "misspelled", "no policy"],
)
def test_values_that_are_not_meant_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmValuesError):
        helm.Chart.load(CHART).render(values, name="portcullis", namespace="portcullis")


def test_the_image_is_named_by_a_value() -> None:
    pages = helm.Chart.load(CHART).render({**GATE, "image": "other.example/x@sha256:1"}, name="a", namespace="b")
    assert "registry.example/portcullis" not in "".join(pages.values())
