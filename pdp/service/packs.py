"""Packs on their way in: checked whole, tested by their own tests, and compared with the policy that is live."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pdp.engine.casbin_text import Row
from pdp.engine.findings import PackRefused
from pdp.engine.pack import Pack, load_pack, rows_digest
from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.limits import MAX_PACK_FILE_BYTES, MAX_PACK_FILES
from pdp.model.names import printable
from pdp.service.access import ACCESS_FILE
from pdp.service.genesis import GENESIS_FILE
from pdp.service.policy_tests import TestResult, run_tests
from pdp.world import Policy

GLASS_FILE: Final = "break-glass.csv"
"""The file under which the row stands that a broken glass brought; no pack takes it away before its time."""
EDITS_FILE: Final = "edits.csv"
"""The file under which rows stand that were written without a pack, by `pdp role grant` and its like."""


class TestsFailed(PortcullisError):  # noqa: N818 - a door's word, as `PackRefused`
    """A pack that compiles and whose own tests disagree with it; `findings` holds one line for each."""

    def __init__(self, failed: Sequence[TestResult]) -> None:
        super().__init__(
            Reason.POLICY_REFUSED,
            f"the pack is refused: {len(failed)} of its own tests fail",
            advice="correct the rules or the tests; nothing was changed",
        )
        self.findings = tuple(
            f"{test.file}:{test.line}:1: `{test.name}`: expected {test.expected}, got {test.actual}" for test in failed
        )


def checked(files: Mapping[str, bytes]) -> Pack:
    """Parse, compile and test a pack; to be called in a thread, since it may take seconds.

    Raises:
        PackRefused, TestsFailed: with every finding.
        BadRequestError: too many files, or one too large.
    """
    _check_sizes(files)
    pack = load_pack(files)
    if not isinstance(pack, Pack):
        raise PackRefused(pack)
    failed = [result for result in run_tests(pack, pack.snapshot) if not result.passed]
    if failed:
        raise TestsFailed(failed)
    return pack


def _check_sizes(files: Mapping[str, bytes]) -> None:
    if len(files) > MAX_PACK_FILES:
        raise BadRequestError(f"a pack has at most {MAX_PACK_FILES} files")
    for path, content in files.items():
        if len(content) > MAX_PACK_FILE_BYTES:
            raise BadRequestError(f"`{printable(path)}` has more than {MAX_PACK_FILE_BYTES} bytes")


def difference(policy: Policy | None, pack: Pack, files: Collection[str]) -> dict[str, Any]:
    """Return the change that turns `policy` into what `pack` says; `files` are the names of its files.

    Rows of genesis and of edits come from no pack, and applying one neither locks everybody out nor takes back what was
    granted since: the first administrators stay unless the pack has rows in a file of that name, edits unless it has the
    file at all, which is how a pack takes them over.
    """
    kept = [file for file, brought in _kept(pack, files) if not brought]
    rows = [row for row in (policy.snapshot.rows if policy else ()) if row.file in kept]
    return change_to(policy, model=pack.model_text, vocabulary=pack.vocabulary_text, rows=(*pack.rows, *rows))


def _kept(pack: Pack, files: Collection[str]) -> tuple[tuple[str, bool], ...]:
    first = any(row.file == GENESIS_FILE for row in pack.rows)
    return (GENESIS_FILE, first), *((name, name in files) for name in (EDITS_FILE, ACCESS_FILE, GLASS_FILE))


def change_to(policy: Policy | None, *, model: str, vocabulary: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the change that turns `policy` into these texts and rows."""
    live = {_key(row): row for row in (policy.snapshot.rows if policy else ())}
    wanted = {_key(row): row for row in rows}
    return {
        "model": _changed(policy.model_text if policy else None, model),
        "vocabulary": _changed(policy.vocabulary_text if policy else None, vocabulary),
        "added": [row.to_json() for key, row in wanted.items() if key not in live],
        "removed": [row.to_json() for key, row in live.items() if key not in wanted],
        "rows_digest": rows_digest(wanted.values()).hex(),
    }


def _key(row: Row) -> tuple[str, str, tuple[str, ...]]:
    return row.id, row.section, row.fields


def _changed(old: str | None, new: str) -> str | None:
    return None if old == new else new
