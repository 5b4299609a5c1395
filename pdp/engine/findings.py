"""Findings: what a parser or the compiler has to say about a pack, each with its place and its stable code."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pdp.errors import PortcullisError, Reason
from pdp.model.names import counted


class Severity(StrEnum):
    """An error refuses the pack; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


NAMES: Final = MappingProxyType(
    {
        "PC101": "unknown_effect",
        "PC102": "effect_expr",
        "PC103": "incomplete_set",
        "PC104": "missing_section",
        "PC110": "unknown_ptype",
        "PC111": "section_gap",
        "PC112": "wrong_arity",
        "PC113": "role_arity",
        "PC114": "bad_csv",
        "PC115": "bad_character",
        "PC116": "unrepresentable",
        "PC117": "repeated_row",
        "PC118": "duplicate_key",
        "PC120": "allow_by_default",
        "PC140": "bad_priority",
        "PC141": "subject_column",
        "PC143": "tied_priority",
        "PC144": "subject_outside_roles",
        "PC201": "syntax",
        "PC202": "unsupported",
        "PC203": "unknown_name",
        "PC204": "extra_statement",
        "PC205": "not_boolean",
        "PC206": "type_mismatch",
        "PC207": "in_needs_list",
        "PC210": "constant_condition",
        "PC211": "bad_condition",
        "PC212": "bad_time",
        "PC213": "has_macro",
        "PC214": "bad_obligation",
        "PC301": "star_not_last",
        "PC302": "non_canonical",
        "PC303": "regex_in_key",
        "PC304": "colon_in_segment",
        "PC305": "adjacent_params",
        "PC306": "star_crosses_slashes",
        "PC307": "bad_pattern",
        "PC310": "unanchored",
        "PC311": "re2_refuses",
        "PC312": "ambiguous_glob",
        "PC313": "deny_skips_dot_names",
        "PC320": "not_indexed",
        "PC401": "role_too_deep",
        "PC402": "role_cycle",
        "PC403": "condition_args",
        "PC404": "roles_too_many",
        "PC501": "empty_revision",
        "PC502": "incomplete_revision",
        "PC503": "partial_load",
        "PC504": "missing_file",
        "PC505": "bad_yaml",
        "PC506": "too_large",
        "PC601": "shadowed_rule",
        "PC602": "contradictory_pair",
        "PC603": "unreachable_role",
        "PC604": "wider_than_used",
        "PC605": "risky_wildcard",
        "PC606": "approve_and_promote",
        "PC607": "empty_segment",
        "PC608": "uncovered_assets",
        "PC609": "constant_condition_found",
        "PC610": "expired_assignment",
        "PC611": "member_no_asset",
    }
)
"""Every code that the engine reports, with its name. Source: CASBIN.md section 2, POLICY.md section 4."""

WARNINGS: Final = frozenset(
    {"PC117", "PC143", "PC144", "PC306", "PC313", "PC320", *(code for code in NAMES if code.startswith("PC6"))}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem of a pack, at a line and column that count from 1."""

    file: str
    line: int
    column: int
    code: str
    name: str
    message: str
    severity: Severity

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.code} {self.name}: {self.message}"


def finding(code: str, message: str, *, file: str, line: int = 1, column: int = 1) -> Finding:
    """Return the finding `code` at a place; name and severity follow from the code."""
    severity = Severity.WARNING if code in WARNINGS else Severity.ERROR
    return Finding(file=file, line=line, column=column, code=code, name=NAMES[code], message=message, severity=severity)


def errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that refuse a pack."""
    return tuple(item for item in findings if item.severity is Severity.ERROR)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings without repetitions, in the order in which a reader meets them."""
    return tuple(sorted(set(findings), key=lambda item: (item.file, item.line, item.column, item.code, item.message)))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that looks most like `word`, or an empty string."""
    close = get_close_matches(word[:100], list(known), n=1, cutoff=0.5)
    return close[0] if close else ""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the end of a message that names the nearest known word, if there is one."""
    close = nearest(word, known)
    return f"; did you mean `{close}`?" if close else ""


class PackRefused(PortcullisError):  # noqa: N818 - a door's word for what it does, as in `PolicyService`
    """What a door raises when a pack has errors; the engine itself returns findings."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        count = len(errors(findings))
        super().__init__(
            Reason.POLICY_REFUSED,
            f"the pack is refused: {counted(count, 'error')}",
            advice="correct every finding and try again; nothing was changed",
        )
        self.findings = findings
