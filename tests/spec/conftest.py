"""In the deep profile a law is tried for minutes: then the tests of this folder have an hour each, and not a minute."""

import pytest

from tests.spec.profiles import DEEP


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if DEEP and "spec" in item.path.parts and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(3_600))
