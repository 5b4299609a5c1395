"""State directories of a server's workers: each has one of its own, and a free one is taken again."""

from pathlib import Path
from unittest.mock import patch

import pytest

from pdp.errors import ConfigError
from sidecar.asgi_door import claimed
from sidecar.limits import SidecarLimits


def test_each_worker_has_a_directory_of_its_own_and_a_freed_one_is_taken_again(tmp_path: Path) -> None:
    first, held = claimed(tmp_path)
    second, other = claimed(tmp_path)
    assert (first, second) == (tmp_path, tmp_path / "worker-1")
    assert second.stat().st_mode & 0o777 == 0o700
    held.close()
    again, third = claimed(tmp_path)
    assert again == tmp_path
    other.close()
    third.close()


def test_more_workers_than_there_can_be_are_refused(tmp_path: Path) -> None:
    with patch("sidecar.asgi_door.LIMITS", SidecarLimits(workers=1)):
        _, held = claimed(tmp_path)
        with pytest.raises(ConfigError, match="more than 1 workers"):
            claimed(tmp_path)
    held.close()
