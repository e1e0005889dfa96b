"""What a Store knows of versions: runs that are tied to one, and how many unfinished runs each has."""

from __future__ import annotations

from collections.abc import Mapping

from outlive import hooks
from outlive.model.reads import VersionRow
from outlive.model.writes import Fence
from outlive.store.postgres.database import Database
from outlive.store.refusals import FenceLost


class Versions(Database):
    """The versions of a Store."""

    @hooks.commit_site("pin")
    async def pin(self, fence: Fence, versions: Mapping[int, str]) -> None:
        rows, texts = list(versions), list(versions.values())
        ((fenced,),) = await self._write("pin_runs", worker=fence.worker, epoch=fence.epoch, rows=rows, versions=texts)
        if not fenced:
            raise FenceLost(fence)

    async def count_versions(self, workflow: str | None) -> list[VersionRow]:
        return [VersionRow(**row) for row in await self._read("count_versions", workflow=workflow)]
