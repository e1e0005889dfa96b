"""Databases of both kinds, and server processes that end with their test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integrations.servers import Servers
from tests.support.evidence import Evidence, file_module
from tests.support.postgres import shared_server


def _urls(kind: str, folder: Path, *, migrated: bool) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'shop.db'}"
        return
    server = shared_server()
    fresh = server.migrated_database() if migrated else server.fresh_database()
    yield fresh
    server.take_back(fresh)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield from _urls(request.param, tmp_path, migrated=True)


@pytest.fixture(params=["sqlite", "postgres"])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a schema."""
    yield from _urls(request.param, tmp_path, migrated=False)


@pytest.fixture
def servers(url: str, tmp_path: Path) -> Iterator[Servers]:
    with Servers(url, tmp_path) as servers:
        yield servers


@pytest.fixture(autouse=True)
def filed(request: pytest.FixtureRequest, evidence: Evidence) -> None:
    """File each test of a soak run."""
    file_module(request, evidence, "integrations")
