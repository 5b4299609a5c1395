"""Which decisions somebody looks for: patterns over what a record says, matched exactly and on the record itself.

An index may propose records; whether one is meant is said here, of the record as its chain holds it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

_PATTERNS: Final = 256
WILD: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a query asks for; empty means any. In a pattern `*` stands for any text, slashes included.

    `resource` without `@` means every version; `actor` and `rule` any one of several; times in milliseconds, `until_ms` and
    `since_ms` included, 0: open.
    """

    subject: str = ""
    actor: str = ""
    workload: str = ""
    action: str = ""
    resource: str = ""
    version: str = ""
    rule: str = ""
    reason: str = ""
    effect: str = ""
    world_seq: int = 0
    since_ms: int = 0
    until_ms: int = 0
    patterns: Mapping[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        named = {part: getattr(self, part) for part in NAMED if getattr(self, part)}
        object.__setattr__(self, "patterns", named)

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Tell whether a record is one of those."""
        if record.get("kind") != "decision" or not self._in_time(record["time_ms"]):
            return False
        if self.effect not in ("", record["effect"]) or self.world_seq not in (0, record["world_seq"]):
            return False
        said = parts(record)
        return all(fits(part, pattern, said[part]) for part, pattern in self.patterns.items())

    def _in_time(self, time_ms: int) -> bool:
        return self.since_ms <= time_ms and (not self.until_ms or time_ms <= self.until_ms)


NAMED: Final = ("subject", "actor", "workload", "action", "resource", "version", "rule", "reason")
"""The parts of a record that patterns match."""


def parts(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of a decision's record as text; several of one kind on a line each."""
    return {
        "subject": record["principal"],
        "actor": "\n".join(actor["principal"] for actor in record["actors"]),
        "workload": record["workload"],
        "action": record["action"],
        "resource": record["resource"],
        "version": record["version"],
        "rule": "\n".join(record["determining"]),
        "reason": record["reason"],
    }


def fits(part: str, pattern: str, text: str) -> bool:
    """Tell whether `pattern` matches what a record says of `part`."""
    if part == "resource" and "@" not in pattern:
        text = text.partition("@")[0]
    match = _compiled(pattern)
    return any(match(line) for line in text.split("\n"))


@lru_cache(maxsize=_PATTERNS)
def _compiled(pattern: str) -> Any:
    # Nothing but `*` is special: each piece between is escaped, so that a name with a bracket is that name. No two wildcards
    # meet, and what they match is bounded by the longest name, so that backtracking is, too.
    pieces = re.split(r"\*+", pattern)
    return re.compile(".*".join(map(re.escape, pieces)), re.DOTALL).fullmatch
