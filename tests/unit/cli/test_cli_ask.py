import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from scripted_pdp import ScriptedPdp, denial, evaluated, refusal

from pdp.v1 import decision_pb2, types_pb2

Pdp = Callable[..., Any]
EVALUATE = "DecisionService/Evaluate"
READ = ("dataset.read", "dataset/finance/transactions")


def test_an_allow_is_exit_code_0(pdp: Pdp, server: ScriptedPdp) -> None:
    duty = types_pb2.Obligation(name="max_rows", value="10")
    server.script(EVALUATE, evaluated(determining=["grants.csv:6"], obligations=[duty], recheck_after_ms=1500))
    ended = pdp("check", *READ)
    assert ended.code == 0
    assert ended.out.splitlines()[0] == "ALLOW dataset.read dataset/finance/transactions"
    assert "grants.csv:6" in ended.out
    assert "max_rows=10" in ended.out


def test_json_is_one_object_with_stable_keys(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script(EVALUATE, evaluated(role_path=["user:a", "role:b"], candidate="ab12"))
    ended = pdp("check", *READ, "--json")
    assert ended.out.count("\n") == 1
    assert list(ended.json) == [
        "effect", "reason", "detail", "obligations", "world_seq", "decision_id", "recheck_after_s", "determining",
        "role_path", "nearest_miss", "dpop_nonce", "candidate",
    ]  # fmt: skip
    assert (ended.json["effect"], ended.json["role_path"]) == ("allow", ["user:a", "role:b"])
    assert ended.json["candidate"] == "ab12"  # which canary decided


@pytest.mark.parametrize(
    ("reason", "code"), [("no_grant", 3), ("locked", 3), ("world_stale", 5), ("token_expired", 4), ("granted", 1)]
)
def test_a_deny_exits_by_its_reason_and_never_0(pdp: Pdp, server: ScriptedPdp, reason: str, code: int) -> None:
    server.script(EVALUATE, decision_pb2.EvaluateResponse(decision=denial(reason=reason)))
    ended = pdp("check", *READ)
    assert ended.code == code
    assert ended.out.startswith("DENY ")
    assert ended.err == ""


def test_explain_tells_the_nearest_miss(pdp: Pdp, server: ScriptedPdp) -> None:
    miss = types_pb2.NearestMiss(rule="grants.csv:6", failed="environment", text="granted in dev only")
    server.script("DecisionService/Explain", decision_pb2.EvaluateResponse(decision=denial(nearest_miss=miss)))
    assert "grants.csv:6 fails on environment: granted in dev only" in pdp("explain", *READ).out
    assert pdp("explain", *READ, "--json").json["nearest_miss"]["failed"] == "environment"


def test_options_become_the_question(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script(EVALUATE, evaluated())
    options = [
        "--as",
        "user:bob@example.com",
        "--purpose",
        "audit",
        "--env-attr",
        "count=3",
        "--env-attr",
        "request.x=true",
    ]
    assert pdp("check", *READ, *options, "--env-attr", 'tags=["a"]', "--env-attr", "at=2026-11-20T08:00:00Z").code == 0
    question = server.asked(EVALUATE)[0].question
    assert question.subject.asserted.principal == "user:bob@example.com"
    kinds = {name: value.WhichOneof("kind") for name, value in question.attributes.items()}
    assert kinds == {
        "request.purpose": "string_value",
        "request.count": "int_value",
        "request.x": "bool_value",
        "request.tags": "list_value",
        "request.at": "timestamp_value",
    }
    assert question.supports_all


def test_with_supports_another_obligation_is_a_deny(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script(EVALUATE, evaluated(obligations=[types_pb2.Obligation(name="max_rows", value="10")]))
    assert pdp("check", *READ, "--supports", "max_rows").code == 0
    assert pdp("check", *READ, "--supports", "purpose").code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("read", "dataset/x"),
        ("dataset.read", "dataset/../x"),
        ("dataset.read", "dataset/x", "--as", "alice"),
        ("dataset.read", "dataset/x", "--env-attr", "purpose"),
        ("dataset.read", "dataset/x", "--env-attr", "a=1", "--env-attr", "a=2"),
        ("dataset.read", "dataset/x", "--env-attr", "purpose=a", "--purpose", "b"),
        ("dataset.read", "dataset/x", "--env-attr", "a=null-ish\n"),
        ("dataset.read", "dataset/x", "--timeout", "0"),
    ],
)
def test_a_malformed_question_is_one_line_and_exit_code_2(
    pdp: Pdp, server: ScriptedPdp, arguments: tuple[str, ...]
) -> None:
    ended = pdp("check", *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert server.calls == []


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "unknown_action", 2),
        (grpc.StatusCode.PERMISSION_DENIED, "no_grant", 3),
        (grpc.StatusCode.UNAUTHENTICATED, "token_expired", 4),
        (grpc.StatusCode.UNAVAILABLE, "world_behind", 5),
        (grpc.StatusCode.INTERNAL, "internal_error", 1),
    ],
)
def test_a_refusal_of_the_pdp_is_one_line(
    pdp: Pdp, server: ScriptedPdp, status: grpc.StatusCode, reason: str, code: int
) -> None:
    server.script(EVALUATE, refusal(status, reason, advice="do this", correlation_id="c-1"))
    ended = pdp("check", *READ)
    assert (ended.code, ended.err) == (code, f"pdp: {reason}: told: {reason} [c-1]; do this\n")


