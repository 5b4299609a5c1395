"""Bringing a Casbin policy in: its model and rows become the files of a pack, or a list of what stands in the way.

Rows that match less here than in pycasbin, the entries marked (N), are told apart: on a deny row that allows more, so such
a row is refused until somebody acknowledges it; the pack then says so in its rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pdp.engine.casbin_codes import NARROWER
from pdp.engine.casbin_lint import find_traps_in
from pdp.engine.casbin_text import Row, parse_model, print_row
from pdp.engine.casbin_traps import Answer, Trap
from pdp.engine.compiler import MODEL_FILE, VOCABULARY_FILE
from pdp.engine.findings import Finding, errors
from pdp.engine.pack import Pack, load_pack
from pdp.engine.vocabulary_guess import NO_WORDS, derive_vocabulary

ROWS_FILE: Final = "policy.csv"
TESTS_FILE: Final = "tests/imported.yaml"

_TESTS: Final = """# What this policy should answer. `pdp policy test` asks, `pdp policy verify` asks pycasbin the same.
#
#   - name: a data scientist reads data in dev
#     given: {assets: {dataset/vision: {environment: dev}}}
#     ask:   {subject: "user:ana@example.com", action: dataset.read, resource: dataset/vision}
#     want:  {effect: allow}
[]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """The files of a pack by path, and what is to be told; with anything in `refused` the files are not a pack."""

    files: dict[str, bytes]
    refused: tuple[str, ...]
    narrower: tuple[Trap, ...]
    told: tuple[Trap, ...]


def import_policy(
    model_text: str, rows: Sequence[Row], *, acknowledged: bool = False, extra: Sequence[Trap] = ()
) -> Import:
    """Return the pack of a model and its rows.

    `acknowledged` says that somebody has seen the deny rows that match less here and takes them as they are; `extra` are
    traps that only the text of the rows could show.
    """
    traps = tuple(_once((*extra, *find_traps_in(model_text, rows))))
    narrower = tuple(trap for trap in traps if trap.divergence in NARROWER and not trap.code)
    waiting = tuple(trap for trap in narrower if trap.answer is Answer.REFUSED)
    refused = [str(trap) for trap in traps if trap.answer is Answer.REFUSED and trap not in waiting]
    if waiting and not acknowledged:
        refused.extend(str(trap) for trap in waiting)
    made = pack_of(model_text, rows, acknowledged=waiting if acknowledged else ())
    if not refused:  # else the compiler says the same again, of the rows as they would be written
        refused.extend(str(one) for one in errors(made.findings))
    return Import(
        files=made.files,
        refused=tuple(refused),
        narrower=narrower,
        told=tuple(trap for trap in traps if trap.answer is not Answer.REFUSED),
    )


def _once(traps: Iterable[Trap]) -> Iterator[Trap]:
    """Yield each trap once: the text of a file shows the column, the rows that were read of it only the line."""
    told: set[tuple[str, int, str, str, str]] = set()
    for trap in traps:
        key = (trap.file, trap.line, trap.divergence, trap.code, trap.message)
        if key not in told or trap.column > 1:
            yield trap
        told.add(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The files of a pack, and what its compiler says of them."""

    files: dict[str, bytes]
    findings: tuple[Finding, ...]


def pack_of(model_text: str, rows: Sequence[Row], *, acknowledged: Sequence[Trap] = ()) -> Made:
    """Return the files of a pack: the model as it is, the vocabulary that its rows need, the rows, a skeleton of tests."""
    model, found = parse_model(model_text, file=MODEL_FILE)
    vocabulary = NO_WORDS if model is None else derive_vocabulary(model, rows)
    notes = [f"# acknowledged: {trap.divergence}, row {trap.line}: {trap.message}" for trap in acknowledged]
    lines = [*notes, *(print_row(row) for row in rows)]
    files = {
        MODEL_FILE: model_text.encode(),
        VOCABULARY_FILE: vocabulary.encode(),
        ROWS_FILE: "".join(f"{line}\n" for line in lines).encode(),
        TESTS_FILE: _TESTS.encode(),
    }
    if model is None:
        return Made(files=files, findings=found)
    pack = load_pack(files)
    return Made(files=files, findings=pack.warnings if isinstance(pack, Pack) else pack)
