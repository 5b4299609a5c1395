"""The systemd units run our commands with options that exist, confined; where systemd is here, it reads them itself."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.deploy import DEPLOY, accepted

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
CONFINED = {
    *("DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "ProtectKernelTunables"),
    *("ProtectKernelModules", "ProtectControlGroups", "RestrictSUIDSGID", "LockPersonality", "RestrictNamespaces"),
}
named = pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)


def service(path: Path) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # systemd tells capitals apart
    parser.read_string(path.read_text().replace("\\\n", " "))
    return parser["Service"]


def test_there_is_one_for_each_server() -> None:
    assert {path.stem for path in UNITS} == {"pdp", "pdp-sidecar"}


@named
def test_its_command_line_is_one_that_our_command_reads(path: Path) -> None:
    line = shlex.split(service(path)["ExecStart"])
    assert Path(line[0]).name == path.stem
    told = accepted(line)
    state = f"/var/lib/{service(path)['StateDirectory']}/"
    assert str(told["state_dir"]).startswith(state)


@named
def test_every_variable_in_its_command_line_is_explained_in_its_head(path: Path) -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)\}", service(path)["ExecStart"])) - {"CREDENTIALS_DIRECTORY"}
    assert used == set(re.findall(r"^#   ([A-Z_]+)=", path.read_text(), re.MULTILINE))


@named
def test_it_can_write_nothing_but_its_state_and_gains_no_privilege(path: Path) -> None:
    found = service(path)
    assert {name for name in CONFINED if found[name] != "yes"} == set()
    assert (found["ProtectSystem"], found["CapabilityBoundingSet"], found["UMask"]) == ("strict", "", "0077")


@named
def test_systemd_reads_it(path: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze on this machine")
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace(f"/opt/portcullis/bin/{path.stem} ", "/bin/true "))
    result = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
