"""What the decision saw is what the model sees, or nothing is: a corpus of request targets, at the agent and through Envoy."""

import asyncio
from pathlib import Path
from urllib.parse import unquote

import pytest

from sidecar.asked import Ask, Verdict
from sidecar.gate import Gate
from sidecar.routes import Placement, Served
from sidecar.routes.assembly import assemble
from tests.e2e.sidecar.conftest import Lab, laboratory
from tests.support.enforcement import Decider, identify
from tests.support.targets import ROUTE, corpus

TABLE = assemble(served={"fraud": Served(resource="endpoint/fraud", model="model/fraud@12")}, server="endpoint/all")
CORPUS = tuple(corpus())


def test_the_corpus_is_large_and_holds_its_route() -> None:
    assert len(CORPUS) >= 200
    assert ROUTE in CORPUS


def judged(target: str) -> tuple[Verdict, Decider]:
    decider = Decider()
    gate = Gate(table=TABLE, identify=identify, decider=decider)
    ask = Ask(method="POST", target=target, route=None, authorization="Bearer good")
    return asyncio.run(gate.decide(ask, Placement.EXT_AUTHZ)), decider


@pytest.mark.holds("N1", "N2", "N3", "adv_path", "adv_query_fragment")
def test_the_agent_takes_one_spelling_of_each_route() -> None:
    """Of the whole corpus only the routes in their one spelling are allowed; the rest is refused, each with a record."""
    allowed = set()
    for target in CORPUS:
        verdict, decider = judged(target)
        if verdict.allowed:
            allowed.add(target)
            assert decider.questions, target
        else:
            assert len(decider.refusals) == 1, target
    assert allowed == {ROUTE, "/v2/models/fraud/versions/12/infer"}


@pytest.mark.nightly
@pytest.mark.holds("N2", "N3", "adv_path", "adv_query_fragment")
def test_through_envoy_what_was_decided_is_what_the_model_saw(tmp_path: Path) -> None:
    asyncio.run(_through_envoy(tmp_path))


async def _through_envoy(directory: Path) -> None:
    async with laboratory(directory, table=TABLE) as lab:
        for target in CORPUS:
            lab.decider.questions.clear()
            lab.model.seen.clear()
            answer = await lab.raw(_request(target))
            if not lab.model.seen:
                assert not answer.startswith(b"HTTP/1.1 200"), target
                continue
            _same(lab, target)


def _request(target: str) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nhost: model\r\nauthorization: Bearer good\r\ncontent-length: 0\r\n"
    return (head + "connection: close\r\n\r\n").encode("latin-1")


def _same(lab: Lab, target: str) -> None:
    """The one request the model saw is the one that was decided, in the one spelling there is."""
    (exchange,), (question,) = lab.model.seen, lab.decider.questions
    line = exchange.head.partition("\r\n")[0].split(" ")
    assert line[0] == "POST", target
    assert line[1] in {ROUTE, "/v2/models/fraud/versions/12/infer"}, target
    assert str(question.resource) == "endpoint/fraud", target
    assert unquote(line[1]) == line[1], target
