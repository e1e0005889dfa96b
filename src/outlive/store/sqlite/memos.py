"""What all processes of a store may know for a while, by name: what a Store does for memos.

No state of a run depends on a memo. Invariant: of several that want to make a
value, one does, until he has made it, has given up, or is dead.
"""

from __future__ import annotations

from outlive.hooks import commit_site
from outlive.limits import MEMOS_FORGOTTEN
from outlive.model.reads import Memo
from outlive.model.writes import Fence
from outlive.store.sqlite.batch import SQL
from outlive.store.sqlite.database import Database, reading, writing
from outlive.store.sqlite.drivers import Connection


class Memos(Database):
    """What a Store does for memos."""

    @reading
    def read_memo(self, db: Connection, name: str) -> Memo | None:
        found = db.rows(SQL["read_memo"], {"name": name, "now": self._wall()})
        return Memo(*found[0]) if found else None

    @commit_site("take_memo")
    @writing
    def take_memo(self, db: Connection, name: str, maker: str, fence: Fence, for_s: float) -> bool:
        who = {"maker": maker, "worker": fence.worker, "epoch": fence.epoch}
        return bool(db.rows(SQL["take_memo"], {"name": name, **who, "for_s": for_s, "now": self._wall()}))

    @commit_site("put_memo")
    @writing
    def put_memo(self, db: Connection, name: str, maker: str, value: str | None, for_s: float) -> None:
        now = self._wall()
        db.run(SQL["put_memo"], {"name": name, "maker": maker, "value": value, "for_s": for_s, "now": now})
        db.run(SQL["forget_memos"], {"now": now, "limit": MEMOS_FORGOTTEN})
