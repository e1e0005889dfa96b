"""Outlive in a Starlette application: its life, its errors as answers, the streams of runs as server-sent events.

Invariant: the app is open from before the first request until after the last,
and closed before what the application's own lifespan has opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from outlive import Outlive, Run
from outlive.errors import UsageError
from outlive.integrations.http import STATUSES, answer_to

__all__ = ["event_stream", "exception_handlers", "handle", "lifespan"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
_SEQ_DIGITS = 18  # of the largest item that a database can count, rounded down
_AS_IT_COMES = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would gather some kilobytes first
_KEEP_ALIVE_S = 15.0  # proxies close connections on which nothing comes for a minute or so


def lifespan(app: Outlive, own: Lifespan | None = None) -> Lifespan:
    """Give a lifespan that opens the app: `Starlette(lifespan=lifespan(app))`, also with a lifespan of your own.

    What `own` makes is there before the first step executes and until the last one has ended; the state that it
    yields is kept.
    """

    @asynccontextmanager
    async def enter(application: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with own(application) if own is not None else nullcontext() as state, app:
            yield {**(state or {}), "outlive": app}

    return enter


def handle(connection: HTTPConnection) -> Outlive:
    """Give the app of the request or web socket."""
    app = getattr(connection.state, "outlive", None)
    if not isinstance(app, Outlive):
        raise UsageError("no app is open here: give the application lifespan=outlive.integrations.….lifespan(app)")
    return app


async def _answer(_: Request, error: Exception) -> Response:
    body, status, headers = answer_to(error)
    return JSONResponse(body, status, headers)


# For `Starlette(exception_handlers=…)`: who asks for a run that does not exist gets a 404, and so on.
exception_handlers: dict[Any, Callable[[Request, Exception], Any]] = dict.fromkeys(STATUSES, _answer)


def event_stream(run: Run, name: str, connection: HTTPConnection) -> StreamingResponse:
    """Answer with the items of a stream as server-sent events, past and future, until the run has ended.

    A browser that was cut off goes on where it was (`Last-Event-ID`), whichever process answers. An event `end` says
    that nothing will come any more: close the EventSource then, or it asks again. A number that is none of an item is
    answered with 400.
    """
    seen = connection.headers.get("last-event-id", "")
    if seen.isdecimal() and len(seen) > _SEQ_DIGITS:
        raise HTTPException(400, "Last-Event-ID is the id of an event that was sent here")
    events = _events(run, name, int(seen) if seen.isdecimal() else 0)
    return StreamingResponse(events, media_type="text/event-stream", headers=_AS_IT_COMES)


async def _events(run: Run, name: str, after: int) -> AsyncIterator[bytes]:
    items = run.stream(name, after)
    coming = asyncio.ensure_future(anext(items, None))
    try:
        while True:
            if not (await asyncio.wait([coming], timeout=_KEEP_ALIVE_S))[0]:
                yield b":\n\n"
            elif (item := coming.result()) is None:
                break
            else:
                yield b"id: %d\ndata: %b\n\n" % (item.seq, msgspec.json.encode(item.value))
                coming = asyncio.ensure_future(anext(items, None))
        yield b"event: end\ndata:\n\n"
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
