"""Any model: the laws of `laws.py` on generated worlds, a few hundred in every run and 100,000 in the deep profile."""

import json

import pytest
from hypothesis import given

from tests.spec import corpus
from tests.spec.generators.models import CasbinWorld, casbin_worlds, world
from tests.spec.laws import LAWS, Law, as_pycasbin, as_the_reference
from tests.spec.profiles import tries

ORACLES = (as_the_reference, as_pycasbin)
METAMORPHIC = tuple(law for law in LAWS if law not in ORACLES)
DEEP_CASES = 100_000
DEEP_CASES_EACH = 5_000


def name(law: Law) -> str:
    return law.__name__


def holds(law: Law, case: CasbinWorld) -> object:
    with corpus.kept(case, name(law)):
        return law(case)


@pytest.mark.parametrize("law", ORACLES, ids=name)
@tries(300)
@given(case=casbin_worlds())
def test_the_engine_answers_as_its_oracles(law: Law, case: CasbinWorld) -> None:
    holds(law, case)


@pytest.mark.parametrize("law", METAMORPHIC, ids=name)
@tries(100)
@given(case=casbin_worlds())
def test_a_law_that_needs_no_oracle(law: Law, case: CasbinWorld) -> None:
    holds(law, case)


@pytest.mark.parametrize("case", [pytest.param(case, id=stem) for stem, case in corpus.worlds(CasbinWorld).items()])
def test_worlds_that_once_broke_a_law_break_none(case: CasbinWorld) -> None:
    for law in LAWS:
        law(case)


@pytest.mark.nightly
@pytest.mark.timeout(7_200)
def test_a_hundred_thousand_worlds_are_answered_as_the_reference_and_pycasbin_do() -> None:
    compared = 0
    for seed in range(DEEP_CASES):
        case = world(seed)
        holds(as_the_reference, case)
        compared += int(str(holds(as_pycasbin, case)))
    assert compared > 5 * DEEP_CASES


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("law", METAMORPHIC, ids=name)
def test_thousands_of_worlds_obey_the_law(law: Law) -> None:
    for seed in range(DEEP_CASES_EACH):
        holds(law, world(seed))


def test_a_world_is_written_to_the_corpus_and_read_as_it_was() -> None:
    for seed in range(20):
        case = world(seed)
        again = corpus.from_json(json.loads(json.dumps(corpus.to_json(case))))
        assert isinstance(again, CasbinWorld)
        assert (again.text, again.questions, again.rows) == (case.text, case.questions, case.rows)
