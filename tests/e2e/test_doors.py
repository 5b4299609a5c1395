"""P3: one world, one answer. The questions of doors.yaml by every door; each answer is the one that is written there."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pdp.cli.main import run
from pdp.sdk import AsyncClient, Client, LocalClient, Question
from pdp.sdk.admin import LockTarget
from pdp.v1 import decision_pb2, decision_pb2_grpc
from tests.support.pdp import GATE, ROWS
from tests.support.pdp_thread import ThreadedPdp, threaded_pdp

WORLD: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("doors.yaml").read_text())
QUESTIONS = [
    Question(supports=None, **{name: value for name, value in question.items() if name != "reason"})
    for question in WORLD["questions"]
]
WANTED = [question["reason"] for question in WORLD["questions"]]
MEMBER = f"g, user:{GATE}, role:member, prod\n"


@pytest.fixture(scope="module")
def pdp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedPdp]:
    directory = tmp_path_factory.mktemp("doors")
    assets = yaml.safe_dump(WORLD["assets"])
    with threaded_pdp(directory, rows=ROWS + MEMBER + WORLD["rows"], assets=assets) as running:
        with running.admin() as admin:
            for target in WORLD["locks"]:
                admin.lock(LockTarget.parse(target), reason="of the world")
        (directory / "gate.token").write_text(running.token(GATE))
        yield running


Answers = list[tuple[bool, str, int]]
Door = Callable[[ThreadedPdp, Path], Answers]


def plain(decision: Any) -> tuple[bool, str, int]:
    allowed = decision.effect == 1 if isinstance(decision, decision_pb2.Decision) else decision.allowed
    return bool(allowed), str(getattr(decision.reason, "value", decision.reason)), decision.world_seq


def messages() -> list[decision_pb2.Question]:
    return [
        decision_pb2.Question(
            subject=decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal=str(question.subject))),
            action=question.action,
            resource=question.resource,
            workload=question.workload,
            supports_all=True,
        )
        for question in QUESTIONS
    ]


def on_the_wire(pdp: ThreadedPdp, ask: Callable[[Any, Any], Any]) -> Answers:
    async def work() -> Answers:
        stub = decision_pb2_grpc.DecisionServiceStub(pdp.pdp.channel())
        return [plain(decision) for decision in await ask(stub, {"metadata": pdp.pdp.metadata(GATE), "timeout": 20})]

    return pdp.run(work())


def evaluate(pdp: ThreadedPdp, _directory: Path) -> Answers:
    async def ask(stub: Any, how: Any) -> list[Any]:
        return [
            (await stub.Evaluate(decision_pb2.EvaluateRequest(question=item), **how)).decision for item in messages()
        ]

    return on_the_wire(pdp, ask)


def explain(pdp: ThreadedPdp, _directory: Path) -> Answers:
    async def ask(stub: Any, how: Any) -> list[Any]:
        return [
            (await stub.Explain(decision_pb2.EvaluateRequest(question=item), **how)).decision for item in messages()
        ]

    return on_the_wire(pdp, ask)


def batch(pdp: ThreadedPdp, _directory: Path) -> Answers:
    async def ask(stub: Any, how: Any) -> Any:
        return (await stub.EvaluateBatch(decision_pb2.EvaluateBatchRequest(questions=messages()), **how)).decisions

    return on_the_wire(pdp, ask)


def stream(pdp: ThreadedPdp, _directory: Path) -> Answers:
    async def ask(stub: Any, how: Any) -> list[Any]:
        requests = [decision_pb2.EvaluateBatchRequest(questions=[item]) for item in messages()]
        return [answer.decisions[0] async for answer in stub.EvaluateStream(iter(requests), **how)]

    return on_the_wire(pdp, ask)


def watch(pdp: ThreadedPdp, _directory: Path) -> Answers:
    async def ask(stub: Any, how: Any) -> list[Any]:
        calls = [stub.Watch(decision_pb2.WatchRequest(question=item), **how) for item in messages()]
        told = [(await call.read()).decision for call in calls]
        for call in calls:
            call.cancel()
        return told

    return on_the_wire(pdp, ask)


def sdk(pdp: ThreadedPdp, _directory: Path) -> Answers:
    with Client(pdp.server, token=pdp.token(GATE)) as client:
        return [plain(decision) for decision in client.check_many(QUESTIONS)]


def async_sdk(pdp: ThreadedPdp, _directory: Path) -> Answers:
    async def work() -> Answers:
        async with AsyncClient(pdp.server, token=pdp.token(GATE)) as client:
            return [plain(decision) for decision in await client.check_many(QUESTIONS)]

    return pdp.run(work())


def local_sdk(pdp: ThreadedPdp, directory: Path) -> Answers:
    given = {"root_digest": pdp.root_digest, "trust": pdp.trust, "token": pdp.token(GATE), "state_dir": directory}
    with LocalClient(pdp.server, **given) as client:
        while client.world_seq < pdp.world_seq:
            threading.Event().wait(0.01)
        return [plain(decision) for decision in client.check_many(QUESTIONS)]


@pytest.mark.holds("P3", "adv_engine_paths_differ")
@pytest.mark.parametrize("door", [evaluate, explain, batch, stream, watch, sdk, async_sdk, local_sdk])
def test_every_door_gives_the_answer_that_is_written(pdp: ThreadedPdp, tmp_path: Path, door: Door) -> None:
    wanted = [(reason == "granted", reason, pdp.world_seq) for reason in WANTED]
    assert door(pdp, tmp_path) == wanted


@pytest.mark.holds("P3")
def test_the_command_line_gives_the_same(pdp: ThreadedPdp, capsys: pytest.CaptureFixture[str]) -> None:
    connection = ("--server", pdp.server, "--token-file", str(pdp.pdp.directory / "gate.token"))
    for question, reason in zip(QUESTIONS, WANTED, strict=True):
        where = ("--workload", question.workload) if question.workload else ()
        run(("check", question.action, question.resource, "--as", str(question.subject), *where, "--json", *connection))
        told = json.loads(capsys.readouterr().out)
        assert (told["reason"], told["world_seq"]) == (reason, pdp.world_seq), question


@pytest.mark.holds("P3", "adv_list_partial")
def test_lists_hold_what_is_granted_and_nothing_that_is_not(pdp: ThreadedPdp) -> None:
    with Client(pdp.server, token=pdp.token(GATE)) as client:
        for question, reason in zip(QUESTIONS, WANTED, strict=True):
            if question.workload or reason in ("unknown_action", "bad_request"):
                continue
            listed = client.what_can(str(question.subject), workload="none").entries
            held = {(entry.action, entry.resource) for entry in listed if not entry.depends_on}
            assert ((question.action, question.resource) in held) is (reason == "granted"), question
