"""That somebody looked at a review of access, and answers for it: an entry of the log, bound to the report's exact bytes."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from pdp.change.proposal import check_chain, check_message
from pdp.errors import BadRequestError
from pdp.limits import MAX_SAFE_INTEGER

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOff:
    """Who signed off which report: its SHA-256 in hex, the world and the start of the window it is of, its findings' number.

    `by` is the whole chain of the signer, an agent behind the person that it acts for.
    """

    by: tuple[str, ...]
    report: str
    world_seq: int
    since_ms: int
    findings: int
    message: str

    def __post_init__(self) -> None:
        check_chain(self.by)
        check_message(self.message)
        if type(self.report) is not str or not _DIGEST.fullmatch(self.report):
            raise BadRequestError("a report is named by its SHA-256, 64 hexadecimal digits")
        for number in (self.world_seq, self.since_ms, self.findings):
            if type(number) is not int or not 0 <= number <= MAX_SAFE_INTEGER:
                raise BadRequestError("world, window and findings are numbers from 0 to 2^53 - 1")

    def to_json(self) -> dict[str, Any]:
        """Return what the log entry holds."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Return the sign-off that `to_json` wrote; raises `BadRequestError`, `KeyError` or `TypeError` for anything else."""
        return cls(**{**raw, "by": tuple(raw["by"])})
