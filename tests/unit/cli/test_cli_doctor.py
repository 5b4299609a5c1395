import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest
import trustme
from scripted_pdp import ScriptedPdp, denial, evaluated, refusal

from pdp.v1 import decision_pb2, replication_pb2

Pdp = Callable[..., Any]
READY = {"ready": True, "world_seq": 7, "staleness_s": 0.4, "last_error": "", "degradations": []}


class Probes(HTTPServer):
    """Probes that say what a test tells them to."""

    status, state, skew_s = 200, READY, 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Page(BaseHTTPRequestHandler):
    server: Probes

    def do_GET(self) -> None:
        body = json.dumps(self.server.state).encode() if self.path == "/readyz" else b""
        self.send_response_only(self.server.status)
        self.send_header("Date", self.date_time_string(time.time() + self.server.skew_s))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def probes() -> Iterator[Probes]:
    with Probes(("127.0.0.1", 0), Page) as made:
        thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def token(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "token"
    now = time.time()
    path.write_text(token(sub="user:ada@demo.portcullis", iss="https://issuer", iat=now, exp=now + 300))
    monkeypatch.setenv("PDP_TOKEN_FILE", str(path))
    return path


@pytest.fixture
def healthy(server: ScriptedPdp, fresh: Path) -> ScriptedPdp:
    assert fresh.exists()
    server.script("DecisionService/Evaluate", evaluated(role_path=["user:ada@demo.portcullis", "role:admin"]))
    replica = replication_pb2.ReplicaStatus(identity="a", seq=7, connected=True)
    server.script(
        "ReplicationService/ListReplicas", replication_pb2.ListReplicasResponse(replicas=[replica], head_seq=7)
    )
    return server


def states(ended: Any) -> dict[str, str]:
    return {found["check"]: found["state"] for found in ended.json}


def told(ended: Any, check: str) -> str:
    return next(found["told"] for found in ended.json if found["check"] == check)


def test_a_healthy_pdp_is_exit_code_0(pdp: Pdp, healthy: ScriptedPdp, probes: Probes) -> None:
    assert healthy.address
    ended = pdp("doctor", "--probes", probes.url, "--json")
    assert (ended.code, set(states(ended).values())) == (0, {"ok"})
    assert list(states(ended)) == [
        *("settings", "connection", "token", "credential", "enforcement points", "readiness", "clock"),
    ]
    assert "user:ada@demo.portcullis" in told(ended, "token")
    assert "user:ada@demo.portcullis may ask" in told(ended, "credential")
    assert "world 7" in told(ended, "readiness")
    assert "clear text on this host" in pdp("doctor", "--probes", probes.url).out


@pytest.mark.holds("P13")
def test_weakened_controls_are_warnings(pdp: Pdp, healthy: ScriptedPdp, probes: Probes) -> None:
    probes.state = READY | {"degradations": ["clear text", {"control": "development issuer"}]}
    ended = pdp("doctor", "--server", healthy.address, "--probes", probes.url, "--json")
    assert ended.code == 0
    assert [found["told"] for found in ended.json if found["check"] == "weakened"] == [
        "clear text",
        '{"control": "development issuer"}',
    ]


def test_it_says_who_knows_a_used_proof_again(pdp: Pdp, healthy: ScriptedPdp, probes: Probes) -> None:
    probes.state = READY | {"used_proofs": "all PDPs of the store"}
    ended = pdp("doctor", "--server", healthy.address, "--probes", probes.url, "--json")
    assert told(ended, "used proofs") == "a DPoP proof is taken once by all PDPs of the store"
    assert (ended.code, states(ended)["used proofs"]) == (0, "ok")


def test_not_ready_is_exit_code_5(pdp: Pdp, healthy: ScriptedPdp, probes: Probes) -> None:
    probes.status, probes.state = 503, READY | {"ready": False, "staleness_s": None, "last_error": "disk full"}
    ended = pdp("doctor", "--server", healthy.address, "--probes", probes.url, "--json")
    assert ended.code == 5
    assert told(ended, "readiness") == "not ready; world 7, last error disk full"


@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_a_wrong_clock_is_told(pdp: Pdp, healthy: ScriptedPdp, probes: Probes, skew_s: float) -> None:
    probes.skew_s = skew_s
    ended = pdp("doctor", "--server", healthy.address, "--probes", probes.url, "--json")
    assert states(ended)["clock"] == "error"
    assert re.search(r"about (3599|3600|3601) s", told(ended, "clock"))


def test_unreachable_probes_are_a_warning(pdp: Pdp, healthy: ScriptedPdp) -> None:
    ended = pdp("doctor", "--server", healthy.address, "--probes", "http://127.0.0.1:1", "--json")
    assert (ended.code, states(ended)["readiness"]) == (0, "warning")
    assert states(pdp("doctor", "--probes", "ftp://x", "--json"))["readiness"] == "warning"
    ended = pdp("doctor", "--probes", f"http://{healthy.address}", "--json")  # gRPC's own port
    assert told(ended, "readiness").endswith("what answers there is no HTTP")


def test_nobody_there_is_exit_code_5_and_ends_the_questions(pdp: Pdp, fresh: Path) -> None:
    assert fresh.exists()
    ended = pdp("doctor", "--server", "127.0.0.1:1", "--json")
    assert (ended.code, states(ended)["connection"]) == (5, "error")
    assert "credential" not in states(ended)
    assert "is `pdp serve` running there" in pdp("doctor", "--server", "127.0.0.1:1").out


def test_an_expired_token_is_exit_code_4(pdp: Pdp, healthy: ScriptedPdp, probes: Probes, fresh: Path) -> None:
    fresh.write_text(token(sub="user:ada", iss="https://issuer", exp=time.time() - 600))
    healthy.script("DecisionService/Evaluate", refusal(grpc.StatusCode.UNAUTHENTICATED, "token_expired"))
    ended = pdp("doctor", "--probes", probes.url, "--json")
    assert ended.code == 4
    assert "it expired 10 minutes ago" in told(ended, "token")
    assert told(ended, "credential") == "told: token_expired"
    assert "enforcement points" not in states(ended)  # they would say the same again
    assert "docs/reason-codes.md says what to do for `token_expired`" in pdp("doctor", "--probes", probes.url).out
    fresh.write_text(token(sub="user:ada", iss="https://issuer", exp=time.time() - 1))
    assert states(pdp("doctor", "--probes", probes.url, "--json"))["token"] == "warning"  # clocks are forgiven as much


def test_a_token_file_that_is_not_there_is_told_once(pdp: Pdp, healthy: ScriptedPdp, probes: Probes) -> None:
    ended = pdp("doctor", "--server", healthy.address, "--probes", probes.url, "--token-file", "nowhere", "--json")
    assert ended.code == 4
    assert "cannot read the token file nowhere" in told(ended, "token")
    assert not states(ended).keys() & {"credential", "enforcement points"}


@pytest.mark.holds("F13")
def test_a_token_from_the_future_means_a_wrong_clock(
    pdp: Pdp, healthy: ScriptedPdp, probes: Probes, fresh: Path
) -> None:
    fresh.write_text(token(sub="user:ada", iss="i", iat=time.time() + 900, exp=time.time() + 1800))
    ended = pdp("doctor", "--server", healthy.address, "--probes", probes.url, "--json")
    assert states(ended)["token"] == "warning"


def test_a_denied_caller_is_told_which_right_is_missing(pdp: Pdp, healthy: ScriptedPdp, probes: Probes) -> None:
    healthy.script("DecisionService/Evaluate", decision_pb2.EvaluateResponse(decision=denial()))
    healthy.script("ReplicationService/ListReplicas", refusal(grpc.StatusCode.PERMISSION_DENIED, "no_grant"))
    ended = pdp("doctor", "--probes", probes.url, "--json")
    assert (ended.code, states(ended)["enforcement points"]) == (3, "skipped")
    assert "decision.ask" in next(found["advice"] for found in ended.json if found["check"] == "credential")


def test_late_enforcement_points_are_named(pdp: Pdp, healthy: ScriptedPdp, probes: Probes) -> None:
    late = replication_pb2.ReplicaStatus(identity="workload:late", seq=5, connected=True)
    gone = replication_pb2.ReplicaStatus(identity="workload:gone", seq=5)
    answer = replication_pb2.ListReplicasResponse(replicas=[late, gone], head_seq=7)
    healthy.script("ReplicationService/ListReplicas", answer)
    ended = pdp("doctor", "--probes", probes.url, "--json")
    assert ended.code == 0
    assert "behind: workload:late; not connected: workload:gone" in told(ended, "enforcement points")


def test_a_server_of_another_authority_is_told_by_name(
    pdp: Pdp, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fresh.exists()
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    credentials = grpc.ssl_server_credentials([(leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())])
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with ScriptedPdp(credentials) as server:
        server.script("DecisionService/Evaluate", evaluated())
        monkeypatch.setenv("PDP_SERVER", server.address)
        refused = pdp("doctor", "--ca", tmp_path / "other.pem", "--json")
        accepted = pdp("doctor", "--ca", tmp_path / "ca.pem", "--json")
    assert (refused.code, states(refused)["connection"]) == (5, "error")
    assert "certificate is not accepted" in told(refused, "connection")
    assert states(accepted)["connection"] == "ok"
    assert "the server's certificate is good for" in told(accepted, "connection")


@pytest.mark.parametrize("content", ["no-jwt", "a.b.c", "e30.W10.x"])
def test_a_token_that_cannot_be_read_is_a_warning(
    pdp: Pdp, healthy: ScriptedPdp, probes: Probes, fresh: Path, content: str
) -> None:
    fresh.write_text(content)
    ended = pdp("doctor", "--server", healthy.address, "--probes", probes.url, "--json")
    assert states(ended)["token"] == "warning"


@pytest.mark.parametrize("server", ["", "nowhere", "127.0.0.1:http"])
def test_an_address_that_is_none_is_exit_code_2(pdp: Pdp, server: str) -> None:
    ended = pdp("doctor", "--server", server, "--probes", "http://127.0.0.1:1")
    assert ended.code == 2
