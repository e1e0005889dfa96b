"""Every engine test runs on both stores, through the public API."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.postgres import shared_server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "postgres":
        return shared_server().migrated_database()
    return f"sqlite:///{tmp_path / 'test.db'}"
