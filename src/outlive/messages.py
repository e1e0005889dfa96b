"""What runs and programs tell each other: messages, values, streams, promises, calls.

For workflow bodies the functions below; for programs the methods of an app and
what a handle uses. Each is a thin layer: on a wait of the engine, on a side row
of an entry, or on one question to the store.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from outlive.clock import Duration, seconds
from outlive.codec.failure import rebuild_error, record_error
from outlive.codec.payload import CallShape, Codec, codec_for, decode_arguments, digest, encode
from outlive.definitions import for_async_bodies, in_workflow
from outlive.engine.engine import Engine
from outlive.engine.invoke import record, wait_for
from outlive.engine.roles import LiveRun
from outlive.engine.runloop import RunTask
from outlive.engine.waits import ExpireCall, PromiseCall, ReceiveCall, SendCall, ServeCall, call_topic
from outlive.errors import (
    CallUnanswered,
    RunEnded,
    RunNotFound,
    RunTimedOut,
    StepFailed,
    UsageError,
)
from outlive.ids import check_id
from outlive.model.mail import (
    Delivery,
    NewItem,
    NewMessage,
    NewPromise,
    NewValue,
    Settled,
    Settlement,
    Shown,
    StreamPart,
)
from outlive.model.options import check_messages, check_name, check_wait
from outlive.model.reads import GONE, EndedRun
from outlive.model.status import Status
from outlive.opened import Opened

__all__ = ["Item", "Promise", "emit", "on_call", "promise", "publish", "receive", "send"]

_NOTHING: Any = object()
_LOOK_S = 1e-6  # the shortest wait that is a timer, which lets a message that is there come first
T = TypeVar("T")


# -- in workflow bodies ---------------------------------------------------------
@for_async_bodies
async def receive(topic: str, timeout: Duration | None = None, *, default: Any = _NOTHING, as_type: Any = Any) -> Any:
    """Wait durably for the next message of a topic and give its value.

    Messages of one sender come in the order in which he sent them; one that was
    sent before is there. After `timeout` the `default` is given, TimeoutError raised without one; but a message
    that is in the mailbox by then comes first, also one that came while no worker was alive. 0 waits for none.
    *Durable*: the receipt and the message's value as one entry. *Again*: replay gives the same message;
    a message whose receipt was not on disk when the process died is received again. `as_type` says how to decode it.
    """
    run = in_workflow("receive")
    check_name(topic)
    call = ReceiveCall(run, run.loop.branch().key(f"receive:{topic}"), topic, as_type)
    if timeout is None:
        return await wait_for(run, call)
    limit = asyncio.timeout(max(check_wait(timeout, "timeout=…"), _LOOK_S))
    try:
        async with limit:
            return await wait_for(run, call)
    except TimeoutError:
        if not limit.expired():
            raise
        if default is _NOTHING:
            text = f"no message {topic!r} came to run {run.id!r} within {seconds(timeout):g} s"
            raise TimeoutError(text) from None
        return default


@for_async_bodies
async def send(run: Any, topic: str, value: Any) -> None:
    """Send a message to a run, given as a handle or by its id; return when it is in its mailbox.

    *Durable*: exactly once, whatever dies meanwhile. *Raises* RunNotFound, RunEnded.
    """
    execution = in_workflow("send")
    to = check_id(getattr(run, "id", run))
    text = encode(execution.engine.codec, value, where=f"message {check_name(topic)!r}")
    key = execution.loop.branch().key(f"send:{topic}")
    await wait_for(execution, SendCall(execution, key, topic, digest(f"{to}\n{text}"), to, text))


@for_async_bodies
async def publish(name: str, value: Any) -> None:
    """Show a value under a name: `run.value(name)` gives the latest one, from any process, also after the end.

    *Durable*: with the next commit, before the next effect of this run.
    """
    _show("publish", NewValue, name, value)


@for_async_bodies
async def emit(name: str, value: Any) -> None:
    """Append an item to a stream of this run: `run.stream(name)` gives all items in order, from any process.

    *Durable*: with the next commit, once and without gaps, whatever dies meanwhile.
    """
    _show("emit", NewItem, name, value)


def _show(kind: str, side: type[NewValue | NewItem], name: str, value: Any) -> None:
    run = in_workflow(kind)
    codec = run.engine.codec
    text = encode(codec, value, where=f"{kind} {check_name(name)!r}")
    record(run, kind, name, digest(text), lambda key: ("null", (side(run.row, key, name, text, codec.id),)))


@for_async_bodies
async def promise(
    expires: Duration | None = None, *, topic: str | None = None, about: Any = None, as_type: Any = Any
) -> Promise:
    """Make a promise: a placeholder that anyone who has its `token` may settle once, with `app.settle`.

    Await it for the value. *Durable*: the token, before the next effect of this run. After `expires` it can be
    settled no more, and awaiting it raises PromiseExpired. With a `topic` it is listed by `app.promises(topic)`
    while it is open, with what it is `about`: an inbox for those who settle it.
    """
    run = in_workflow("promise")
    expires_at = run.loop.time() + check_wait(expires, "expires=…") if expires is not None else None
    if topic is None and about is not None:
        raise UsageError("promise(about=…) needs topic=…, by which it is listed")
    text = None if topic is None else encode(run.engine.codec, about, where=f"promise {check_name(topic)!r}")

    def make(key: str) -> tuple[str, tuple[NewPromise, ...]]:
        token = run.engine.ids.token()
        recorded = json.dumps({"key": key, "token": token, "expires_at": expires_at})
        codec = None if text is None else run.engine.codec.id
        return recorded, (NewPromise(run.row, key, token, expires_at, topic, text, codec),)

    facts = json.loads(record(run, "promise", "promise", None, make))
    return Promise(facts["key"], facts["token"], facts["expires_at"], as_type)


@dataclass(frozen=True)
class Promise:
    """A promise of this run: hand out its token, await it for the value it is settled with."""

    key: str
    token: str
    expires_at: float | None
    as_type: Any = Any

    def __await__(self) -> Generator[Any, None, Any]:
        return self._outcome().__await__()

    async def _outcome(self) -> Any:
        run = in_workflow("promise")
        limit = asyncio.timeout_at(self.expires_at)
        try:
            async with limit:
                return await wait_for(run, self._call(run, PromiseCall))
        except TimeoutError:
            if not limit.expired():
                raise
        return await wait_for(run, self._call(run, ExpireCall))

    def _call(self, run: LiveRun, kind: type[PromiseCall]) -> PromiseCall:
        return kind(run, run.loop.branch().key(kind.kind), self.key, self.token, self.as_type)


async def await_or_withdraw(made: Promise) -> Any:
    """Await a promise that others have been asked for; if the wait is given up, nobody is asked any more."""
    try:
        return await made
    except asyncio.CancelledError:
        withdraw(made)
        raise


def withdraw(made: Promise) -> None:
    """Ask nobody any more."""
    run = in_workflow("promise")
    error = record_error(StepFailed("Withdrawn", "nobody waits for it any more"), run.codec)

    def make(key: str) -> tuple[str, tuple[Settlement, ...]]:
        return "null", (Settlement(run.row, key, made.token, "error", None, error, run.engine.codec.id),)

    record(run, "withdraw", "withdraw", None, make)


@for_async_bodies
def on_call(name: str, function: Callable[..., Any], validate: Callable[..., Any] | None = None) -> None:
    """Answer `run.call(name, …)` from now on, with what `function` gives; it may await durable calls, as the body may.

    Arguments that the function cannot take, and calls for which `validate` raises an error, are refused: the
    caller gets the error, and nothing of the call is written to this run's journal. `validate` is a plain
    function of the same arguments that changes nothing.
    *Durable*: an accepted call and its answer as an entry each; the answer is given once, whatever dies meanwhile.
    Where the run ends or continues as new before, it is CallUnanswered.
    """
    run = in_workflow("on_call")
    check_name(name)
    task = asyncio.get_running_loop().create_task(_serve(run, name, CallShape(function), function, validate))
    assert isinstance(task, RunTask)
    task.serves = True


async def _serve(
    run: LiveRun, name: str, shape: CallShape, function: Callable[..., Any], validate: Callable[..., Any] | None
) -> None:
    def read(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return decode_arguments(run.codec, shape, text, where=f"arguments of call {name}")

    def accept(text: str) -> None:
        args, kwargs = read(text)
        if validate is not None:
            validate(*args, **kwargs)

    while True:
        text = await wait_for(run, ServeCall(run, run.loop.branch().key(f"call:{name}"), name, accept))
        token = run.codec.decode(text, where=f"call {name}")["token"]
        args, kwargs = read(text)
        asyncio.get_running_loop().create_task(
            _answer(run, name, token, shape, functools.partial(function, *args, **kwargs))
        )


async def _answer(run: LiveRun, name: str, token: str, shape: CallShape, function: Callable[[], Any]) -> None:
    def make(key: str) -> tuple[str, tuple[Settlement, ...]]:
        outcome: Any = "ok" if error is None else "error"
        return "null", (Settlement(run.row, key, token, outcome, text, error, run.engine.codec.id),)

    text = error = None
    try:
        value = function()
        if inspect.isawaitable(value):
            value = await value
        text = encode(run.engine.codec, value, shape.result, where=f"answer to call {name}")
    except asyncio.CancelledError:
        error = record_error(CallUnanswered(run.id, name), run.codec)
        raise
    except Exception as failure:  # noqa: BLE001 - the caller gets it
        error = record_error(failure, run.codec)
    finally:
        if text is not None or error is not None:  # else the run leaves memory
            record(run, "answer", name, None, make)


# -- in programs ----------------------------------------------------------------
class Messages(Opened):
    """What an app does for messages and promises."""

    async def send(self, run_id: str, topic: str, value: Any, key: str | None = None) -> None:
        """Send a message to a run; return when it is in the run's mailbox.

        *Again*: a message with a `key` that the run has had, received or not, is not sent a second time.
        *Raises* RunNotFound, RunEnded, EncodeFailed; StoreUnavailable (with a key, sending again is safe).
        """
        await self.send_many([(run_id, topic, value, key)])

    async def send_many(self, messages: Iterable[tuple[Any, ...]]) -> None:
        """Send messages, each as (run id, topic, value) or (run id, topic, value, key), in this order.

        The database takes them in few transactions. *Raises* the error of the first one that could not be
        delivered; the others are delivered all the same.
        """
        engine = self._engine()
        sides = [make_message(engine, *message) for message in check_messages(messages, "run id, topic, value")]
        deliveries = await asyncio.gather(*(post(engine, side) for side in sides), return_exceptions=True)
        for failed in deliveries:
            if isinstance(failed, BaseException):
                raise failed


def make_message(engine: Engine, run_id: str, topic: str, value: Any, key: str | None = None) -> NewMessage:
    """Make a message from outside."""
    text = encode(engine.codec, value, where=f"message {check_name(topic)!r} to run {check_id(run_id)!r}")
    own = f"key:{check_id(key, 'key=…')}" if key is not None else str(engine.ids.uuid())
    return NewMessage(None, None, run_id, topic, own, text, engine.codec.id)


async def post(engine: Engine, message: NewMessage, *others: NewPromise) -> None:
    """Write a message from outside, with what belongs to it."""
    _, deliveries = await engine.committer.ask(message.run, None, (message, *others))
    problem = deliveries.get((message.run, message.key), Delivery(None, None)).problem
    if problem is not None:
        raise RunNotFound(message.run) if problem == "unknown" else RunEnded(message.run)


@dataclass(frozen=True)
class Item:
    """One item of a stream; `seq` counts from 1 without gaps."""

    seq: int
    value: Any


async def read_value(engine: Engine, row: int, run_id: str, name: str, wait: Duration | None, as_type: Any) -> Any:
    """Give what a run shows under a name, None if it shows nothing and there is no wait."""
    check_name(name)
    found = (await engine.store.list_values([(row, name)])).get((row, name))
    if found is None and any(run.status == GONE for run in await engine.store.list_ended([row])):
        raise RunNotFound(run_id)
    if found is None and wait is not None:
        found = await _first(engine, run_id, row, seconds(wait), ("value", (row, name)))
    return None if found is None else _decode(engine.codec, found, as_type, f"value {name!r} of run {run_id!r}")


async def read_stream(
    engine: Callable[[], Engine], row: int, run_id: str, name: str, after: int, as_type: Any
) -> AsyncIterator[Item]:
    """Give the items of a stream after a number, until the run has ended."""
    check_name(name)
    if not isinstance(after, int) or after < 0:
        raise UsageError(f"after=… is the number of the last item seen, 0 for all, not {after!r}")
    while True:
        part: StreamPart = await _first(engine(), run_id, row, None, ("stream", (row, name, after)))
        for item in part.items:
            after = item.seq
            yield Item(item.seq, _decode(engine().codec, item, as_type, f"item {after} of {name!r} of run {run_id!r}"))
        if part.is_over:
            return


async def call_run(
    engine: Engine, row: int, run_id: str, name: str, args: tuple[Any, ...], timeout: Duration | None, as_type: Any
) -> Any:
    """Have a running workflow answer a call."""
    limit_s = seconds(timeout) if timeout is not None else None
    token = engine.ids.token()
    text = encode(
        engine.codec, {"token": token, "args": list(args), "kwargs": {}}, where=f"arguments of call {check_name(name)}"
    )
    message = NewMessage(None, None, run_id, call_topic(name), token, text, engine.codec.id)
    await post(engine, message, NewPromise(row, None, token))
    try:
        settled: Settled = await _first(engine, run_id, row, limit_s, ("promise", token))
    except RunTimedOut:
        if any(entry.name == call_topic(name) for entry in await engine.store.list_entries(run_id)):
            raise
        raise RunTimedOut(run_id, limit_s or 0.0, f"nothing there has answered {name!r} yet (on_call)") from None
    if settled.outcome == "error":
        raise rebuild_error(settled.error or "{}")
    return _decode(engine.codec, Shown(0, settled.value or "null", settled.codec), as_type, f"answer of run {run_id!r}")


async def _first(engine: Engine, run_id: str, row: int, limit_s: float | None, question: tuple[Any, Any]) -> Any:
    """Wait for the first news of a question; RunEnded if the run ends without any, RunTimedOut after the limit."""
    done: asyncio.Future[Any] = engine.main.create_future()
    over: asyncio.Future[str] = engine.main.create_future()

    def on_news(news: Any) -> None:
        if not done.done():
            done.set_result(news)

    def on_ended(ended: EndedRun) -> None:
        if (ended.status == GONE or Status(ended.status).final) and not over.done():
            over.set_result(ended.status)

    watcher = engine.watcher
    watcher.watch(*question, on_news)
    watcher.watch("end", row, on_ended)
    try:
        async with asyncio.timeout(limit_s):
            await asyncio.wait([done, over], return_when=asyncio.FIRST_COMPLETED)
            if not done.done() and over.result() == GONE:
                raise RunNotFound(run_id)
            if not done.done():  # what came with the end is asked for once more
                looked: asyncio.Future[None] = engine.main.create_future()
                watcher.watch(*question, on_news, functools.partial(_set, looked))
                await looked
                watcher.forget(*question, on_news)
            if not done.done():
                raise RunEnded(run_id)
            return done.result()
    except TimeoutError:
        raise RunTimedOut(run_id, limit_s or 0.0) from None
    finally:
        watcher.forget(*question, on_news)
        watcher.forget("end", row, on_ended)


def _set(looked: asyncio.Future[None]) -> None:
    if not looked.done():
        looked.set_result(None)


def _decode(codec: Codec, shown: Shown, as_type: Any, what: str) -> Any:
    return codec_for(shown.codec, [codec], what=what).decode(shown.value, as_type, where=what)
