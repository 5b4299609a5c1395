"""The numbered divergences from pycasbin and their codes, as data: what lint, import and verify name a trap by.

Source: CASBIN.md section 2. `docs/casbin.md` tells each at length, under the same number; tests hold the three together.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PC101": "D-04",
        "PC102": "D-05",
        "PC103": "D-05",
        "PC104": "D-17",
        "PC110": "D-09",
        "PC111": "D-09",
        "PC112": "D-10",
        "PC113": "D-11",
        "PC114": "D-12",
        "PC115": "D-13",
        "PC116": "D-14",
        "PC117": "D-16",
        "PC118": "D-16",
        "PC120": "D-01",
        "PC140": "D-07",
        "PC141": "D-08",
        "PC143": "D-07",
        "PC144": "D-08",
        "PC201": "D-17",
        "PC202": "D-37",
        "PC203": "D-17",
        "PC204": "D-18",
        "PC205": "D-20",
        "PC206": "D-21",
        "PC207": "D-22",
        "PC210": "D-23",
        "PC211": "D-23",
        "PC212": "D-38",
        "PC301": "D-26",
        "PC302": "D-27",
        "PC303": "D-28",
        "PC304": "D-29",
        "PC305": "D-30",
        "PC306": "D-31",
        "PC307": "D-28",
        "PC310": "D-33",
        "PC311": "D-34",
        "PC312": "D-35",
        "PC313": "D-35",
        "PC401": "D-39",
        "PC402": "D-40",
        "PC403": "D-42",
        "PC404": "D-39",
        "PC501": "D-02",
        "PC502": "D-15",
        "PC503": "D-50",
    }
)
"""The divergence that each code belongs to."""

NARROWER: Final = frozenset({"D-28", "D-34"})
"""(N): accepted, and matching less than in pycasbin; on a deny row that allows more, and somebody has to say yes to it."""

WIDER: Final = frozenset({"D-05", "D-19", "D-36", "D-39", "D-41", "D-43"})
"""(A): we may allow what pycasbin wrongly denies."""


def divergence_of(code: str) -> str:
    """Return the number of the divergence that a code belongs to; empty for a code of our own."""
    return CODES.get(code, "")
