"""Lint for who comes from Casbin: the traps of a model and its rows, and what our compiler would answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pdp.engine.casbin_codes import divergence_of
from pdp.engine.casbin_loose import LooseRow
from pdp.engine.casbin_pattern_traps import pattern_traps
from pdp.engine.casbin_text import Row, parse_model, parse_rows
from pdp.engine.casbin_traps import DETECTORS, Answer, Files, Trap, read_files
from pdp.engine.compiler import VOCABULARY_FILE, compile_policy
from pdp.engine.findings import Finding, Severity
from pdp.engine.text import decode
from pdp.engine.vocabulary_guess import derive_vocabulary
from pdp.engine.vocabulary_text import parse_vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class CasbinReport:
    """Every trap, in the order in which a reader meets them; `refused` is our answer to the policy as it stands."""

    traps: tuple[Trap, ...]

    @property
    def refused(self) -> bool:
        """Tell whether the compiler, or the import, would refuse the policy."""
        return any(trap.answer is Answer.REFUSED for trap in self.traps)

    def count(self, answer: Answer) -> int:
        """Return how many traps have an answer."""
        return sum(trap.answer is answer for trap in self.traps)


def find_traps(
    model_text: str, policy_text: str, *, model_file: str = "model.conf", policy_file: str = "policy.csv"
) -> tuple[Trap, ...]:
    """Return the traps that a model and its rows contain, whether or not our compiler would take them."""
    return _detected(read_files(model_text, policy_text, model_file=model_file, policy_file=policy_file))


def find_traps_in(model_text: str, rows: Sequence[Row], *, model_file: str = "model.conf") -> tuple[Trap, ...]:
    """Return the traps of rows that are no text any more, such as those of an adapter."""
    loose = tuple(LooseRow(section=row.section, fields=row.fields, file=row.file, line=row.line) for row in rows)
    model = read_files(model_text, "", model_file=model_file, policy_file=rows[0].file if rows else model_file)
    return _detected(replace(model, rows=loose))


def _detected(files: Files) -> tuple[Trap, ...]:
    return _in_order([trap for detect in (*DETECTORS, pattern_traps) for trap in detect(files)])


def lint_files(model: bytes, policy: bytes, *, model_file: str, policy_file: str) -> CasbinReport:
    """Return the traps of two files, and with them what only our compiler finds."""
    texts = [decode(model, file=model_file), decode(policy, file=policy_file)]
    unread = [_of_finding(text) for text in texts if isinstance(text, Finding)]
    if unread:
        return CasbinReport(traps=tuple(unread))
    model_text, policy_text = map(str, texts)
    traps = find_traps(model_text, policy_text, model_file=model_file, policy_file=policy_file)
    told = {(trap.file, trap.line, trap.code) for trap in traps}
    more = [
        _of_finding(found)
        for found in _compiled(model_text, policy_text, model_file, policy_file)
        if (found.file, found.line, found.code) not in told
    ]
    return CasbinReport(traps=_in_order([*traps, *more]))


def _compiled(model_text: str, policy_text: str, model_file: str, policy_file: str) -> Sequence[Finding]:
    """Return what our own reader and compiler say, under the vocabulary that the rows need."""
    model, found = parse_model(model_text, file=model_file)
    if model is None:
        return found
    rows, row_findings = parse_rows(policy_text, file=policy_file, model=model)
    vocabulary, word_findings = parse_vocabulary(derive_vocabulary(model, rows), file=VOCABULARY_FILE)
    if vocabulary is None:
        return (*found, *row_findings, *word_findings)
    compiled = compile_policy(model, vocabulary, rows)
    more = compiled if isinstance(compiled, tuple) else compiled.warnings
    return (*found, *row_findings, *more)


def _of_finding(found: Finding) -> Trap:
    return Trap(
        file=found.file,
        line=found.line,
        column=found.column,
        divergence=divergence_of(found.code) if found.code != "PC202" else "",
        code=found.code,
        answer=Answer.REFUSED if found.severity is Severity.ERROR else Answer.WARNED,
        message=found.message,
    )


def _in_order(traps: Sequence[Trap]) -> tuple[Trap, ...]:
    key = lambda trap: (trap.file, trap.line, trap.column, trap.divergence, trap.code, trap.message)  # noqa: E731
    return tuple(sorted(set(traps), key=key))
