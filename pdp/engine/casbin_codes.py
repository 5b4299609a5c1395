"""The numbered divergences from pycasbin and their codes, as data: what lint, import and verify name a trap by.

Source: CASBIN.md section 2. `docs/casbin.md` tells each at length, under the same number; tests hold the three together.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

CODES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "PC101": ("unknown_effect", "D-04"),
        "PC102": ("effect_expr", "D-05"),
        "PC103": ("incomplete_set", "D-05"),
        "PC104": ("missing_section", "D-17"),
        "PC110": ("unknown_ptype", "D-09"),
        "PC111": ("section_gap", "D-09"),
        "PC112": ("wrong_arity", "D-10"),
        "PC113": ("role_arity", "D-11"),
        "PC114": ("bad_csv", "D-12"),
        "PC115": ("bad_character", "D-13"),
        "PC116": ("unrepresentable", "D-14"),
        "PC117": ("repeated_row", "D-16"),
        "PC118": ("duplicate_key", "D-16"),
        "PC120": ("allow_by_default", "D-01"),
        "PC140": ("bad_priority", "D-07"),
        "PC141": ("subject_column", "D-08"),
        "PC143": ("tied_priority", "D-07"),
        "PC144": ("subject_outside", "D-08"),
        "PC201": ("syntax", "D-17"),
        "PC202": ("unsupported", "D-37"),
        "PC203": ("unknown_name", "D-17"),
        "PC204": ("extra_statement", "D-18"),
        "PC205": ("not_boolean", "D-20"),
        "PC206": ("type_mismatch", "D-21"),
        "PC207": ("in_needs_list", "D-22"),
        "PC210": ("constant_condition", "D-23"),
        "PC211": ("bad_condition", "D-23"),
        "PC212": ("bad_time", "D-38"),
        "PC301": ("star_not_last", "D-26"),
        "PC302": ("non_canonical", "D-27"),
        "PC303": ("regex_in_key", "D-28"),
        "PC304": ("colon_in_segment", "D-29"),
        "PC305": ("adjacent_params", "D-30"),
        "PC306": ("star_crosses_slash", "D-31"),
        "PC307": ("bad_pattern", "D-28"),
        "PC310": ("unanchored", "D-33"),
        "PC311": ("re2_refuses", "D-34"),
        "PC312": ("ambiguous_glob", "D-35"),
        "PC313": ("glob_skips_dot_names", "D-35"),
        "PC401": ("role_too_deep", "D-39"),
        "PC402": ("role_cycle", "D-40"),
        "PC403": ("condition_args", "D-42"),
        "PC501": ("empty_revision", "D-02"),
        "PC502": ("incomplete_revision", "D-15"),
        "PC503": ("partial_load", "D-50"),
    }
)
"""The name of each code, and the divergence that it belongs to."""

WARNINGS: Final = frozenset({"PC117", "PC143", "PC144", "PC306", "PC313"})
"""Codes that do not refuse."""

NARROWER: Final = frozenset({"D-28", "D-34"})
"""(N): accepted, and matching less than in pycasbin; on a deny row that allows more, and somebody has to say yes to it."""

WIDER: Final = frozenset({"D-05", "D-19", "D-36", "D-39", "D-41", "D-43"})
"""(A): we may allow what pycasbin wrongly denies."""


def divergence_of(code: str) -> str:
    """Return the number of the divergence that a code belongs to; empty for a code of our own."""
    return CODES.get(code, ("", ""))[1]
