"""What closing a role graph may cost is bounded in steps, which are the graph's own: folded or compiled, on whatever machine."""

import random

import pytest

from pdp.engine.casbin_text import Row
from pdp.engine.findings import Finding
from pdp.engine.role_closure import FOREVER, Window, widest
from pdp.engine.roles import RoleGraph, changed, close
from tests.unit.engine.conftest import Workbench

NAMES = [f"role:r{number}" for number in range(8)]
WINDOWS = (("_", "_"), ("2026-01-01T00:00:00Z", "_"), ("_", "2027-01-01T00:00:00Z"))


def layers(deep: int, wide: int) -> list[Row]:
    links = [
        (f"role:l{at}n{one}", f"role:l{at + 1}n{two}")
        for at in range(deep)
        for one in range(wide)
        for two in range(wide)
    ]
    return [Row("g", (*link, "*"), "roles.csv", line) for line, link in enumerate(links, start=1)]


def limited(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    for module in ("role_closure", "roles"):
        monkeypatch.setattr(f"pdp.engine.{module}.MAX_CLOSURE_STEPS", steps)


def closed(bench: Workbench, rows: list[Row]) -> tuple[RoleGraph, list[str]]:
    found: list[Finding] = []
    graph = close(rows, bench.model.roles["g"], found)
    return graph, [item.code for item in found]


@pytest.mark.holds("F19", "V8", "L3")
def test_many_roles_below_many_others_are_refused_before_they_are_closed(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than 2 MB of links between layers of roles compiled for three minutes."""
    limited(monkeypatch, 10_000)
    graph, codes = closed(bench, layers(20, 8))
    assert codes == ["PC404"]
    assert graph.steps < 2 * 10_000
    assert closed(bench, layers(3, 4))[1] == []


@pytest.mark.holds("F19", "V8")
def test_a_change_that_makes_the_roles_too_many_is_refused_as_the_whole_is(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = layers(6, 4)
    graph, _ = closed(bench, whole[:-1])
    limited(monkeypatch, closed(bench, whole)[0].steps - 1)
    found: list[Finding] = []
    changed(graph, whole[-1:], (), found)
    assert [item.code for item in found] == closed(bench, whole)[1] == ["PC404"]


@pytest.mark.parametrize("seed", range(25))
def test_folded_or_compiled_a_graph_has_the_same_steps(bench: Workbench, seed: int) -> None:
    """Else a replica could not start from the snapshot of a world that another has folded row by row."""
    draw = random.Random(seed)  # noqa: S311 - the same changes every time, and no secret
    rows: list[Row] = []
    graph, _ = closed(bench, rows)
    for line in range(40):
        one, two = sorted(draw.sample(range(len(NAMES)), 2))
        new = Row(
            "g", (NAMES[one], NAMES[two], draw.choice(("*", "dev", "prod")), *draw.choice(WINDOWS)), "g.csv", line
        )
        gone = [draw.choice(rows)] if rows and draw.random() < 0.3 else []
        rows = [row for row in rows if row not in gone] + [new]
        found: list[Finding] = []
        graph = changed(graph, [new], gone, found)
        assert found == []
    whole, _ = closed(bench, rows)
    assert graph.steps == whole.steps
    for name in NAMES:
        for domain in ("dev", "prod", "staging"):
            assert graph.standing([name], domain, 1_780_000_000_000) == whole.standing(
                [name], domain, 1_780_000_000_000
            )


def test_of_windows_those_within_another_and_the_empty_ones_are_left_out() -> None:
    assert widest([Window(5, 9), Window(0, 10), Window(8, 20), Window(8, 12), Window(3, 4)]) == (
        Window(0, 10),
        Window(8, 20),
    )
    assert widest([Window(-FOREVER, FOREVER), Window(1, 2_000)]) == (Window(-FOREVER, FOREVER),)
