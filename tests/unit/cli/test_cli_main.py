import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import pdp as package
from pdp.cli import app, main
from pdp.errors import MEANINGS, ConfigError, PortcullisError, Reason

Pdp = Callable[..., Any]


def spawn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pdp", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_help_lists_every_noun(pdp: Pdp) -> None:
    ended = pdp("--help")
    assert ended.code == 0
    assert all(noun in ended.out for noun in app.NOUNS)


def test_version(pdp: Pdp) -> None:
    assert pdp("--version").out.strip() == package.__version__


def test_pdp_alone_shows_help_and_is_bad_usage() -> None:
    ended = spawn()
    assert ended.returncode == 2
    assert "Usage" in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("check",),
        ("check", "a", "b", "--nonsense"),
        ("lock", "add", "user:a"),
        ("audit", "tail", "-n", "0"),
    ],
)
def test_bad_usage_is_one_line_that_says_where_help_is(pdp: Pdp, arguments: tuple[str, ...]) -> None:
    ended = pdp(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("pdp: ")
    assert "--help` shows how" in ended.err


def loaded_after(program: str) -> set[str]:
    script = f"import sys; {program}; print(*sys.modules, file=sys.stderr)"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30, env=os.environ
    )
    return set(ended.stderr.split())


def test_help_imports_no_command() -> None:
    loaded = loaded_after("from pdp.cli.main import run; run(['--help'])")
    assert "typer" in loaded
    assert not loaded & {"grpc", "pdp.sdk", "pdp.engine", "sklearn", "cryptography", "pydantic"}


def test_only_what_runs_a_pdp_imports_a_server() -> None:
    others = ", ".join(f"pdp.cli.{noun.module}" for noun in app.NOUNS.values() if noun.module not in {"serve", "token"})
    loaded = loaded_after(f"import {others}")
    assert "pdp.sdk" in loaded
    assert not loaded & {"pdp.server.app", "uvicorn", "starlette", "prometheus_client", "httpx", "structlog"}


@pytest.mark.parametrize("command", ["check", "explain", "replicas", "doctor"])
def test_every_command_teaches_with_an_example(pdp: Pdp, command: str) -> None:
    assert f"pdp {command}" in " ".join(pdp(command, "--help").out.split())


@pytest.mark.parametrize(
    "noun", ["policy", "role", "access", "segment", "collection", "break-glass", "asset", "lock", "audit"]
)
def test_every_command_of_a_noun_teaches_with_an_example(pdp: Pdp, noun: str) -> None:
    for name in app.load(noun).commands:
        told = " ".join(pdp(noun, name, "--help").out.split())
        assert f"Example: pdp {noun} {name}" in told


# The boundary.


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(app, "invoke", fail)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_exit_code(pdp: Pdp, monkeypatch: pytest.MonkeyPatch, reason: Reason) -> None:
    failing(monkeypatch, PortcullisError(reason, "told", advice="do this"))
    ended = pdp()
    assert ended.code == (MEANINGS[reason].exit_code or 1)
    assert ended.err == f"pdp: {reason}: told; do this\n"


def test_a_defect_is_told_in_a_line_without_a_traceback(pdp: Pdp, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, RuntimeError("two\nlines"))
    ended = pdp()
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "internal_error: RuntimeError: two lines" in ended.err
    assert "PDP_DEBUG=1" in ended.err


def test_pdp_debug_shows_the_traceback(pdp: Pdp, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, RuntimeError("here"))
    monkeypatch.setenv("PDP_DEBUG", "1")
    assert "Traceback" in pdp().err


def test_ctrl_c_is_130(pdp: Pdp, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert pdp().code == 130


def test_a_missing_dependency_names_the_extra() -> None:
    error = main.missing("`pdp serve`", ModuleNotFoundError("no", name="uvicorn.protocols"))
    assert isinstance(error, ConfigError)
    assert "`uvicorn`" in str(error)
    assert "portcullis[server]" in str(error)
    ours = ModuleNotFoundError("no", name="pdp.nonsense")
    assert main.missing("`pdp serve`", ours) is ours


@pytest.mark.parametrize(
    ("program", "extra", "code", "lines"),
    [
        ("from pdp.cli.main import run; sys.exit(run(['check']))", "server", 2, 1),
        ("from sidecar.__main__ import main; main()", "sidecar", 2, 1),
        ("sys.tracebacklimit = 0; from pdp.sdk import LocalClient", "server", 1, None),
    ],
)
def test_with_a_client_alone_everything_else_says_what_to_install(
    program: str, extra: str, code: int, lines: int | None
) -> None:
    bare = "import sys; sys.modules['typer'] = sys.modules['re2'] = None; "
    ended = subprocess.run(
        [sys.executable, "-c", bare + program], capture_output=True, text=True, check=False, timeout=30, env=os.environ
    )
    assert ended.returncode == code
    assert f"install it with `pip install 'portcullis[{extra}]'`" in ended.stderr
    assert lines is None or ended.stderr.count("\n") == lines


def test_a_process_exits_with_the_code() -> None:
    assert spawn("check", "a", "b").returncode == 2
    unreachable = spawn("check", "dataset.read", "dataset/x", PDP_SERVER="127.0.0.1:1")
    assert unreachable.returncode == 5
    assert unreachable.stderr.startswith("pdp: pdp_unreachable: 127.0.0.1:1: the PDP cannot be reached")
    assert unreachable.stderr.count("\n") == 1


def test_ctrl_c_on_a_process_is_130(server: Any) -> None:
    server.script("AuditService/Read", [server.hang])
    environment = os.environ | {"PDP_SERVER": server.address}
    command = [sys.executable, "-m", "pdp", "audit", "tail", "-f"]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert server.hanging.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")
