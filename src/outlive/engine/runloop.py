"""The private event loop of one run: stock asyncio on top, one order of delivery below.

It owns the ready queue, the branches (who may name a key) and the timers of one
run. It never waits: `turn` runs callbacks until every branch is blocked, then
its execution delivers one outcome and turns it again. Time stands still within
a turn; it is the time of the last delivered outcome, so it replays.

Invariant: what happens between two deliveries depends on the code and the
delivered outcomes alone. So tasks and futures hash by order of creation, not by
address (sets of them iterate the same on replay), and everything that would
bring in the outside world is refused by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import sys
import types
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Protocol

from outlive.engine.branch import Branch
from outlive.errors import UsageError
from outlive.limits import TURN_MAX_CALLBACKS, UNWIND_MAX_THROWS

log = logging.getLogger("outlive.run")


class Unwound(BaseException):
    """Raised in every branch of a run that leaves memory, where it waits. Private: never a user's business."""


class _Ordered:
    """Hashes by the order in which objects of one run were first hashed, salted by the run."""

    _order: int | None = None

    def __hash__(self) -> int:
        order = self._order
        if order is None:
            order = self._order = self.get_loop().next_hash()  # type: ignore[attr-defined]
        return order


class RunFuture(_Ordered, asyncio.Future[Any]):
    """A future of a run loop."""


class RunTask(_Ordered, asyncio.Task[Any]):
    """A task of a run loop, with its branch and the context that it runs in."""

    branch: Branch
    context: contextvars.Context
    serves = False  # it waits for calls as long as the workflow runs: nobody forgot it


class Handle:
    """A scheduled callback; lighter than asyncio's, which keeps tracebacks for debugging."""

    __slots__ = ("args", "callback", "context", "is_cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled


class Owner(Protocol):
    """What a run loop asks of its execution."""

    def add_timer(self, timer: RunTimer) -> None: ...
    def drop_timer(self, timer: RunTimer) -> None: ...
    def call_in_thread(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any] | asyncio.Task[Any]: ...


class RunTimer(asyncio.TimerHandle):
    """A durable timer: due at a time of the database, fired by delivery."""

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: RunLoop,
        context: contextvars.Context | None,
        key: str,
        name: str,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.key = key
        self.name = name
        self.began_at = loop.time()

    def fire(self) -> None:
        """Hand the callback to the loop's next turn."""
        loop = self._loop  # type: ignore[attr-defined]
        loop.call_soon(self._callback, *self._args, context=self._context)  # type: ignore[attr-defined]


_set_sleep_result = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]


