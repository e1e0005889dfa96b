"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.solo import Solo


@pytest.fixture
def solo() -> Iterator[Solo]:
    """Plays single runs without a database and without real time."""
    with Solo() as solo:
        yield solo
