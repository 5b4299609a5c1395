import json
import sys
from pathlib import Path

import pytest

from sidecar.cli import main


@pytest.fixture
def routes(tmp_path: Path) -> str:
    path = tmp_path / "routes.yaml"
    path.write_text("served: {fraud: {resource: endpoint/fraud-prod, model: model/fraud@12}}")
    return str(path)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pdp-sidecar", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_config_prints_what_envoy_would_be_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], routes: str
) -> None:
    assert call(monkeypatch, "config", "--upstream", "http://127.0.0.1:8080", "--routes", routes) == 0
    assert json.loads(capsys.readouterr().out)["static_resources"]["listeners"]


RUN = ("run", "--upstream", "http://127.0.0.1:1", "--pdp", "127.0.0.1:8181", "--root-digest", "0" * 64)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no credential"),
        (("--cert", "{tmp}/none.pem", "--key", "{tmp}/none.key"), "--cert: cannot read"),
        (("--pdp-token-file", "{routes}"), "--pdp-ca is missing"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--listen", "9081"), "HOST:PORT"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--tls-cert", "{routes}"), "--tls-key"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--root-digest", "abc"), "--root-digest"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--upstream", "model"), "--upstream"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--routes", "{tmp}/none.yaml"), "--routes"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext"), "trust.yaml"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--state-dir", "{tmp}/" + "d" * 100), "shorter"),
        (("--pdp-token-file", "{routes}", "--pdp-plaintext", "--state-dir", "/proc/none"), "--state-dir"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(  # noqa: PLR0917 - fixtures and one row
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    routes: str,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    given = [one.replace("{tmp}", str(tmp_path)).replace("{routes}", routes) for one in arguments]
    defaults = ["--routes", routes, "--trust", str(tmp_path / "trust.yaml"), "--state-dir", str(tmp_path / "s")]
    assert call(monkeypatch, *RUN, *defaults, "--probes", "127.0.0.1:0", *given) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("pdp-sidecar: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("config", "--upstream", "http://127.0.0.1:1", "--routes", "{bad}"), "nested too deeply"),
        (("doctor", "--ca", "{bad}"), "--ca, --cert, --key"),
        (("doctor", "--model-ports", "99999"), "--model-ports"),
    ],
)
def test_rubbish_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    bad = tmp_path / "bad"
    bad.write_text("served: " + "[" * 20_000)
    assert call(monkeypatch, *(one.replace("{bad}", str(bad)) for one in arguments)) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
