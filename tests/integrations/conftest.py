"""Databases of both kinds, and server processes that end with their test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integrations.servers import Servers
from tests.support.postgres import shared_server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'shop.db'}"
        return
    server = shared_server()
    fresh = server.migrated_database()
    yield fresh
    server.drop_database(fresh)


@pytest.fixture
def servers(url: str, tmp_path: Path) -> Iterator[Servers]:
    with Servers(url, tmp_path) as servers:
        yield servers