class RunLoop(asyncio.AbstractEventLoop):
    """See the module's text. `execution` is the owner; `salt` is the same on every replay of the run.

    A run that was `continued` as new has other keys each time: ids of children, idempotency keys and promises, which
    are made of keys, are its own for ever.
    """

    def __init__(self, execution: Owner, salt: int, now: float, continued: int = 0) -> None:
        self.execution = execution
        self.unwinding = False
        self.root = Branch(f"~{continued}/" if continued else "")
        self._now = now
        self.ready: deque[Handle] = deque()
        self._insistent: list[Handle] = []
        self._tasks: list[RunTask] = []
        self._tasks_kept = 64
        self._salt = salt * 1_000_003
        self._hashes = 0

    # -- turning ------------------------------------------------------------
    def turn(self) -> None:
        """Run callbacks until every branch is blocked, or the run is unwinding."""
        self._as_running(self._run_ready)

    def _as_running(self, work: Callable[[], None]) -> None:
        """Do something while this loop is the running one of the thread."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(_ignore, _ignore)
        try:
            work()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(outer)

    def _run_ready(self) -> None:
        ready = self.ready
        left = TURN_MAX_CALLBACKS
        stirred = False  # something has run since the insistent ones have
        while not self.unwinding:
            if not ready:
                if not (stirred and self._insistent):
                    return
                stirred = False
                handles, self._insistent = self._insistent, []
                for handle in handles:
                    if not handle.is_cancelled:
                        self._run(handle)
                continue
            handle = ready.popleft()
            stirred = True
            if not handle.is_cancelled:
                self._run(handle)
            left -= 1
            if not left:
                raise UsageError(
                    f"the workflow ran {TURN_MAX_CALLBACKS:,} callbacks without waiting for anything; "
                    "a loop around sleep(0) must await a durable call"
                )

    def _run(self, handle: Handle) -> None:
        try:
            handle.context.run(handle.callback, *handle.args)
        except KeyboardInterrupt:
            raise
        except SystemExit:
            pass  # the task has it as its exception: user code may not end the worker
        except Unwound:
            pass
        except BaseException as error:
            self.call_exception_handler({"message": f"callback {handle.callback!r} failed", "exception": error})

    def unwind(self) -> None:
        """Take the run out of memory: nothing of it runs on but the `finally` blocks of its coroutines.

        Unwound is raised where a coroutine waits, and again wherever it waits
        after that: no call of those blocks begins anything, no task or timer
        made there ever runs.
        """
        self.unwinding = True
        self.ready.clear()
        self._as_running(self._close_all)
        self.ready.clear()
        _forget_scopes(self._tasks)
        self._tasks.clear()

    def _close_all(self) -> None:
        for task in reversed(self._tasks):
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                task.context.run(self._close, task)

    def _close(self, task: RunTask) -> None:
        """Close a task's coroutine as that task, so that its `finally` blocks see what they always see."""
        asyncio.tasks._enter_task(self, task)
        try:
            if not close_coroutine(task.get_coro()):
                # Collected, it would run on with no run around it, and its steps as plain functions.
                _undying.append(task.get_coro())
                log.warning("task %r keeps on awaiting while its run leaves memory; it stays where it is", task)
        finally:
            asyncio.tasks._leave_task(self, task)

    # -- time ---------------------------------------------------------------
    def time(self) -> float:
        return self._now

    def advance(self, at: float) -> None:
        """Set the time of a delivery; it never goes back."""
        if at > self._now:
            self._now = at

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        if when != when:
            raise UsageError("a workflow cannot wait for nan seconds")
        name = "sleep" if callback is _set_sleep_result else "timer"
        if self.unwinding:
            return RunTimer(when, callback, args, self, context, "", name)
        timer = RunTimer(when, callback, args, self, context, self.branch().key(name), name)
        self.execution.add_timer(timer)
        return timer

    def _timer_handle_cancelled(self, handle: RunTimer) -> None:
        self.execution.drop_timer(handle)

    # -- callbacks, futures, tasks ------------------------------------------
    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, context if context is not None else contextvars.copy_context())
        if not self.unwinding:
            insists = type(callback) is types.MethodType and callback.__name__ == _INSISTENT
            (self._insistent if insists else self.ready).append(handle)
        return handle

    def create_future(self) -> RunFuture:
        return RunFuture(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: contextvars.Context | None = None
    ) -> RunTask:
        if context is None:
            context = contextvars.copy_context()
        try:
            branch = self._branch_of_new_task() if not self.unwinding else self.root
        except UsageError:
            coro.close()
            raise
        task = RunTask(coro, loop=self, name=name, context=context)
        task.branch, task.context = branch, context
        if self.unwinding:
            coro.close()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            return task
        if len(self._tasks) >= self._tasks_kept:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks_kept = max(64, 2 * len(self._tasks))
        self._tasks.append(task)
        return task

    def create_root_task(
        self,
        coro: Coroutine[Any, Any, Any],
        name: str,
        context: contextvars.Context,
        branch: Branch | None = None,
    ) -> RunTask:
        """Make the task of the workflow itself, whose scope is empty, or one that takes its place in a branch."""
        task = RunTask(coro, loop=self, name=name, context=context)
        task.branch, task.context = branch or self.root, context
        self._tasks.append(task)
        return task

    def unfinished_tasks(self) -> list[RunTask]:
        """Give the tasks that have not ended, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def forget_tasks(self) -> None:
        """Hold no task any more: all have ended, and what their contexts hold would else wait for the collector."""
        self._tasks.clear()

    def branch(self) -> Branch:
        """Give the branch that is executing; callbacks outside every task count in the root."""
        task = asyncio.current_task(self)
        if task is None:
            return self.root
        if type(task) is not RunTask:
            raise UsageError("a workflow body makes its tasks with asyncio.create_task or a group, not as asyncio.Task")
        return task.branch

    @contextlib.contextmanager
    def within(self, branch: Branch) -> Iterator[None]:
        """Let the task that is executing name its calls in another branch, one whose scope its caller answers for."""
        task = asyncio.current_task(self)
        assert isinstance(task, RunTask)
        before, task.branch = task.branch, branch
        try:
            yield
        finally:
            task.branch = before

    def _branch_of_new_task(self) -> Branch:
        """Open a branch, unless the task is only `wait_for`'s way to wait (Python 3.11): it adds no scope."""
        frame = sys._getframe(2)
        for _ in range(5):
            code = frame.f_code
            if code.co_filename != _TASKS_FILE:
                break
            if code is _WAIT_FOR:
                return self.branch()
            if code.co_name == "as_completed" or "_AsCompletedIterator" in code.co_qualname:
                raise UsageError(
                    "asyncio.as_completed over bare coroutines takes them in the order of their addresses, which "
                    "replay cannot repeat; make the tasks first: as_completed([asyncio.create_task(c) for c in …])"
                )
            if frame.f_back is None:
                break
            frame = frame.f_back
        return self.branch().open()

    def next_hash(self) -> int:
        """Give the hash of the next object that is hashed: the same on every replay."""
        self._hashes += 1
        return self._salt + self._hashes

    # -- threads ------------------------------------------------------------
    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Serve `asyncio.to_thread(definition, …)`: a durable call. Everything else is refused.

        An executor that is `at_once` says that what it gets belongs to the workflow's body, and has no thread.
        """
        if self.unwinding:
            return self.create_future()
        if getattr(executor, "at_once", False):
            future = self.create_future()
            future.set_result(func(*args))
            return future
        keywords: dict[str, Any] = {}
        if isinstance(func, functools.partial):
            args, keywords, func = (*func.args, *args), func.keywords, func.func
        if isinstance(getattr(func, "__self__", None), contextvars.Context):  # to_thread: partial(context.run, f, …)
            func, args = args[0], args[1:]
        return self.execution.call_in_thread(func, args, keywords)

    # -- the rest of the interface ------------------------------------------
    get_debug = bool  # no; asked for at each future and task

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.unwinding

    def get_task_factory(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.unwinding:
            log.error("%s", context.get("message"), exc_info=context.get("exception"))


# anyio cancels what is in a cancelled scope again in each cycle of the loop, until it has left the scope. Here a cycle
# may last for days, so it looks again only when something else has run, which may have begun to wait anew.
_INSISTENT = "_deliver_cancellation"
_TASKS_FILE = asyncio.tasks.__file__
_WAIT_FOR = asyncio.wait_for.__code__
_undying: list[Any] = []  # coroutines that cannot be closed; one that was collected would run on


def _forget_scopes(tasks: Iterable[RunTask]) -> None:
    """Let anyio forget the scopes of tasks that ended unseen: it keeps them by task, and they keep the task."""
    scopes = getattr(sys.modules.get("anyio._backends._asyncio"), "_task_states", {})
    for task in tasks:
        scopes.pop(task, None)


def _ignore(_generator: object) -> None:
    """Stand in for asyncio's async generator hooks: a finaliser runs when the collector does, replay cannot."""


