"""One table says what each reason means at every door, and it has no gaps."""

import re
from pathlib import Path

import pytest

from pdp.errors import MEANINGS, PortcullisError, Reason

GRPC = {"OK", "PERMISSION_DENIED", "INVALID_ARGUMENT", "UNAUTHENTICATED", "UNAVAILABLE", "ABORTED", "NOT_FOUND",
        "FAILED_PRECONDITION", "DEADLINE_EXCEEDED", "INTERNAL"}  # fmt: skip


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_meaning_at_every_door(reason: Reason) -> None:
    meaning = MEANINGS[reason]
    assert meaning.grpc in GRPC
    assert 200 <= meaning.http < 600
    assert 0 <= meaning.exit_code < 126


def test_only_granted_is_a_success_anywhere() -> None:
    for reason, meaning in MEANINGS.items():
        success = {meaning.grpc == "OK", meaning.http == 200, meaning.exit_code == 0}
        assert success == {reason is Reason.GRANTED}


@pytest.mark.parametrize(
    ("reason", "grpc", "http"),
    [
        (Reason.TOKEN_EXPIRED, "UNAUTHENTICATED", 401),
        (Reason.NO_GRANT, "PERMISSION_DENIED", 403),
        (Reason.LOCKED, "PERMISSION_DENIED", 403),
        (Reason.WORLD_STALE, "UNAVAILABLE", 503),
        (Reason.AUDIT_UNAVAILABLE, "UNAVAILABLE", 503),
        (Reason.INTERNAL_ERROR, "INTERNAL", 503),
        (Reason.KEYS_UNAVAILABLE, "UNAVAILABLE", 503),
    ],
)
def test_the_table_of_identity_section_5(reason: Reason, grpc: str, http: int) -> None:
    assert (MEANINGS[reason].grpc, MEANINGS[reason].http) == (grpc, http)


def test_an_error_keeps_advice_apart_from_its_message() -> None:
    error = PortcullisError(Reason.CONFLICT, "the head moved", advice="propose again")
    assert (error.message, str(error)) == ("the head moved", "the head moved (propose again)")


@pytest.mark.parametrize("reason", Reason)
def test_the_documentation_says_of_every_reason_what_it_means_and_what_to_do(reason: Reason) -> None:
    meaning = MEANINGS[reason]
    rows = (Path(__file__).parents[2] / "docs/reason-codes.md").read_text().splitlines()
    (row,) = (row for row in rows if row.startswith(f"| `{reason.value}` "))
    _, _, means, do, *codes, _ = (cell.strip() for cell in row.split("|"))
    assert len(means) > 10
    assert len(do) > 10
    assert codes == [meaning.grpc, str(meaning.http), str(meaning.exit_code)]


def test_the_documentation_lists_no_reason_that_is_none() -> None:
    page = (Path(__file__).parents[2] / "docs/reason-codes.md").read_text()
    assert set(re.findall(r"^\| `([a-z_]+)` ", page, re.MULTILINE)) == {reason.value for reason in Reason}
