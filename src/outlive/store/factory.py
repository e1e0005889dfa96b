"""Chooses the store of a URL; drivers are imported only where they are used."""

from __future__ import annotations

import random

from outlive.clock import Clock
from outlive.errors import UsageError
from outlive.store.interface import Store


def make_store(url: str, *, clock: Clock, chance: random.Random, pool_size: int) -> Store:
    """Give the store of a URL, not yet opened. UsageError for a URL that names none."""
    if not isinstance(url, str):
        raise UsageError(f"a store URL is text such as 'sqlite:///shop.db', not {url!r}")
    scheme, separator, _ = url.partition("://")
    if separator and scheme == "sqlite":
        from outlive.store.sqlite.store import SqliteStore

        return SqliteStore(url, clock=clock, chance=chance)
    if separator and scheme in ("postgresql", "postgres"):
        from outlive.store.postgres.store import PostgresStore

        return PostgresStore(url, clock=clock, chance=chance, pool_size=pool_size)
    raise UsageError(
        f"{scheme if separator else url!r} is no store URL: use sqlite:///relative.db, sqlite:////absolute.db, "
        "sqlite:// (private, in memory) or postgresql://user@host/database"
    )
