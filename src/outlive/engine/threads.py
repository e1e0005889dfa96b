"""Sync workflows: the body runs in a thread, its durable calls on the run's loop.

The thread and the loop take turns: while the body computes, the loop stands
still (`Execution.thread_busy`); at a durable call the thread waits and a
coroutine of the run makes the call in its place. So a sync workflow is an async
one with a single branch, and replays by the same code.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from outlive.engine.looper import post
from outlive.engine.roles import LiveRun
from outlive.engine.runloop import RunFuture, Unwound
from outlive.limits import UNWIND_MAX_THROWS, WORKFLOW_THREADS

_UNDYING_PAUSE_S = 1.0
current_body: contextvars.ContextVar[ThreadBody | None] = contextvars.ContextVar("outlive_thread_body", default=None)


class WorkflowThreads:
    """The threads of sync workflows, apart from those of steps: a waiting parent never starves its children."""

    def __init__(self, make_room: Callable[[], None]) -> None:
        self._pool = ThreadPoolExecutor(WORKFLOW_THREADS, thread_name_prefix="outlive-workflow")
        self._make_room = make_room
        self._taken = 0

    @property
    def crowded(self) -> bool:
        """Whether bodies wait for a thread."""
        return self._taken > WORKFLOW_THREADS

    def submit(self, work: Callable[[], None], main: asyncio.AbstractEventLoop) -> None:
        """Run a body in a thread; if there is none left, an idle sync run is asked to leave memory."""
        self._taken += 1
        if self.crowded:
            self._make_room()
        self._pool.submit(work).add_done_callback(lambda _: post(main, self._returned))

    def _returned(self) -> None:
        self._taken -= 1

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class ThreadBody:
    """One sync workflow body in its thread."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        threads: WorkflowThreads,
        context: contextvars.Context,
    ) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._threads = threads
        self._unwound = False
        self._refused = 0
        self._request: Future[Any] | None = None
        self._arrival: RunFuture | None = None
        self.execution: LiveRun
        self._context = context

    # -- on the run's loop --------------------------------------------------
    async def drive(self) -> Any:
        """The workflow's coroutine: make the thread's durable calls until it returns."""
        loop: Any = asyncio.get_running_loop()
        self.execution = loop.execution
        main = self.execution.engine.main
        self.execution.thread_busy = True
        self._threads.submit(lambda: self._context.run(self._run, main), main)
        try:
            while True:
                make, reply = await self._arrived_call(loop)
                if reply is None:
                    return make()
                try:
                    value = await make()
                except (GeneratorExit, Unwound):
                    raise
                except BaseException as error:
                    self._answer(reply.set_exception, error)
                else:
                    self._answer(reply.set_result, value)
        finally:
            self._unwound = True
            if self._request is not None and not self._request.done():
                self._request.set_exception(Unwound())

    async def _arrived_call(self, loop: Any) -> tuple[Callable[[], Any], Future[Any] | None]:
        """Wait for what the body does next; a cancellation that comes meanwhile hits the call that it makes next."""
        task = asyncio.current_task()
        is_cancelled = False
        while True:
            self._arrival = loop.create_future()
            try:
                make, reply = await self._arrival
            except asyncio.CancelledError:
                is_cancelled = True
                continue
            if is_cancelled and task is not None and reply is not None:
                task.uncancel()
                task.cancel()
            elif is_cancelled:
                self.execution.cancellation.was_felt = False
            return make, reply

    def _answer(self, settle: Callable[[Any], None], value: Any) -> None:
        self.execution.thread_busy = True
        settle(value)

    def _arrived(self, make: Callable[[], Any], reply: Future[Any] | None) -> None:
        execution = self.execution
        if execution.closed or self._arrival is None or self._arrival.done():
            if reply is not None:
                reply.set_exception(Unwound())
            return
        execution.thread_busy = False
        self._request = reply  # from here on: the run may leave memory before its loop turns
        self._arrival.set_result((make, reply))
        execution.wake()

    # -- in the thread ------------------------------------------------------
    def _run(self, main: asyncio.AbstractEventLoop) -> None:
        if self._unwound:
            return
        self._main = main
        current_body.set(self)
        try:
            value = self._function(*self._args, **self._kwargs)
        except Unwound:
            return
        except BaseException as error:
            failure = error

            def fail() -> Any:
                raise failure

            post(main, self._arrived, fail, None)
        else:
            post(main, self._arrived, lambda: value, None)

    def call(self, make: Callable[[], Awaitable[Any]]) -> Any:
        """Make a durable call from the body's thread and wait for its outcome."""
        if self._unwound:
            self._refused += 1
            if self._refused > UNWIND_MAX_THROWS:  # it catches everything in a loop: it shall not burn a core
                time.sleep(_UNDYING_PAUSE_S)
            raise Unwound
        reply: Future[Any] = Future()
        if not post(self._main, self._arrived, make, reply):
            raise Unwound
        return reply.result()