def close_coroutine(coroutine: Any) -> bool:
    """End a coroutine where it waits, and wherever it waits again in its `finally` blocks; False if it will not end.

    Thrown, not closed: closing a coroutine that waits again gives those around
    it a RuntimeError, which an ordinary `except` would take for one of its own.
    """
    for _ in range(UNWIND_MAX_THROWS):
        try:
            coroutine.throw(Unwound())
        except BaseException as error:
            if not isinstance(error, Unwound | StopIteration):
                log.debug("ignored while a run left memory: %r", error)
            return True
    return False


def _refuse(name: str) -> Callable[..., Any]:
    def refused(self: RunLoop, *_args: Any, **_keywords: Any) -> Any:
        if self.unwinding:
            raise Unwound
        raise UsageError(
            f"a workflow body may not touch the outside world (loop.{name}): replay could not repeat it; "
            "put the call into a function decorated with @step and await that"
        )

    return refused


def _hash_gathering(gathering: Any) -> int:
    loop = gathering.get_loop()
    if type(loop) is not RunLoop:
        return object.__hash__(gathering)
    order: int | None = getattr(gathering, "_order", None)
    if order is None:
        order = gathering._order = loop.next_hash()
    return order


# asyncio.gather makes its future by itself. It cannot be another class, so it is told how to hash on a run loop;
# else `asyncio.wait` over two of them would give sets in the order of their addresses.
asyncio.tasks._GatheringFuture.__hash__ = _hash_gathering  # type: ignore[attr-defined]

_ALLOWED = set(vars(RunLoop)) | {"set_debug"}
for _name, _value in list(vars(asyncio.AbstractEventLoop).items()):
    if callable(_value) and not _name.startswith("__") and _name not in _ALLOWED:
        setattr(RunLoop, _name, _refuse(_name))
