"""The decision log is searched over the wire by whoever holds `audit.read`, and by nobody else."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from pdp.cli.main import run as run_command
from pdp.v1 import audit_pb2, audit_pb2_grpc, decision_pb2, decision_pb2_grpc, types_pb2
from tests.support.pdp import ADA, BOB, EVE, GATE, RunningPdp, detail, running_pdp

ROWS = f"g, user:{BOB}, role:data-scientist, dev\ng, user:{BOB}, role:member, prod\ng, user:{ADA}, role:auditor, prod\n"
ASK = decision_pb2.EvaluateRequest(question=decision_pb2.Question(action="dataset.read", resource="dataset/sales"))


async def asked(pdp: RunningPdp, sub: str, **question: Any) -> audit_pb2.QueryResponse:
    stub = audit_pb2_grpc.AuditServiceStub(pdp.channel())  # type: ignore[no-untyped-call] # generated
    answer = await stub.Query(audit_pb2.QueryRequest(**question), metadata=pdp.metadata(sub), timeout=20)
    assert isinstance(answer, audit_pb2.QueryResponse)
    return answer


async def refused(pdp: RunningPdp, sub: str, **question: Any) -> tuple[str, types_pb2.ErrorDetail]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await asked(pdp, sub, **question)
    return error.value.code().name, detail(error.value)


def test_auditors_find_decisions_and_nobody_else_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path, rows=ROWS, assets="dataset/sales: {environment: dev}\n") as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())  # type: ignore[no-untyped-call] # generated
            for _ in range(3):
                await stub.Evaluate(ASK, metadata=pdp.metadata(BOB), timeout=20)
            for stranger in (EVE, BOB, GATE):
                assert (await refused(pdp, stranger))[0] == "PERMISSION_DENIED"
            told = await asked(pdp, ADA, subject=f"user:{BOB}", action="dataset.*", page_size=2)
            records = [json.loads(one.record) for one in told.records]
            assert [record["principal"] for record in records] == [f"user:{BOB}"] * 2
            rest = await asked(
                pdp, ADA, subject=f"user:{BOB}", action="dataset.*", page_size=2, cursor=told.next_cursor
            )
            assert (len(rest.records), rest.next_cursor) == (1, "")
            for wrong in (
                {"subject": "*" * 9},
                {"subject": "x" * 5_000},
                {"effect": "maybe"},
                {"since_ms": -1},
                {"page_size": 1_001},
                {"cursor": told.next_cursor},
            ):
                assert (await refused(pdp, ADA, **wrong))[1].reason == "bad_request", wrong
            await over_the_command_line(pdp, capsys)

    asyncio.run(run())


async def over_the_command_line(pdp: RunningPdp, capsys: pytest.CaptureFixture[str]) -> None:
    """The same question to the server and to its state directory has the same answer, found or exported."""
    token = pdp.directory / "token"
    token.write_text(pdp.token(ADA))
    filters = ("--subject", f"user:{BOB}", "--action", "dataset.*")
    places = ("--state-dir", str(pdp.directory / "state"))
    server = ("--server", str(pdp.address), "--token-file", str(token))
    for command in (("query", "--json", "--events"), ("export", "--as", "json"), ("export", "--as", "ocsf")):
        answers = []
        for where in (server, places):
            code = await asyncio.to_thread(_run, ("audit", *command, *filters, *where))
            answers.append((code, capsys.readouterr().out))
        assert answers[0] == answers[1]
        assert (answers[0][0], len(answers[0][1].splitlines())) == (0, 3)


_run: Callable[[tuple[str, ...]], int] = run_command
