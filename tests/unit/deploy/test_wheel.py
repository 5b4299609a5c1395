"""The wheel holds every file that the checkout has, and who has nothing but the wheel can begin."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.deploy import ROOT

PACKAGES = ("pdp", "sidecar")
BUILD = "from setuptools import build_meta; build_meta.build_wheel('wheel')"


def run(*arguments: str, here: Path, **settings: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PDP_")} | settings
    done = subprocess.run(
        [sys.executable, *arguments], cwd=here, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory that holds what the wheel holds, built from a copy: building leaves files in its tree."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "policies"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    run("-c", BUILD, here=source)
    (wheel,) = (source / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def files(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_file_of_the_packages_is_in_the_wheel(installed: Path) -> None:
    for name in PACKAGES:
        assert files(ROOT / name) == {each for each in files(installed / name) if not each.startswith("starter/")}
    assert files(installed / "pdp" / "starter") == files(ROOT / "policies")


@pytest.mark.nightly  # every module is compiled anew, which takes seconds
def test_who_has_only_the_wheel_begins_with_the_starter_pack(installed: Path, tmp_path: Path) -> None:
    said = run("-m", "pdp", "init", "--admin", "user:ada@example.com", here=tmp_path, PYTHONPATH=str(installed))
    assert said.startswith("wrote the starter pack to policies; it is yours to edit\ninitialised state at world 1\n")
    assert files(tmp_path / "policies") == files(ROOT / "policies")
