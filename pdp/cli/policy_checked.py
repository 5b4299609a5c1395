"""What `pdp policy check` tells: for people, for programs, and as annotations of GitHub Actions."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pdp.cli.diffs import cell_json, tell
from pdp.cli.output import safe, write_line
from pdp.engine.diff import ORDER
from pdp.engine.findings import Finding, Severity, errors
from pdp.errors import MEANINGS, Reason
from pdp.model.names import counted
from pdp.service.foresee import Foreseen
from pdp.service.policy_tests import TestResult

_REFUSED: Final = MEANINGS[Reason.POLICY_REFUSED].exit_code
_WAITS: Final = MEANINGS[Reason.APPROVAL_MISSING].exit_code
_NOBODY: Final = MEANINGS[Reason.NO_GRANT].exit_code
_NAMES_SHOWN: Final = 5
# A name in a pack must not end its annotation and begin a command to the runner.
# Source: docs.github.com, "Workflow commands for GitHub Actions"; actions/toolkit escapes the same.
_IN_MESSAGE: Final = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTY: Final = _IN_MESSAGE | {":": "%3A", ",": "%2C"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check has found; `foreseen` is None where the pack would be refused."""

    directory: Path
    findings: tuple[Finding, ...]
    tests: tuple[TestResult, ...]
    foreseen: Foreseen | None

    @property
    def failed(self) -> tuple[TestResult, ...]:
        """The tests of the pack that do not pass."""
        return tuple(test for test in self.tests if not test.passed)

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        if self.foreseen is None:
            return _REFUSED
        if self.foreseen.same:
            return 0
        needed = self.foreseen.needed
        return _NOBODY if needed is None else _WAITS if needed else 0

    @property
    def verdict(self) -> str:
        """All of it in one line."""
        seen = self.foreseen
        if seen is None:
            wrong = counted(len(errors(self.findings)), "error")
            return f"refused: {wrong}, {len(self.failed)} of {counted(len(self.tests), 'test')} failed"
        if seen.same:
            return "good: nothing would change"
        touched = f" (it touches {', '.join(seen.touches)})" if seen.touches else ""
        return f"{_whose_yes(seen)}{touched}"

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "findings": [asdict(found) | {"severity": found.severity.value} for found in self.findings],
            "tests": {"run": len(self.tests), "failed": [asdict(test) for test in self.failed]},
            "change": _change(self.foreseen) if self.foreseen else None,
        }

    def tell(self, *, github: bool) -> None:
        """Print it, findings as annotations if that is wanted."""
        for line in self._annotations() if github else self._lines():
            write_line(line)
        seen = self.foreseen
        if seen is not None and not seen.same:
            tell(seen.cells, seen.snapshots)
            rows = f"{counted(seen.rows_added, 'row')} added, {seen.rows_removed} removed"
            write_line(rows + (", and the model or the vocabulary changes" if seen.language else ""))
        write_line(f"{len(self.tests) - len(self.failed)} of {counted(len(self.tests), 'test')} passed")
        write_line(self.verdict)

    def _lines(self) -> Iterator[str]:
        for found in self.findings:
            yield f"{found} ({found.severity})" if found.severity is Severity.WARNING else str(found)
        for test in self.failed:
            yield f"{test.file}:{test.line}: {test.name}: wanted {test.expected}, got {test.actual}"

    def _annotations(self) -> Iterator[str]:
        for found in self.findings:
            told = f"{found.name}: {found.message}"
            yield self._annotation(found.severity.value, found.file, found.line, found.column, found.code, told)
        for test in self.failed:
            told = f"{test.name}: wanted {test.expected}, got {test.actual}"
            yield self._annotation("error", test.file, test.line, 1, "test fails", told)
        yield f"::{'notice' if self.foreseen else 'error'} title=policy check::{_escaped(self.verdict, _IN_MESSAGE)}"

    def _annotation(self, level: str, file: str, line: int, column: int, title: str, told: str) -> str:
        path = _escaped(f"{self.directory.as_posix()}/{file}", _IN_PROPERTY)
        title = _escaped(title, _IN_PROPERTY)
        return f"::{level} file={path},line={line},col={column},title={title}::{_escaped(told, _IN_MESSAGE)}"


def _whose_yes(seen: Foreseen) -> str:
    needed = seen.needed
    if needed is None:
        return "good, but nobody who was asked about may make such a change live"
    if not needed:
        return "good: it needs no approval"
    if not seen.approvers:
        return f"good: it needs {needed} approval{'s' if needed > 1 else ''}, and nobody may give one"
    some = ", ".join(seen.approvers[:_NAMES_SHOWN]) + (", …" if len(seen.approvers) > _NAMES_SHOWN else "")
    return f"good: it needs {needed} approval{'s' if needed > 1 else ''}, of {some}"


def _change(seen: Foreseen) -> dict[str, Any]:
    fields = {suffix: one.context.request for both in seen.snapshots for suffix, one in both.contexts.items()}
    return {
        "rows_added": seen.rows_added,
        "rows_removed": seen.rows_removed,
        "language": seen.language,
        "touches": list(seen.touches),
        "approvals_needed": seen.needed,
        "makers": dict(seen.makers),
        "approvers": list(seen.approvers),
        "counts": {change.value: sum(cell.change is change for cell in seen.cells) for change in ORDER},
        "cells": [cell_json(cell, fields[cell.context]) for cell in seen.cells],
    }


def _escaped(text: str, table: Mapping[str, str]) -> str:
    return safe("".join(table.get(character, character) for character in text))
