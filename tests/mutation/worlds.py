"""The first look at a mutant of the engine: the laws on some hundred worlds, which are made once and not for each mutant."""

from hypothesis import HealthCheck, Phase, given, settings

from tests.spec import corpus, test_reference
from tests.spec.generators.models import CasbinWorld, world
from tests.spec.generators.worlds import GeneratedWorld, worlds
from tests.spec.laws import LAWS, as_the_reference

_WORLDS = (
    *(each for each in corpus.worlds(CasbinWorld).values() if isinstance(each, CasbinWorld)),
    *map(world, range(250)),
)
_EACH = 40
"""On how many of them the other laws are tried: pycasbin is slow, and the reference sharper."""
_OWN: list[GeneratedWorld] = []


@settings(
    max_examples=120,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
@given(each=worlds())
def _collect(each: GeneratedWorld) -> None:
    _OWN.append(each)


def prepare() -> None:
    """Make the worlds of our own model, which hypothesis draws: once, and when pytest has loaded it."""
    _collect()


def every_law_holds() -> bool:
    """Tell whether the engine answers as the reference on all worlds, and obeys the other laws on some."""
    try:
        for each in _WORLDS:
            as_the_reference(each)
        for own in _OWN:
            test_reference.as_the_reference(own)
        for each in _WORLDS[:_EACH]:
            for law in LAWS:
                law(each)
    except AssertionError:
        return False
    return True
