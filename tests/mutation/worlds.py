"""The first look at a mutant of the engine: the laws on some hundred worlds, which are made once and not for each mutant."""

from tests.spec import corpus
from tests.spec.generators.models import CasbinWorld, world
from tests.spec.laws import LAWS, as_the_reference

_WORLDS = (
    *(each for each in corpus.worlds(CasbinWorld).values() if isinstance(each, CasbinWorld)),
    *map(world, range(250)),
)
_EACH = 40
"""On how many of them the other laws are tried: pycasbin is slow, and the reference sharper."""


def every_law_holds() -> bool:
    """Tell whether the engine answers as the reference on all worlds, and obeys the other laws on some."""
    try:
        for each in _WORLDS:
            as_the_reference(each)
        for each in _WORLDS[:_EACH]:
            for law in LAWS:
                law(each)
    except AssertionError:
        return False
    return True
