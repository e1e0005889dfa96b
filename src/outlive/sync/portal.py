"""A loop in a thread of its own, and the calls that other threads make on it.

Knows no app. A thread that calls waits until its coroutine has ended on the
loop; meanwhile the loop may hand it work that only that thread can do. Invariant:
no caller waits for a loop that has ended.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

from outlive.engine.looper import post
from outlive.engine.threads import current_body
from outlive.errors import UsageError

T = TypeVar("T")
U = TypeVar("U")

_CLOSED = "this app is not open: use it inside `with outlive.sync.Outlive(…) as app:`"
_MEANWHILE = "the app was closed while this call waited"


class Portal:
    """Begun by `start`, ended by `stop`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: set[Call[Any]] | None = None  # None: there is no loop to call
        self._thread: threading.Thread | None = None
        self.pid = os.getpid()

    @property
    def is_open(self) -> bool:
        """Whether this process has a loop to call."""
        return self._calls is not None and self.pid == os.getpid()

    def start(self) -> None:
        """Begin to turn the loop."""
        self.pid = os.getpid()
        ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        # A daemon: an app that nobody closes shall not keep the process from ending: `at_exit`.
        self._thread = threading.Thread(target=self._turn, args=(ready,), name="outlive-sync", daemon=True)
        self._thread.start()
        ready.get()

    def stop(self) -> None:
        """End the loop and what is left of calls, and wait for that."""
        post(self._loop, self._stopped.set)
        if self._thread is not None:
            self._thread.join()

    def _turn(self, ready: queue.SimpleQueue[None]) -> None:
        async def wait() -> None:
            self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
            self._calls = set()
            ready.put(None)
            await self._stopped.wait()

        try:
            asyncio.run(wait())
        finally:
            with self._lock:
                calls, self._calls = self._calls or set(), None
            for call in calls:
                call.end()

    # -- in the threads of callers -------------------------------------------
    def check(self, name: str) -> None:
        """Raise UsageError where `name` must not wait, or has nobody to wait for."""
        check_place(name)
        if self.pid != os.getpid():
            raise UsageError("this app was opened before a fork; open one in each process")
        if self._calls is None:
            raise UsageError(_CLOSED)

    def call(self, work: Coroutine[Any, Any, T], context: contextvars.Context | None = None) -> T:
        """Have the loop run a coroutine to its end, in a copy of this thread's context; give its outcome."""
        try:
            self.check(getattr(work, "__name__", "this"))
            call = Call(work, context if context is not None else contextvars.copy_context())
            with self._lock:
                if self._calls is None:
                    raise UsageError(_CLOSED)
                self._calls.add(call)
                post(self._loop, call.begin)
        except BaseException:
            work.close()
            raise
        try:
            return call.wait(self._loop)
        finally:
            with self._lock:
                if self._calls is not None:
                    self._calls.discard(call)


def check_place(name: str) -> None:
    """Raise UsageError in workflow bodies and on event loops, where `name` must not wait."""
    if current_body.get() is not None:
        raise UsageError(
            f"a workflow body may not use an app ({name}), since replay could not repeat it: use the functions of "
            "outlive.sync, or a step"
        )
    if asyncio._get_running_loop() is not None:
        raise UsageError(
            f"{name} of outlive.sync would stop this event loop while it waits: here use "
            f"`async with outlive.Outlive(…)` and `await` its {name}(…), in an async workflow the functions of "
            f"outlive; or `await asyncio.to_thread({name}, …)` in a program"
        )


class Call(Generic[T]):
    """A coroutine that another thread waits for."""

    def __init__(self, work: Coroutine[Any, Any, T], context: contextvars.Context) -> None:
        self._work = work
        self._context = context
        self._context.run(_calling.set, self)
        self._task: asyncio.Task[T] | None = None
        self._news: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def wait(self, loop: asyncio.AbstractEventLoop) -> T:
        """Do what the loop hands to this thread until the coroutine has ended; Ctrl-C cancels it."""
        try:
            while (job := self._news.get()) is not None:
                job()
        except BaseException:
            post(loop, self._cancel)
            raise
        if self._task is None or not self._task.done():
            if self._task is None:
                self._work.close()
            raise UsageError(_MEANWHILE)
        try:
            return self._task.result()
        except asyncio.CancelledError:
            raise UsageError(_MEANWHILE) from None

    # -- on the loop ----------------------------------------------------------
    def begin(self) -> None:
        """Run the coroutine."""
        self._task = asyncio.get_running_loop().create_task(self._work, context=self._context)
        self._task.add_done_callback(lambda _: self.end())

    def end(self) -> None:
        """Let the caller go."""
        self._news.put(None)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody else asks

    async def lend(self, work: Callable[[], U]) -> U:
        """Have the waiting thread do something; give its outcome."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[U] = loop.create_future()

        def job() -> None:
            try:
                value = work()
            except Exception as error:  # noqa: BLE001 - it is raised from the call
                post(loop, _settle, done, done.set_exception, error)
            else:
                post(loop, _settle, done, done.set_result, value)

        self._news.put(job)
        return await done


_calling: contextvars.ContextVar[Call[Any] | None] = contextvars.ContextVar("outlive_calling", default=None)


def _settle(done: asyncio.Future[Any], settle: Callable[[Any], None], outcome: Any) -> None:
    if not done.done():
        settle(outcome)


async def in_caller(work: Callable[[], T]) -> T:
    """On a loop with a portal: do something in the thread that called."""
    call = _calling.get()
    assert call is not None
    return await call.lend(work)


def drive(work: Coroutine[Any, Any, T], complaint: str) -> T:
    """Run a coroutine that never waits; raise UsageError with the complaint if it does."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    work.close()
    raise UsageError(complaint)


def at_exit(function: Callable[[], None]) -> None:
    """Call a function when the main thread has ended, while executors still take work, which atexit is too late for."""
    register: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
    register(function)
