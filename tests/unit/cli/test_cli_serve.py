"""`pdp init` and `pdp serve`: every mistake is one line that says what to do, and the documented exit code."""

import asyncio
import shutil
from pathlib import Path

import pytest

from pdp.adapters.pack_files import read_pack
from pdp.cli.main import run
from tests.support.pdp import ADA, PACK, initialised

INIT = ("init", "--pack", str(PACK), "--admin", f"user:{ADA}")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_init_makes_a_pdp_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(INIT) == 0
    first = capsys.readouterr().out
    assert first.startswith("initialised state at world 1\nroot digest ")
    assert "move state/keys/root.pem to a place that is offline" in first
    assert "next: `pdp serve`" in first
    assert (here / "state" / "root.json").exists()
    assert run(INIT) == 0
    assert capsys.readouterr().out.startswith("already initialised: state at world 1\n")


def test_a_starter_pack_is_written_once_and_never_over_what_is_here(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(("init", "--admin", f"user:{ADA}")) == 0
    assert capsys.readouterr().out.startswith("wrote the starter pack to policies; it is yours to edit\n")
    (here / "policies" / "grants.csv").write_text("p, role:\n")
    assert "grants.csv:1:1" in refused(capsys, "init", "--admin", f"user:{ADA}", "--state-dir", "other")
    shutil.rmtree(here / "policies")
    assert "policies is not a directory" in refused(capsys, "init", "--admin", f"user:{ADA}")


def test_a_starter_pack_is_never_written_over_another(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("policy", "new", "mine")) == 0
    assert read_pack(here / "mine") == read_pack(PACK)
    capsys.readouterr()
    assert "cannot write the starter pack to mine: File exists" in refused(capsys, "policy", "new", "mine")
    (here / "policies").symlink_to("nowhere/else")
    assert "cannot write the starter pack to policies" in refused(capsys, "init", "--admin", f"user:{ADA}")


def test_a_broken_pack_is_refused_whole_with_every_finding(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(initialised(here))
    (here / "pack" / "people.csv").write_text("g, user:x\ng, user:y\n")
    said = refused(capsys, "init", "--pack", "pack", "--admin", f"user:{ADA}", "--state-dir", "new")
    lines = said.splitlines()
    assert [line.split(" ")[:2] for line in lines[:2]] == [["people.csv:1:1:", "PC113"], ["people.csv:2:1:", "PC113"]]
    assert lines[2].startswith("pdp: policy_refused: the pack is refused: 2 errors")
    assert not (here / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--state-dir", "nothing"), "nothing holds no PDP yet; run `pdp init`"),
        (("--init",), "--init needs a first administrator; give --admin"),
        (("--init", "--admin", "bob", "--pack", str(PACK)), "a principal is `user:<id>`"),
        (("--init", "--admin", "user:bob", "--pack", "nowhere"), "nowhere is not a directory"),
        (("--trust", "nowhere.yaml"), "nowhere.yaml: No such file or directory"),
        (("--mode", "production"), "needs TLS"),
        (("--listen", "0.0.0.0:1"), "needs TLS"),
        (("--listen", "nonsense"), "command line: `grpc.listen`: an address is HOST:PORT"),
        (("--config", "nowhere.yaml"), "cannot read the configuration nowhere.yaml"),
        (("--mode", "test"), "`mode`"),
        (("--tls-cert", "nope.pem", "--tls-key", "nope.pem"), "cannot read nope.pem"),
    ],
)
def test_a_mistake_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    asyncio.run(initialised(here))
    usual = ("serve", "--mode", "development", "--probes", "127.0.0.1:0", "--listen", "127.0.0.1:0")
    said = refused(capsys, *usual, *arguments)
    (line,) = said.splitlines()
    assert told in line


def test_the_file_is_read_and_its_mistakes_have_a_place(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "pdp.yaml").write_text("mode: development\nprobes:\n  lisen: 127.0.0.1:0\n")
    assert "pdp.yaml:3: `probes.lisen` is not a known key; do you mean `listen`?" in refused(capsys, "serve")
    (here / "pdp.yaml").write_text("mode: development\nmode: production\n")
    assert "pdp.yaml:2: `mode` stands twice" in refused(capsys, "serve")
