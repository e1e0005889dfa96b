"""Asks the store for what this process waits for: ends of runs, mail, promises, values, streams.

One query for each kind of wait, adaptive, for all of the process together; at
once after a hint of another process or a commit of this one. The end of a run
that is executed here is not asked for: it is told. Invariant: who watches hears
of what was there before he began, since the next turn asks for everything.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container, Hashable, Mapping
from typing import Any, Literal

from outlive.engine.looper import Backoff, Looper
from outlive.limits import FETCH_MAX
from outlive.model.reads import EndedRun
from outlive.store.interface import Store

log = logging.getLogger("outlive.engine")

Kind = Literal["end", "mail", "promise", "value", "stream"]
OnNews = Callable[[Any], None]
Ask = Callable[[list[Any]], Awaitable[Mapping[Any, Any]]]


class Watcher:
    """Who waits for what, by its kind and its key in the store."""

    def __init__(self, store: Store, local: Container[int], backoff: Backoff) -> None:
        self._store = store
        self._local = local
        self._backoff = backoff
        self._waits: dict[Kind, dict[Hashable, list[OnNews]]] = {}
        self._asks: dict[Kind, Ask] = {
            "end": self._ask_ends,
            "mail": lambda wanted: store.list_mail(wanted, FETCH_MAX),
            "promise": store.list_settled,
            "value": store.list_values,
            "stream": lambda wanted: store.list_items(wanted, FETCH_MAX),
        }
        self._looks: list[Callable[[], None]] = []
        self.turns = 0  # begun so far
        self.looper = Looper("watcher", self._turn)

    def watch(self, kind: Kind, key: Hashable, on_news: OnNews, on_looked: Callable[[], None] | None = None) -> None:
        """Call back with what the store has at this key, as often as it is found there.

        `on_looked` is called once, when the store has been asked for what was there before.
        """
        self._waits.setdefault(kind, {}).setdefault(key, []).append(on_news)
        if on_looked is not None:
            self._looks.append(on_looked)
        if kind != "end" or key not in self._local or on_looked is not None:
            self.nudge()

    def forget(self, kind: Kind, key: Hashable, on_news: OnNews) -> None:
        """Call back no more."""
        waits = self._waits.get(kind, {})
        waiting = waits.get(key)
        if waiting is not None and on_news in waiting:
            waiting.remove(on_news)
            if not waiting:
                del waits[key]

    def watched(self, kind: Kind, key: Hashable) -> bool:
        """Whether anybody here waits for this."""
        return key in self._waits.get(kind, ())

    def look(self, on_looked: Callable[[], None]) -> None:
        """Ask at once, and call back when the store has answered for all that is watched now."""
        self._looks.append(on_looked)
        self.nudge()

    def nudge(self) -> None:
        """Ask at once: something may have come."""
        self._backoff.after(True)
        self.looper.wake()

    def tell(self, kind: Kind, key: Hashable, news: Any) -> None:
        """Tell all who wait."""
        for on_news in list(self._waits.get(kind, {}).get(key, ())):
            try:
                on_news(news)
            except Exception:  # a record that cannot be read harms only who waits for it
                log.exception("%s %r cannot be told", kind, key)

    async def _turn(self) -> float:
        self.turns += 1
        looks = len(self._looks)
        found = False
        for kind, waits in list(self._waits.items()):
            keys = [key for key in waits if kind != "end" or key not in self._local]
            answers = await self._asks[kind](keys) if keys else {}
            for key, news in answers.items():
                self.tell(kind, key, news)
                found = found or kind != "end" or key not in waits
        asked, self._looks = self._looks[:looks], self._looks[looks:]
        for on_looked in asked:
            on_looked()
        return self._backoff.after(found)

    async def _ask_ends(self, rows: list[int]) -> dict[int, EndedRun]:
        return {ended.row: ended for ended in await self._store.list_ended(rows)}
