"""`pdp policy shadow|canary`: what is asked of the PDP, and what a person sees of its answer."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from scripted_pdp import ScriptedPdp, refusal

from pdp.v1 import policy_pb2

Pdp = Callable[..., Any]
SHADOW, CANARY = policy_pb2.TRIAL_MODE_SHADOW, policy_pb2.TRIAL_MODE_CANARY
BEFORE = policy_pb2.Said(effect="allow", reason="granted", determining=["grants.csv:6"])
AFTER = policy_pb2.Said(effect="deny", reason="denied_by_rule", determining=["more.csv:1"])
LOST = policy_pb2.Difference(
    change="loses",
    subject="user:bob\x1b[2J",
    action="dataset.read",
    resource="dataset/sales",
    before=BEFORE,
    after=AFTER,
    count=3,
    decision_id="d7",
)


def trial(mode: policy_pb2.TrialMode, **fields: Any) -> policy_pb2.Trial:
    base: dict[str, Any] = {
        "proposal_id": "p17",
        "mode": mode,
        "seq": 20,
        "by": ["user:ada"],
        "end_ms": 1_800_000_000_000,
    }
    return policy_pb2.Trial(**{**base, **fields})


def listed(server: ScriptedPdp, *trials: policy_pb2.Trial) -> None:
    server.script("PolicyService/ListTrials", policy_pb2.ListTrialsResponse(trials=trials))


def test_a_shadow_is_started_for_a_stated_time(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("PolicyService/StartTrial", policy_pb2.StartTrialResponse(world_seq=20))
    told = pdp("policy", "shadow", "start", "p17", "--for", "90m")
    assert (told.code, told.out.startswith("p17 runs as a shadow since world 20")) == (0, True)
    (asked,) = server.asked("PolicyService/StartTrial")
    assert asked == policy_pb2.StartTrialRequest(proposal_id="p17", mode=SHADOW, duration_s=5_400)
    assert pdp("policy", "shadow", "start", "p17").code == 2


def test_a_canary_says_for_whom_and_when_it_is_rolled_back(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("PolicyService/StartTrial", policy_pb2.StartTrialResponse(world_seq=20))
    pdp(
        "policy",
        "canary",
        "start",
        "p17",
        "--for",
        "1h",
        "--at",
        "edge",
        "--at",
        "lab",
        "--max-loses",
        "2",
        "--no-gains",
    )
    (asked,) = server.asked("PolicyService/StartTrial")
    assert (asked.mode, list(asked.points), asked.share) == (CANARY, ["edge", "lab"], 0)
    assert (asked.max_loses, asked.no_gains) == (2, True)


def test_missing_approvals_have_their_exit_code(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("PolicyService/StartTrial", refusal(grpc.StatusCode.FAILED_PRECONDITION, "approval_missing"))
    assert pdp("policy", "canary", "start", "p17", "--for", "1h", "--share", "5").code == 8


def test_what_differs_is_shown_by_rule_subject_and_resource(pdp: Pdp, server: ScriptedPdp) -> None:
    tally = policy_pb2.Tally(compared=9, loses=3, skipped=1, others=2, differences=[LOST])
    listed(server, trial(SHADOW, tally=tally))
    told = pdp("policy", "shadow", "show", "p17")
    assert told.code == 0
    assert "9 compared: 3 loses, 1 skipped" in told.out
    assert "deny: more.csv:1" in told.out
    assert "2 more differ" in told.out
    assert "\x1b" not in told.out  # a name does not steer the terminal
    assert server.asked("PolicyService/ListTrials")[0].differences
    plain = pdp("policy", "shadow", "show", "p17", "--json").json
    assert (plain["by_rule"], plain["by_resource"]) == ({"more.csv:1": 3}, {"dataset/sales": 3})


@pytest.mark.parametrize("words", [("shadow", "show"), ("canary", "show"), ("canary", "promote")])
def test_what_does_not_run_is_not_found(pdp: Pdp, server: ScriptedPdp, words: tuple[str, str]) -> None:
    listed(server, *([trial(SHADOW)] if words[0] == "canary" else []))
    assert pdp("policy", *words, "p17").code == 7


def test_a_canary_is_promoted_by_making_it_live(pdp: Pdp, server: ScriptedPdp) -> None:
    listed(server, trial(CANARY, share=5))
    server.script("PolicyService/Activate", policy_pb2.ActivateResponse(world_seq=30, revision="ab"))
    assert pdp("policy", "canary", "promote", "p17").out == "live in world 30; revision ab\n"


def test_status_shows_what_is_tried_and_for_whom(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("PolicyService/Get", policy_pb2.GetPolicyResponse(revision="r", world_seq=3))
    server.script("PolicyService/ListProposals", policy_pb2.ListProposalsResponse())
    stuck = policy_pb2.Tally(trouble="p18 no longer fits")
    listed(server, trial(CANARY, share=5, tally=policy_pb2.Tally(compared=4, errors=1)), trial(SHADOW, tally=stuck))
    told = pdp("policy", "status").out
    for text in ("5 % of subjects", "4 compared: 1 error", "nobody", "p18 no longer fits"):
        assert text in told
    assert [one["mode"] for one in pdp("policy", "status", "--json").json["trials"]] == ["canary", "shadow"]
