import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pdp.cli.main import run
from pdp.cli.token import WARNING
from pdp.identity.development import DevelopmentIssuer
from pdp.identity.development import issue as sign_token
from tests.support.tokens import proof

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PDP_MODE", raising=False)
    monkeypatch.delenv("PDP_CONFIG", raising=False)


def init(*more: str) -> None:
    assert run(["token", "init", *more]) == 0


def issue(capture: Capture, *more: str) -> str:
    capture.readouterr()
    assert run(["token", "issue", "--sub", "alice@example.com", *more]) == 0
    return capture.readouterr().out.strip()


def inspect(capture: Capture, monkeypatch: pytest.MonkeyPatch, text: str, *more: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    capture.readouterr()
    code = run(["token", "inspect", "--trust", "dev-issuer/trust.yaml", *more, "-"])
    return code, capture.readouterr().out


def reports(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("alg", ["ES256", "RS256", "EdDSA"])
def test_an_issued_token_is_accepted(capsys: Capture, monkeypatch: pytest.MonkeyPatch, alg: str) -> None:
    init("--alg", alg)
    compact = issue(capsys, "--groups", "a,b", "--groups", "c", "--ttl", "10m", "--claim", "sid=s1")
    code, out = inspect(capsys, monkeypatch, compact, "--json")
    (report,) = reports(out)
    assert code == 0
    assert (report["accepted"], report["reason"], report["principal"]) == (True, "", "user:alice@example.com")
    assert report["groups"] == ["group:a", "group:b", "group:c"]
    assert report["claims"]["exp"] - report["claims"]["iat"] == 600
    assert report["claims"]["sid"] == "s1"


def test_only_the_token_is_on_stdout_and_the_warning_is_on_stderr(capsys: Capture) -> None:
    init()
    captured = capsys.readouterr()
    assert WARNING in captured.err
    assert run(["token", "issue", "--sub", "a"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.split()) == 1
    assert captured.out.count(".") == 2
    assert captured.err.strip() == WARNING


def test_a_negative_life_is_an_expired_token(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    init()
    assert run(["token", "issue", "--sub", "a", "--ttl", "-5m", "--output", "expired.token"]) == 0
    assert Path("expired.token").stat().st_mode & 0o777 == 0o600
    code, out = inspect(capsys, monkeypatch, Path("expired.token").read_text(encoding="utf-8"), "--json")
    assert code == 4
    assert reports(out)[0]["reason"] == "token_expired"


def test_the_key_is_its_owners_alone_and_never_overwritten(capsys: Capture) -> None:
    init()
    assert Path("dev-issuer/issuer.pem").stat().st_mode & 0o777 == 0o600
    before = Path("dev-issuer/issuer.pem").read_bytes()
    assert run(["token", "init"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert Path("dev-issuer/issuer.pem").read_bytes() == before
    assert "PRIVATE" not in Path("dev-issuer/jwks.json").read_text(encoding="utf-8")


def test_inspect_says_why_and_prints_nothing_that_could_be_used(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    init()
    good = issue(capsys)
    spoiled = good[:-4] + ("AAAA" if not good.endswith("AAAA") else "BBBB")
    for more in ([], ["--json"]):
        code, out = inspect(capsys, monkeypatch, f"{good}\r\nBearer {good}\nnonsense\n{spoiled}\n\n", *more)
        assert code == 4
        assert good not in out
        assert good.rpartition(".")[2] not in out
        for told in ("token_malformed", "signature_invalid", "credential_missing", "alice@example.com"):
            assert told in out
    assert [report["accepted"] for report in reports(out)] == [True, True, False, False, False]


def test_a_terminal_is_not_steered_by_a_token(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    init()
    compact = issue(capsys, "--claim", "note=\x1b[2J")
    _, out = inspect(capsys, monkeypatch, compact)
    assert "\x1b" not in out
    assert "note" in out


def test_tokens_are_not_taken_from_the_command_line(capsys: Capture) -> None:
    init()
    assert run(["token", "inspect", "--trust", "dev-issuer/trust.yaml", "eyJ.e30.x"]) == 2
    assert "standard input" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["init", "--dir", "other"], ["issue", "--sub", "a"]])
@pytest.mark.parametrize("where", ["option", "environment", "file", "file-without-mode", "named-file"])
def test_it_refuses_to_run_in_production(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: list[str], where: str
) -> None:
    init()
    arguments = ["token", *command]
    if where == "option":
        arguments += ["--mode", "production"]
    elif where == "environment":
        monkeypatch.setenv("PDP_MODE", "production")
    else:
        name = "site.yaml" if where == "named-file" else "pdp.yaml"
        Path(name).write_text(
            "tenant: main\n" if where == "file-without-mode" else "mode: production\n", encoding="utf-8"
        )
        arguments += ["--config", name] if where == "named-file" else []
    capsys.readouterr()
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "does not run in production" in captured.err
    assert not Path("other").exists()


def test_it_signs_only_for_a_table_that_says_development(capsys: Capture) -> None:
    init()
    path = Path("dev-issuer/trust.yaml")
    path.write_text(path.read_text(encoding="utf-8").replace("development: true", ""), encoding="utf-8")
    capsys.readouterr()
    assert run(["token", "issue", "--sub", "a"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "development: true" in captured.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["issue", "--sub", "user:a"], "without its kind"),
        (["issue", "--sub", "a", "--ttl", "soon"], "not a duration"),
        (["issue", "--sub", "a", "--dir", "nowhere"], "pdp token init"),
        (["init", "--dir", "x", "--alg", "HS256"], "ES256, RS256, EdDSA"),
    ],
)
def test_bad_usage_is_one_line_that_says_what_to_do(capsys: Capture, arguments: list[str], told: str) -> None:
    init()
    capsys.readouterr()
    assert run(["token", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in captured.err.strip().splitlines()[-1]


def test_keys_rotate_with_overlap_and_are_withdrawn(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    init()
    first = issue(capsys)
    assert run(["token", "keys", "rotate"]) == 0
    second = issue(capsys)
    assert inspect(capsys, monkeypatch, f"{first}\n{second}\n", "--json")[0] == 0
    assert run(["token", "keys", "rotate", "--withdraw-old"]) == 0
    code, out = inspect(capsys, monkeypatch, f"{first}\n{second}\n{issue(capsys)}\n", "--json")
    assert code == 4
    assert [report["reason"] for report in reports(out)] == ["key_unknown", "key_unknown", ""]
    assert Path("dev-issuer/issuer.pem").stat().st_mode & 0o777 == 0o600


def test_rotate_refuses_production_and_a_set_that_is_none(capsys: Capture) -> None:
    init()
    assert run(["token", "keys", "rotate", "--mode", "production"]) == 2
    Path("dev-issuer/jwks.json").write_text("[]")
    assert run(["token", "keys", "rotate"]) == 2
    assert "not a key set" in capsys.readouterr().err


URL = "https://models.example/v2/models/fraud/infer"


def test_a_proof_is_judged_with_its_token(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    init()
    trust = Path("dev-issuer/trust.yaml")
    trust.write_text(trust.read_text().replace("    kind: user", "    kind: user\n    cnf_kinds: [jkt]"))
    key = DevelopmentIssuer.generate()
    cnf = json.dumps({"jkt": key.public_jwk["kid"]})
    compact = bound_to(cnf)
    good = proof(compact, by=key, iat=int(time.time()), htu=URL)
    shown = ["--proof", good, "--method", "POST", "--url", URL, "--json"]
    code, out = inspect(capsys, monkeypatch, compact, *shown)
    assert (code, reports(out)[0]["accepted"]) == (0, True), out
    for more, reason in (
        (["--json"], "binding_required"),
        ([*shown[:3], "GET", *shown[4:]], "dpop_proof_invalid"),
        (["--proof", good[:-2], *shown[2:]], "dpop_proof_invalid"),
    ):
        code, out = inspect(capsys, monkeypatch, compact, *more)
        assert (code, reports(out)[0]["reason"]) == (4, reason)
    assert inspect(capsys, monkeypatch, compact, "--proof", good)[0] == 2
    assert good not in out


def bound_to(cnf: str) -> str:
    signer = DevelopmentIssuer.from_pem(Path("dev-issuer/issuer.pem").read_bytes())
    return sign_token(signer, sub="alice", jti="1", now_s=int(time.time()), claims={"cnf": json.loads(cnf)})
