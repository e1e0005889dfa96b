"""What all processes of a store may know for a while, by name: what a Store does for memos.

No state of a run depends on a memo. Invariant: of several that want to make a
value, one does, until he has made it, has given up, or is dead.
"""

from __future__ import annotations

from outlive import hooks
from outlive.limits import MEMOS_FORGOTTEN
from outlive.model.reads import Memo
from outlive.model.writes import Fence
from outlive.store.postgres.database import Database


class Memos(Database):
    """What a Store does for memos."""

    async def read_memo(self, name: str) -> Memo | None:
        found = await self._read("read_memo", name=name)
        return Memo(*found[0]) if found else None

    @hooks.commit_site("take_memo")
    async def take_memo(self, name: str, maker: str, fence: Fence, for_s: float) -> bool:
        who = {"maker": maker, "worker": fence.worker, "epoch": fence.epoch}
        return bool(await self._write("take_memo", name=name, **who, for_s=for_s))

    @hooks.commit_site("put_memo")
    async def put_memo(self, name: str, maker: str, value: str | None, for_s: float) -> None:
        await self._write("put_memo", name=name, maker=maker, value=value, for_s=for_s)
        await self._write("forget_memos", limit=MEMOS_FORGOTTEN)
