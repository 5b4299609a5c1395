"""How often a law is tried: a few hundred worlds in `make test`; in `make test-all`, which sets `LAWS=deep`, many times that."""

import os

from hypothesis import HealthCheck, settings

DEEP = os.environ.get("LAWS") == "deep"
_TIMES = 20
"""How many times as many cases the deep profile tries; general models have 100,000 seeds of their own (test_general_laws.py)."""


def tries(count: int) -> settings:
    """Return settings for a law that the quick profile tries `count` times."""
    return settings(
        max_examples=count * (_TIMES if DEEP else 1),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
