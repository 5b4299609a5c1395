import stat
from pathlib import Path

import pytest

from pdp.adapters.keys_files import (
    ROOT_FILE,
    ensure_key,
    key_path,
    load_key,
    load_pdp_keys,
    load_root,
    save_root,
    write_durably,
)
from pdp.errors import ConfigError
from pdp.trust.keys import Role
from tests.support.logs import Authority


def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    first = ensure_key(tmp_path, Role.PUBLISH)
    assert ensure_key(tmp_path, Role.PUBLISH).key_id == first.key_id
    assert stat.S_IMODE(key_path(tmp_path, Role.PUBLISH).stat().st_mode) == 0o600
    assert stat.S_IMODE(key_path(tmp_path, Role.PUBLISH).parent.stat().st_mode) == 0o700


def test_a_key_open_to_others_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    ensure_key(tmp_path, Role.PUBLISH)
    path = key_path(tmp_path, Role.PUBLISH)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(path)


def test_a_missing_key_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pdp init"):
        load_pdp_keys(tmp_path)


def test_a_key_that_is_a_directory_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.mkdir(mode=0o700)
    with pytest.raises(ConfigError):
        load_key(path)


def test_the_root_file_survives_and_damage_is_noticed(tmp_path: Path) -> None:
    assert load_root(tmp_path) is None
    root = Authority().root()
    save_root(tmp_path, root)
    assert load_root(tmp_path) == root
    (tmp_path / ROOT_FILE).write_bytes(root.raw[:-9])
    with pytest.raises(ConfigError, match="backup"):
        load_root(tmp_path)


@pytest.mark.holds("S4")
def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_durably(tmp_path / "a", b"one", mode=0o644)
    write_durably(tmp_path / "a", b"two", mode=0o644)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"two"
    with pytest.raises(ConfigError):
        write_durably(tmp_path / "none" / "a", b"", mode=0o644)
