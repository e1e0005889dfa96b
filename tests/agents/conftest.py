"""Every test of agents runs on both stores; no model outside this process is ever asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_ai import models

from tests.support.postgres import shared_server

models.ALLOW_MODEL_REQUESTS = False


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    url = shared_server().migrated_database()
    yield url
    shared_server().take_back(url)
