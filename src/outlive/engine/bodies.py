"""Bodies of steps: executed on the main loop or in a thread, with attempts, delays and time limits.

It turns what a body does into an outcome and gives it to `Execution.hand_in_now`.
It must not know keys, order or the journal. Invariant: the outcome of every begun call is
handed in once, unless its run was closed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from outlive.clock import seconds
from outlive.codec.failure import doubted, error_facts, record_error
from outlive.codec.payload import digest, round_trip
from outlive.engine.calls import StepCall
from outlive.engine.transactions import Transactions, Undone
from outlive.errors import PayloadError, RetryAfter, StepFailed, StoreUnavailable
from outlive.limits import STEP_THREADS, STORE_AGAIN_S
from outlive.model.definition import StepInfo
from outlive.store.refusals import FenceLost

log = logging.getLogger("outlive.step")

T = TypeVar("T")

current_step: contextvars.ContextVar[StepCall | None] = contextvars.ContextVar("outlive_step", default=None)
# What a plain body executes within. Whoever opens an app may set it before; it is part of the app's context.
thread_scope: contextvars.ContextVar[Callable[[], AbstractContextManager[object]]] = contextvars.ContextVar(
    "outlive_thread_scope", default=nullcontext
)

_NOT_NOW_S = 0.05  # until the lease is renewed, or this work is cancelled because it is lost


class StillInDoubt(Exception):
    """A body was cut off, or could not find out whether it has taken effect; its cause says why."""


class StepThreads(ThreadPoolExecutor):
    """The threads of plain bodies. None can be stopped: where a step was given up, its thread goes on."""

    def __init__(self) -> None:
        super().__init__(STEP_THREADS, thread_name_prefix="outlive-step")
        # Of steps that may not be repeated blindly, by row and key.
        self._going: dict[tuple[int, str], Future[Any]] = {}

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future = super().submit(fn, *args, **kwargs)
        call = current_step.get()
        if call is not None and call.spec.on_unknown != "retry":
            place = call.execution.row, call.key
            self._going[place] = future
            future.add_done_callback(functools.partial(self._ended, place))
        return future

    def _ended(self, place: tuple[int, str], future: Future[Any]) -> None:
        if self._going.get(place) is future:
            del self._going[place]

    async def end_of(self, call: StepCall) -> None:
        """Wait for what an attempt before has left going in this process: only then can be said what it came to."""
        going = self._going.get((call.execution.row, call.key))
        if going is not None:
            ended = asyncio.wrap_future(going)
            await asyncio.wait([ended])
            _ = ended.cancelled() or ended.exception()  # nobody else asks


class Bodies:
    """Executes step bodies for one process."""

    def __init__(
        self,
        main: asyncio.AbstractEventLoop,
        transactions: Transactions,
        chance: random.Random,
        context: contextvars.Context,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._main = main
        self._transactions = transactions
        self._chance = chance
        self._context = context
        self._sleep = sleep
        self.threads = StepThreads()
        self.in_flight = 0

    def begin(self, call: StepCall, *, verify: bool = False) -> None:
        """Execute the body of a call; its outcome goes to the call's execution.

        `verify`: first ask the step's `on_unknown` function whether an attempt that a crash interrupted took effect.
        """
        self.in_flight += 1
        call.in_doubt = verify  # from now on: it may be cancelled before its task begins
        work = self._main.create_task(self._outcome(call, verify), context=self._context.copy())
        call.work = work
        work.add_done_callback(functools.partial(self._ended, call))

    def close(self) -> None:
        """Start no more threads; those that run cannot be stopped and are disowned."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    def _ended(self, call: StepCall, work: asyncio.Task[tuple[str, str | None, Any, str | None] | None]) -> None:
        self.in_flight -= 1
        call.work = None  # whose context holds the call: such circles cost the collector 5 µs for each step
        outcome = work.result() if not work.cancelled() else ("error", None, None, call.cancellation())
        if outcome is not None:
            call.execution.hand_in_now(call, *outcome)

    async def _outcome(self, call: StepCall, verify: bool) -> tuple[str, str | None, Any, str | None] | None:
        """Try until an attempt succeeds or none is left; None if a transaction delivered by itself."""
        spec, execution = call.spec, call.execution
        while True:
            call.in_doubt = verify
            await self.ready(execution)
            current_step.set(call)
            try:
                if spec.prepare is not None and not verify:
                    await spec.prepare(*call.args)
                    await self.ready(execution)
                if spec.transactional:
                    try:
                        await self._transactions.execute(call, self.run)
                    except Undone as undone:
                        value = undone.value
                    else:
                        return None
                else:
                    value = await self._attempt(call, verify)
                text, decoded = round_trip(execution.codec, value, spec.shape.result, where=spec.result)
                return "ok", text, decoded, None
            except asyncio.CancelledError as error:
                if call.cancel_requested or execution.closed:
                    raise
                failure: BaseException = StepFailed("asyncio.exceptions.CancelledError", str(error))
                in_doubt = verify
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if verify and had_no_effect(error):
                    verify = False
                    continue
                failure, in_doubt = _weigh(call, error, verify)
            call.in_doubt = in_doubt
            record = record_error(failure, execution.codec)
            is_last = isinstance(failure, PayloadError) or not spec.retry.again(call.attempts, failure)
            if is_last or call.cancel_requested or (in_doubt and spec.on_unknown == "park"):
                return "error", None, None, doubted(record) if in_doubt else record
            delay_s = spec.retry.delay_s(call.attempts, self._chance)
            if isinstance(failure, RetryAfter):
                delay_s = max(delay_s, seconds(failure.delay))
            log.info(
                "step %s of run %r failed at attempt %d and is tried again in %.2g s:\n%s",
                call.key, execution.id, call.attempts, delay_s, error_facts(record)["traceback"],
            )  # fmt: skip
            del failure
            verify = in_doubt
            if not verify:  # what is on disk says that it began, and whoever comes after this process has to ask, too
                execution.recorder.attempt(call, record)
            await self.rest(delay_s)
            call.attempts += 1

    async def _attempt(self, call: StepCall, verify: bool) -> Any:
        """Execute the body once, or ask what became of an attempt before."""
        spec = call.spec
        if spec.on_unknown != "retry" and not verify:
            await call.execution.recorder.start(call)
            await self.ready(call.execution)
            call.in_doubt = True
        if verify:
            await self.threads.end_of(call)
        if spec.is_async and spec.timeout_s is None and not verify:
            return await spec.function(*call.args, **call.kwargs)
        limit = asyncio.timeout(spec.timeout_s)
        try:
            async with limit:
                return await self.run(spec.on_unknown if verify else spec.function, call.args, call.kwargs)
        except Exception as error:
            if limit.expired():  # a thread goes on, and so does whatever was asked for outside
                raise StillInDoubt from error
            raise

    async def ready(self, execution: Any) -> None:
        """Wait until a body of this run may execute: the process may have stood still since it was to begin.

        Raises CancelledError once the run has left: a body may have ended its cancellation by an error of its own.
        """
        while not execution.engine.roster.may_begin(execution):
            await self.rest(_NOT_NOW_S)
        if execution.closed:
            raise asyncio.CancelledError

    async def rest(self, delay_s: float) -> None:
        """Wait between attempts: nothing executes meanwhile, so a process that ends does not wait for it."""
        self.in_flight -= 1
        try:
            await self._sleep(delay_s)
        finally:
            self.in_flight += 1

    async def run(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function, in a thread if it is a plain one; a thread that is cancelled is disowned."""
        if inspect.iscoroutinefunction(function):
            return await function(*args, **kwargs)
        context = contextvars.copy_context()
        work = functools.partial(context.run, _call, function, args, kwargs)
        return await self._main.run_in_executor(self.threads, work)


def _weigh(call: StepCall, error: BaseException, verify: bool) -> tuple[BaseException, bool]:
    """Give how an attempt has failed, and whether it may have taken effect though nothing may be repeated blindly."""
    if isinstance(error, StillInDoubt):
        return error.__cause__ or error, call.spec.on_unknown != "retry"
    # What it gave cannot be kept, but it was executed; one that was cut off says nothing of what it had asked for; and
    # who could not be asked has said nothing.
    return error, call.in_doubt if isinstance(error, PayloadError) or call.cancel_requested else verify


def had_no_effect(error: BaseException) -> bool:
    """Whether who was asked what became of an attempt says that it had no effect; what a slip raises is no answer."""
    return isinstance(error, LookupError) and not isinstance(error, KeyError | IndexError)


def _call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        with thread_scope.get()():
            return function(*args, **kwargs)
    except StopIteration as error:  # no future can hold it
        raise RuntimeError(f"a step raised StopIteration: {error}") from error


def executing_step() -> StepCall:
    """Give the step whose body is executing here."""
    call = current_step.get()
    assert call is not None, "no step is executing here"
    return call


async def patiently(call: StepCall, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the store for a step until it answers, as the committer does; whoever has lost his lease asks no more."""
    engine = call.execution.engine
    while True:
        try:
            return await ask()
        except FenceLost as lost:
            engine.lease_lost(lost.fence)
            raise asyncio.CancelledError from None
        except StoreUnavailable as error:
            log.warning("%s of run %r waits for the store: %s", call.key, call.execution.id, error)
            await engine.bodies.rest(STORE_AGAIN_S)


def describe(call: StepCall) -> StepInfo:
    """Say where a body is executing."""
    execution = call.execution
    return StepInfo(
        run_id=execution.id,
        workflow=execution.spec.name,
        name=call.name,
        key=call.key,
        attempt=call.attempts,
        idempotency_key=digest(f"{execution.id}\n{call.key}"),
        fencing_token=execution.claim,
    )
