"""Settings of every test: the hypothesis profile, and soak tests only at full size.

The order is random; pytest-randomly prints its seed in the header, and
`make test ARGS="-p randomly --randomly-seed=N"` repeats it.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.support.size import FULL, pick

settings.register_profile(
    "outlive",
    deadline=None,  # two cores are shared with a database: time says nothing about a property
    max_examples=pick(small=50, full=1_000),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("outlive")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if FULL:
        return
    skip = pytest.mark.skip(reason="only at full size: make soak")
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(skip)
