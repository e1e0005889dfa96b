"""Databases for what only SQLite has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Database


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Database:
    """A file, through the standard library."""
    return Database("sqlite", f"sqlite:///{tmp_path / 'test.db'}")


@pytest.fixture
def apsw_file(tmp_path: Path) -> Database:
    """A file, through apsw."""
    return Database("sqlite-apsw", f"sqlite:///{tmp_path / 'test.db'}?driver=apsw")


@pytest.fixture(params=["sqlite", "sqlite-memory", "sqlite-apsw"])
def any_sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Each kind of SQLite."""
    urls = {"sqlite": f"sqlite:///{tmp_path / 'test.db'}", "sqlite-memory": "sqlite://"}
    return Database(request.param, urls.get(request.param, f"sqlite:///{tmp_path / 'test.db'}?driver=apsw"))
