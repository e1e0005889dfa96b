"""What the generated classes of the sync face are made on: the app's life in a background loop, waiting, iterating.

Invariant: whatever an app or a handle does, it does on the app's own loop, in
one thread; only the insert of `start(…, tx=…)` happens in the caller's.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar

from outlive import app, search
from outlive.engine.bodies import current_step
from outlive.engine.engine import Engine
from outlive.engine.transactions import SyncTransaction, current_transaction
from outlive.errors import UsageError
from outlive.model.writes import ExistingRun, NewRun
from outlive.paging import Page
from outlive.run import RunInfo
from outlive.sync.portal import Portal, at_exit, check_place, drive, in_caller

T = TypeVar("T")
_ASYNCHRONOUS = "tx= is asynchronous: pass the blocking connection that this thread works with"


class Joining(app.Outlive):
    """An app whose caller is another thread: a run that joins the caller's transaction is inserted by that thread."""

    async def _join(self, engine: Engine, tx: Any, run: NewRun) -> ExistingRun | None:
        if isinstance(tx, SyncTransaction):
            return await engine.store.start_in(tx.within(engine.main), run)
        if inspect.iscoroutinefunction(getattr(tx, "execute", None)):
            raise UsageError(_ASYNCHRONOUS)
        return await in_caller(lambda: drive(engine.store.start_in(tx, run), _ASYNCHRONOUS))


class Face:
    """Something that lives on a loop, for other threads."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._portal.call(work)

    def _iterate(self, make: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        return iterate(self._portal, make)


def iterate(portal: Portal, make: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
    """Iterate from a thread over what a loop iterates over."""
    items = make()

    async def iterate() -> T:
        return await anext(items)

    while True:  # the loop closes `items` when nobody holds them any more
        try:
            item = portal.call(iterate())
        except StopAsyncIteration:
            return
        yield item


class RunList:
    """A list of runs: `page()` gives one page of it, iterating goes through all."""

    def __init__(self, portal: Portal, make: Callable[[], search.RunList]) -> None:
        self._portal = portal

        async def runs() -> search.RunList:
            return make()

        self._real = portal.call(runs())

    def page(self) -> Page[RunInfo, int]:
        """Read one page."""

        async def page() -> Page[RunInfo, int]:
            return await self._real

        return self._portal.call(page())

    def __iter__(self) -> Iterator[RunInfo]:
        return iterate(self._portal, self._real.__aiter__)


class Life(Face):
    """An app in a background thread: opened, closed, closed at the end of the process if need be."""

    def __init__(self, real: Joining) -> None:
        super().__init__(Portal())
        self._real = real
        self._turn = threading.Lock()  # of who opens or closes it

    @property
    def name(self) -> str:
        """The name of this app, as operators see it."""
        return self._real.name

    def open(self) -> Self:
        """Connect, migrate if asked, and begin to work. The same as entering `with`."""
        check_place("open")
        with self._turn:
            if self._portal.is_open:
                raise UsageError("this app is open already; threads share it, other processes open one each")
            self._portal.start()
            try:
                self._portal.call(self._real.open(), _outside())
            except BaseException:
                self._portal.stop()
                raise
            _closed_at_exit(self)
        return self

    def close(self) -> None:
        """Stop claiming, let steps in flight finish within the grace, release the runs; waiting ones stay so."""
        with self._turn:
            self._portal.check("close")
            try:
                self._portal.call(self._real.close())
            finally:
                self._portal.stop()
                _open.discard(self)

    def _hint(self) -> None:
        """Tell workers that the caller's transaction has committed a run; without it they look within a second."""

        async def hint() -> None:
            self._real._engine().hint()

        self._wait(hint())

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_exc: object) -> None:
        if self._portal.is_open:
            self.close()


_open: set[Life] = set()
_is_registered = False


def _closed_at_exit(life: Life) -> None:
    global _is_registered
    _open.add(life)
    if not _is_registered:
        _is_registered = True
        at_exit(_close_all)


def _close_all() -> None:
    with contextlib.ExitStack() as stack:
        for life in _open:
            stack.push(life)


def _outside() -> contextvars.Context:
    """Give this thread's context, outside of the step in which the app may be opened."""
    context = contextvars.copy_context()
    for variable in (current_step, current_transaction):
        context.run(variable.set, None)
    return context
