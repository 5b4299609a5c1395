"""What every test run knows: `--holds F10` runs the tests that hold an id of FAILURE.md, `needs_root` is skipped without.

And what every test is held to: no private key that it put on the disk may stand in what it said or logged (S9).
"""

import os
import signal
from collections.abc import Generator, Sequence
from typing import Any

import pytest
from hypothesis import settings

from tests.support.canaries import leaks

if settings.get_current_profile_name() == "default":  # the mutation runner has a profile of its own
    # No test asserts elapsed time: on a busy machine any example may take long.
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Who starts us in the background of a shell hands us, and every program that we start, a deaf ear for Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--holds", metavar="ID", help="run only the tests that hold this id of docs/design/FAILURE.md")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--holds")
    if wanted:
        others = [item for item in items if wanted not in held(item)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if wanted in held(item)]
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("needs_root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))


def held(item: pytest.Item) -> Sequence[str]:
    return [name for mark in item.iter_markers("holds") for name in mark.args]


SAID = pytest.StashKey[list[str]]()


@pytest.fixture
def capsys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> pytest.CaptureFixture[str]:
    """pytest's own, but what a test reads of it is looked through for secrets too."""
    said = request.node.stash.setdefault(SAID, [])
    read = capsys.readouterr

    def readouterr() -> Any:
        told = read()
        said.extend(told)
        return told

    monkeypatch.setattr(capsys, "readouterr", readouterr)
    return capsys


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    if report.when == "teardown" and report.passed and directory is not None:
        said = (text for _, text in report.sections)
        leaked = leaks(directory, "\n".join([*said, *item.stash.get(SAID, [])]))
        if leaked:
            report.outcome, report.longrepr = "failed", f"a private key of this test shows in: {', '.join(leaked)}"
    return report
