from pathlib import Path

import pytest

from pdp.engine.pack import Pack, load_pack
from pdp.service.policy_tests import TestResult, run_tests

POLICIES = Path(__file__).parents[3] / "policies"
READ = "action: policy.read, resource: policy/main"


def run(tests: str | None = None) -> tuple[TestResult, ...]:
    files = {path.relative_to(POLICIES).as_posix(): path.read_bytes() for path in POLICIES.rglob("*") if path.is_file()}
    if tests is not None:
        files = {name: raw for name, raw in files.items() if not name.startswith("tests/")}
        files["tests/one.yaml"] = tests.encode()
    pack = load_pack(files)
    assert isinstance(pack, Pack), [str(item) for item in pack]
    return run_tests(pack, pack.snapshot)


@pytest.mark.parametrize("result", run(), ids=lambda result: result.name)
def test_the_shipped_pack_keeps_its_own_promises(result: TestResult) -> None:
    assert result.passed, f"{result.file}:{result.line}: wanted {result.expected}, got {result.actual}"


def test_a_test_that_fails_says_what_came_instead() -> None:
    (result,) = run(f"- name: x\n  ask: {{subject: 'user:a', {READ}}}\n  want: {{effect: allow, by: 'g.csv:1'}}\n")
    assert not result.passed
    assert (result.expected, result.actual) == ("allow by g.csv:1", "deny no_grant")
    assert (result.file, result.line) == ("tests/one.yaml", 1)


@pytest.mark.parametrize(
    ("test", "actual"),
    [
        ("ask: {subject: bob, action: policy.read, resource: policy/main}", "a principal is"),
        ("ask: {subject: 'user:a', action: policy, resource: policy/main}", "an action is"),
        ("ask: {subject: 'user:a', action: policy.read, resource: policy/main, at: noon}", "an instant is"),
        (
            f"given: {{assignments: [['user:a', 'user:b', prod]]}}\n  ask: {{subject: 'user:a', {READ}}}",
            "the given rows do not compile",
        ),
        (
            (
                "given: {assets: {dataset/x: {environment: moon}}}\n"
                "  ask: {subject: 'user:a', action: dataset.read, resource: dataset/x}"
            ),
            "an asset needs an environment",
        ),
    ],
)
def test_a_test_that_cannot_be_asked_fails_with_the_reason(test: str, actual: str) -> None:
    (result,) = run(f"- name: x\n  {test}\n  want: {{effect: deny}}\n")
    assert not result.passed
    assert actual in result.actual
