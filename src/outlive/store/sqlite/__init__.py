"""The SQLite store: one file, one writer thread in each process, no server."""

from outlive.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
