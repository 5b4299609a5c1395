"""One process of the stage: started in a group of its own, followed line by line, and ended with all it started.

Theory of operation. The child leads its own session, so that a Ctrl-C at the terminal reaches only us and everything ends
in the order we choose. One thread copies its output into a log file and wakes whoever waits for a line. Another sees its
exit *without reaping it*: as long as the dead leader is not reaped its process-group id cannot be given to a stranger, so
that the last signal to the group (for a grandchild that outlived it) can only meet what the child itself left behind.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Self

from pdp.demo import _tether
from pdp.demo.limits import LIMITS

TAIL_LINES: Final = 12
"""Lines of a dead process's output that its error message repeats."""


class StageError(RuntimeError):
    """Something on the stage failed: one sentence, and the last words of the process that did."""

    def __init__(self, message: str, last_words: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.last_words = tuple(last_words)


class Child:
    """A running process of the stage; make it with `start`, end it with `stop`, once or several times."""

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._lines: deque[str] = deque(maxlen=1_000)
        self._news = threading.Condition()
        self._output_ended = False
        self._exited = threading.Event()
        self._stopped = False
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._copy, self._observe)]
        for thread in self._threads:
            thread.start()

    @classmethod
    def start(cls, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Self:
        """Start `command` in the directory of `log`, where its output goes; it ends with us, even if we are killed."""
        # The command is built by the stage from its own paths; no shell reads it.
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", _tether.__file__, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=log.parent,
            env=environment,
            start_new_session=True,
        )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """The process id, and the id of its process group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """True until the process itself has exited."""
        return not self._exited.is_set()

    def wait_for(self, pattern: str, timeout_s: float = LIMITS.start_s) -> re.Match[str]:
        """Wait for a line of output that matches `pattern`, and return the match.

        Raises:
            StageError: the process ended, or `timeout_s` passed, before such a line; it holds the last lines.
        """
        wanted = re.compile(pattern)
        with self._news:
            self._news.wait_for(lambda: self._search(wanted) or self._output_ended, timeout_s)
            if found := self._search(wanted):
                return found
        raise self.failure("ended before it was ready" if self._output_ended else f"not ready after {timeout_s:g} s")

    def failure(self, what: str) -> StageError:
        """Return an error that says what happened to this process and what it said last."""
        with self._news:
            return StageError(f"{self.name}: {what}", list(self._lines)[-TAIL_LINES:])

    def stop(self) -> None:
        """End the process, and whatever of its group outlives it; returns when nothing is left."""
        if self._stopped:
            return
        self._stopped = True
        if self.running:
            self._signal(signal.SIGTERM)
        if not self._exited.wait(LIMITS.stop_s):
            self._signal(signal.SIGKILL)
            self._exited.wait()
        self._kill_group()
        self._process.wait()
        for thread in self._threads:
            thread.join()

    def _signal(self, number: signal.Signals) -> None:
        # Not `Popen.terminate`: it reaps a process that has just exited, and `_observe` would wait for it in vain.
        os.kill(self.pid, number)

    def _kill_group(self) -> None:
        # INVARIANT: the leader is dead but not reaped, so this id means our group and nobody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _search(self, wanted: re.Pattern[str]) -> re.Match[str] | None:
        return next((found for line in self._lines if (found := wanted.search(line))), None)

    def _copy(self) -> None:
        output = self._process.stdout
        if output is None:  # pragma: no cover - `start` always asks for a pipe
            return
        with output, self.log.open("a", encoding="utf-8") as log:
            self._follow(output, log)
        with self._news:
            self._output_ended = True
            self._news.notify_all()

    def _follow(self, output: IO[str], log: IO[str]) -> None:
        for line in output:
            log.write(line)
            log.flush()
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()

    def _observe(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._exited.set()
