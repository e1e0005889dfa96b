"""Tells who waits for the end of a run: at once if it ended here, by polling if elsewhere.

One query for all waits of the process, adaptive, only for runs that this
process does not execute itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container

from outlive.engine.looper import Backoff, Looper
from outlive.model.reads import EndedRun
from outlive.store.interface import Store

log = logging.getLogger("outlive.engine")

OnEnded = Callable[[EndedRun], None]


class Watcher:
    """Waits for ends, keyed by row."""

    def __init__(self, store: Store, local: Container[int], backoff: Backoff) -> None:
        self._store = store
        self._local = local
        self._backoff = backoff
        self._waits: dict[int, list[OnEnded]] = {}
        self._looks: list[Callable[[], None]] = []
        self.looper = Looper("watcher", self._turn)

    def watch(self, row: int, on_ended: OnEnded, on_looked: Callable[[], None] | None = None) -> None:
        """Call back when the run has ended or is held; a held run may call back again.

        `on_looked` is called once, when the store has been asked whether the run had ended before.
        """
        self._waits.setdefault(row, []).append(on_ended)
        if on_looked is not None:
            self._looks.append(on_looked)
        if row not in self._local or on_looked is not None:
            self._backoff.after(True)
            self.looper.wake()

    def forget(self, row: int, on_ended: OnEnded) -> None:
        """Call back no more."""
        waits = self._waits.get(row)
        if waits is not None and on_ended in waits:
            waits.remove(on_ended)
            if not waits:
                del self._waits[row]

    def watched(self, row: int) -> bool:
        """Whether anybody here waits for this run."""
        return row in self._waits

    def ended(self, ended: EndedRun) -> None:
        """Tell all who wait; those who heard of an end wait no more."""
        for on_ended in list(self._waits.get(ended.row, ())):
            try:
                on_ended(ended)
            except Exception:  # a record that cannot be read harms only who waits for it
                log.exception("the end of run %r cannot be told", ended.id)

    async def _turn(self) -> float:
        looks = len(self._looks)
        rows = [row for row in self._waits if row not in self._local]
        found = await self._store.list_ended(rows) if rows else []
        for ended in found:
            self.ended(ended)
        asked, self._looks = self._looks[:looks], self._looks[looks:]
        for on_looked in asked:
            on_looked()
        return self._backoff.after(any(ended.row not in self._waits for ended in found))