def test_a_missing_token_file_is_named(pdp: Pdp, server: ScriptedPdp) -> None:
    ended = pdp("check", *READ, "--server", server.address, "--token-file", "nowhere/token")
    assert ended.code == 4
    assert "nowhere/token" in ended.err


@pytest.mark.holds("N8", "adv_log_injection")
def test_what_a_server_says_does_not_steer_the_terminal(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script(EVALUATE, evaluated(detail="\x1b[2Jgone"))
    assert "\x1b" not in pdp("check", *READ).out


def test_explain_is_told_for_people(pdp: Pdp, server: ScriptedPdp) -> None:
    sentence = "`role:a` grants `dataset.read` on `dataset/**` in `dev`; the asset is in `prod`"
    miss = types_pb2.NearestMiss(rule="grants.csv:6", failed="environment", text=sentence)
    server.script("DecisionService/Explain", decision_pb2.EvaluateResponse(decision=denial(nearest_miss=miss)))
    assert pdp("explain", *READ).out.splitlines() == [
        "DENY dataset.read dataset/finance/transactions",
        "  reason       no_grant",
        f"  closest      grants.csv:6 fails on environment: {sentence}",
        "  world        7",
        "  decision     d-1",
    ]
    path = ["user:a", "group:team", "role:a"]
    granted = evaluated(determining=["grants.csv:6", "segmentation.csv:7"], role_path=path)
    server.script("DecisionService/Explain", granted)
    assert pdp("explain", *READ).out.splitlines() == [
        "ALLOW dataset.read dataset/finance/transactions",
        "  reason       granted",
        "  rules        grants.csv:6, segmentation.csv:7",
        "  roles        user:a -> group:team -> role:a",
        "  world        7",
        "  decision     d-1",
    ]


TOKEN = "a.b.c"
BOUND = ("--proof", "d.e.f", "--method", "POST", "--url", "https://models.example/v2/models/fraud/infer")


@pytest.mark.parametrize("verb", ["check", "explain"])
def test_the_token_of_another_is_asked_about_with_the_proof_that_it_came_with(
    pdp: Pdp, server: ScriptedPdp, tmp_path: Path, verb: str
) -> None:
    rpc = EVALUATE if verb == "check" else "DecisionService/Explain"
    server.script(rpc, evaluated(), evaluated())
    (tmp_path / "token").write_text(f"DPoP {TOKEN}\n")
    assert pdp(verb, *READ, "--subject-token", str(tmp_path / "token"), *BOUND).code == 0
    subject = server.asked(rpc)[0].question.subject
    assert subject.credential == "DPoP a.b.c"
    assert (subject.request.proof, subject.request.method, subject.request.url) == BOUND[1::2]
    (tmp_path / "token").write_text(TOKEN)
    assert pdp(verb, *READ, "--subject-token", str(tmp_path / "token")).code == 0
    subject = server.asked(rpc)[1].question.subject
    assert (subject.credential, subject.HasField("request")) == ("Bearer a.b.c", False)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (BOUND, "give `--subject-token`, too"),
        (("--subject-token", "TOKEN", *BOUND[:4]), "`--proof`, `--method` and `--url` together"),
        (("--subject-token", "TOKEN", *BOUND[2:]), "`--proof`, `--method` and `--url` together"),
        (("--subject-token", "TOKEN", "--as", "user:bob@example.com"), "given twice"),
        (("--subject-token", "nowhere"), "cannot read the token file"),
    ],
)
def test_half_a_proof_is_no_question(
    pdp: Pdp, server: ScriptedPdp, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    ended = pdp("check", *READ, *(str(tmp_path / "token") if part == "TOKEN" else part for part in options))
    assert told in ended.err
    assert ended.code not in (0, 3)
    assert server.asked(EVALUATE) == []


def test_a_nonce_for_the_next_proof_is_shown(pdp: Pdp, server: ScriptedPdp) -> None:
    answer = denial(reason="dpop_nonce_required", dpop_nonce="n1")
    server.script(
        EVALUATE, decision_pb2.EvaluateResponse(decision=answer), decision_pb2.EvaluateResponse(decision=answer)
    )
    assert re.search(r"nonce +n1", pdp("check", *READ).out)
    assert pdp("check", *READ, "--json").json["dpop_nonce"] == "n1"
