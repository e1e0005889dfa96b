"""What a Store knows of versions: runs that are tied to one, and how many unfinished runs each has."""

from __future__ import annotations

from collections.abc import Mapping

from outlive.hooks import commit_site
from outlive.model.reads import VersionRow
from outlive.model.writes import Fence
from outlive.store.sqlite.batch import SQL, check_fence
from outlive.store.sqlite.database import Database, reading, writing
from outlive.store.sqlite.drivers import Connection


class Versions(Database):
    """The versions of a Store."""

    @commit_site("pin")
    @writing
    def pin(self, db: Connection, fence: Fence, versions: Mapping[int, str]) -> None:
        check_fence(db, fence)
        given = [{"row": row, "version": version, "worker": fence.worker} for row, version in versions.items()]
        db.many(SQL["pin_runs"], given)
        db.many(SQL["pin_live"], given)

    @reading
    def count_versions(self, db: Connection, workflow: str | None) -> list[VersionRow]:
        found = db.rows(SQL["count_versions"], {"workflow": workflow, "now": self._wall()})
        return [VersionRow(name, version, bool(pinned), *rest) for name, version, pinned, *rest in found]
