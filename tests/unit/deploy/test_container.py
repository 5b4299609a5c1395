"""The container file copies what is there, installs by hash, is not root, and starts commands that exist."""

import json
import re
import tomllib
from importlib.metadata import entry_points

from tests.support.deploy import DEPLOY, ROOT, accepted

FILE = (DEPLOY / "container" / "Containerfile").read_text()
LINES = re.sub(r"\\\n", " ", FILE).splitlines()


def instructions(name: str) -> list[str]:
    return [line.removeprefix(name).strip() for line in LINES if line.startswith(f"{name} ")]


def test_what_it_copies_is_in_the_checkout_and_not_kept_from_the_build() -> None:
    ignored = (DEPLOY / "container" / "Containerfile.dockerignore").read_text().splitlines()
    copied = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert len(copied) > 5
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


def test_it_installs_the_lock_by_hash_and_nothing_else_from_an_index() -> None:
    installs = re.findall(r"pip install ([^&\n]*)", "\n".join(instructions("RUN")))
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert "--no-deps --no-build-isolation" in installs[1]


def test_the_lock_holds_what_servers_need_and_no_tool_of_ours() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements/run.txt").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {re.split(r"[\[<>=;]", each)[0] for name in ("server", "sidecar", "redis") for each in extras[name]}
    assert wanted - {"portcullis"} <= locked
    assert not locked & {"pytest", "hypothesis", "mypy", "ruff", "scikit-learn"}


def test_the_lock_holds_the_versions_that_were_tested() -> None:
    def versions(name: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9-]+==\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    assert versions("run.txt") <= versions("dev.txt")


def test_it_runs_as_a_number_that_is_not_root() -> None:
    (user,) = instructions("USER")
    assert all(int(part) > 0 for part in user.split(":"))


def test_its_command_is_installed_and_read() -> None:
    line = json.loads(instructions("CMD")[0])
    assert line[0] in {entry.name for entry in entry_points(group="console_scripts")}
    assert accepted(line)
