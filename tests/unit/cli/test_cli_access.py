"""`pdp access`: asking, approving, denying, and who has what."""

from pdp.v1 import policy_pb2
from tests.unit.cli.conftest import Pdp
from tests.unit.scripted_pdp import ScriptedPdp

ASKED = policy_pb2.Proposal(
    id="p17",
    digest="d" * 64,
    message="hotfix",
    access=policy_pb2.TimedAccess(
        who="user:mia", role="role:app", environment="prod", duration_s=7200, approvals_needed=1
    ),
)


def test_access_is_asked_for_with_a_time_and_a_reason(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script(
        "PolicyService/RequestAccess", policy_pb2.RequestAccessResponse(proposal_id="p17", approvals_needed=1)
    )
    ended = pdp("access", "request", "role:app", "--env", "prod", "--for", "2h", "--reason", "hotfix")
    assert (ended.code, "pdp access approve p17" in ended.out) == (0, True)
    (sent,) = server.asked("PolicyService/RequestAccess")
    assert (sent.role, sent.environment, sent.duration_s, sent.reason) == ("role:app", "prod", 7200, "hotfix")
    assert pdp("access", "request", "role:app", "--env", "prod", "--for", "2h").code == 2  # no reason, no request


def test_the_last_yes_makes_it_live(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("PolicyService/ListProposals", policy_pb2.ListProposalsResponse(proposals=[ASKED]))
    server.script("PolicyService/Approve", policy_pb2.ApproveResponse(approved_by=["user:eve"], live=True))
    assert pdp("access", "approve", "p17").out == "p17 is approved by user:eve; it is live\n"
    server.script("PolicyService/Reject", policy_pb2.RejectResponse(world_seq=3))
    assert pdp("access", "deny", "p17", "-m", "no").out == "p17 is denied\n"


def test_who_has_what_and_who_waits(pdp: Pdp, server: ScriptedPdp) -> None:
    live = policy_pb2.TimedAccess(who="user:bob", role="role:sre", environment="prod", end_ms=4_070_908_800_000)
    server.script("PolicyService/ListAccess", policy_pb2.ListAccessResponse(requests=[ASKED], live=[live]))
    told = pdp("access", "list", "--all").out
    assert "user:mia  role:app  prod         120 min  0 of 1" in told
    assert "user:bob  role:sre  prod         2099-01-01 00:00:00Z" in told
    assert pdp("access", "list", "--json").json["live"][0]["role"] == "role:sre"
    assert [sent.all for sent in server.asked("PolicyService/ListAccess")] == [True, False]
