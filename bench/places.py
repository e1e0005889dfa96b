"""Databases to measure on: a PostgreSQL server with fsync on, and a folder for SQLite files on the same disk.

Each process that is measured gets a database of its own, and a checkpoint is
made before, so that nobody pays for what another one left behind.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import psycopg

from tests.support.postgres import PostgresServer


class Places:
    """The server and the folder; both are gone after the block."""

    def __init__(self) -> None:
        self._server = PostgresServer(fsync=True)
        self._number = 0
        self.folder = Path(tempfile.mkdtemp(prefix="outlive-bench-"))

    def __enter__(self) -> Places:
        try:
            self._server.start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def fresh(self, store: str) -> str:
        """Give the URL of a new, empty database."""
        self._number += 1
        if store == "sqlite":
            (self.folder / str(self._number)).mkdir()
            return f"sqlite:///{self.folder}/{self._number}/bench.db"
        url = self._server.fresh_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("checkpoint")
        return url

    def drop(self, url: str) -> None:
        """Remove a database."""
        if url.startswith("sqlite"):
            shutil.rmtree(Path(url.removeprefix("sqlite:///")).parent, ignore_errors=True)
        else:
            self._server.take_back(url)

    def versions(self) -> dict[str, str]:
        """Tell the version of the server, and that it flushes."""
        with psycopg.connect(self._server.url()) as connection:
            found = connection.execute(
                "select current_setting('server_version'), current_setting('fsync'),"
                " current_setting('synchronous_commit'), current_setting('wal_sync_method')"
            ).fetchone()
        assert found is not None
        version, fsync, synchronous_commit, method = found
        if fsync != "on" or synchronous_commit != "on":
            raise RuntimeError(f"PostgreSQL has fsync={fsync}, synchronous_commit={synchronous_commit}: no measurement")
        return {"PostgreSQL": f"{version} (fsync on, synchronous_commit on, {method})"}
