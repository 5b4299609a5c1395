"""Mutation testing: `python -m tests.mutation [FILE …]`. One small change at a time, and does a test notice?

The tests that `table.py` names for a file are collected once. Each mutant is then installed in a forked process of its own,
which runs them until one fails: the mutant is noticed. What every test lets pass is printed; `docs/mutation-engine.md` and
`docs/mutation-identity.md` say of each survivor why it changes no answer.
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import pytest
from hypothesis import Phase, settings

from tests.mutation.mutants import ROOT, Mutant, install, mutants, unchanged
from tests.mutation.table import TABLE, Judge

PATIENCE_S = 120
"""Processor time: a mutant that does not end is noticed; no honest run of the tests for one file takes this much."""
WAIT_S = 900
"""Time on the wall for one that only waits. It is told apart: on a busy machine it says nothing about the mutant."""
NOTICED, BROKEN = 1, 99
"""How a child ends when a test failed, and when the change could not be put in place (a defect of this runner)."""


ARGUMENTS = (
    "-x", "-q", "-s", "--no-header", "--no-summary", "-p", "no:cacheprovider", "--timeout", "0", "--rootdir", str(ROOT),
    "-W", "ignore::pytest.PytestAssertRewriteWarning",
    # It counts how many rows are looked at: no answer depends on that, and it takes as long as all the others.
    "--deselect", "tests/unit/engine/test_evaluate.py::test_a_decision_looks_at_no_more_rows_when_there_are_more",
)  # fmt: skip
UNSOUND = "the tests do not hold without any change: a mutant that dies would mean nothing"


class Runner:
    """Runs the collected tests once for each mutant, as a plug-in of one pytest session."""

    def __init__(self, path: str, judge: Judge, functions: list[str], processes: int) -> None:
        self._path, self._judge, self._processes = path, judge, processes
        self._mutants = [each for each in mutants(path) if not functions or each.node.name in functions]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = session.items if self._judge.tests else []
        if self._judge.prepare is not None:
            self._judge.prepare()
        if session.testsfailed or not self._survives(unchanged(self._path), items):
            sys.stdout.write(f"{self._path}: {UNSOUND}\n")
            raise session.Failed(UNSOUND)
        alive = sum(1 for _ in self._survivors(items))
        sys.stdout.write(f"{self._path}: {len(self._mutants)} mutants, {alive} survive\n")
        return True

    def _survivors(self, items: list[pytest.Item]) -> Iterator[Mutant]:
        with ThreadPoolExecutor(max_workers=self._processes) as pool:
            lives = pool.map(lambda each: self._survives(each, items), self._mutants)
            for mutant, alive in zip(self._mutants, lives, strict=True):
                if alive:
                    sys.stdout.write(f"  {mutant}\n")
                    sys.stdout.flush()
                    yield mutant

    def _survives(self, mutant: Mutant, items: list[pytest.Item]) -> bool:
        child = os.fork()
        if child == 0:
            os._exit(self._judged(mutant, items))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == -signal.SIGALRM:
            sys.stdout.write(f"  {mutant}: neither noticed nor let pass in {WAIT_S} s\n")
            sys.stdout.flush()
        if code == BROKEN:
            raise RuntimeError(f"{mutant}: this change could not be put in place")
        return code == 0

    def _judged(self, mutant: Mutant, items: list[pytest.Item]) -> int:
        signal.setitimer(signal.ITIMER_PROF, PATIENCE_S)
        signal.alarm(WAIT_S)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            install(mutant)
        except BaseException:  # noqa: BLE001 - told by the code; the parent raises
            return BROKEN
        try:
            return 0 if (self._judge.first is None or self._judge.first()) and _all_pass(items) else NOTICED
        except BaseException:  # noqa: BLE001 - whatever a mutant breaks, it was noticed
            return NOTICED


def _all_pass(items: list[pytest.Item]) -> bool:
    for item, following in zip_longest(items, items[1:]):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if item.session.testsfailed:
            return False
    return True


def _run(path: str, functions: list[str], processes: int) -> int:
    judge = TABLE[path]
    tests = judge.tests or ("tests/mutation",)  # collected and not run: a file that its table alone judges
    runner = Runner(path, judge, functions, processes)
    return int(pytest.main([*ARGUMENTS, "-m", "not nightly", *tests], plugins=[runner]))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description="Which small changes does no test notice?"
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="a file of the table; without any: all of them")
    parser.add_argument("--function", action="append", default=[], help="only the mutants of this function")
    parser.add_argument("--processes", type=int, default=1, help="how many mutants are looked at at once")
    given = parser.parse_args()
    unknown = [path for path in given.files if path not in TABLE]
    if unknown:
        parser.error(f"no tests are named for {', '.join(unknown)}; known: {', '.join(TABLE)}")
    # What a test generates must be the same for every mutant, and a failing case need not be made smaller.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutation", derandomize=True, database=None, phases=phases, deadline=None)
    settings.load_profile("mutation")
    return max(_run(path, given.function, given.processes) for path in given.files or TABLE)


if __name__ == "__main__":
    sys.exit(main())
