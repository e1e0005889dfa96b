"""FastAPI and Starlette: lifespans, the dependency, errors as answers, streams as events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import outlive
from outlive import Outlive, QueueFull, RunNotFound, StoreUnavailable, UsageError, errors, step, workflow
from outlive.integrations import fastapi, http, starlette
from outlive.integrations.fastapi import Handle


@step
async def double(number: int) -> int:
    return 2 * number


@workflow
async def counts(number: int) -> int:
    for value in range(number):
        await outlive.emit("numbers", {"value": value})
    return await double(number)


def _web(app: Outlive, own: Any = None) -> FastAPI:
    web = FastAPI(lifespan=fastapi.lifespan(app, own), exception_handlers=fastapi.exception_handlers)

    @web.post("/counts/{number}")
    async def start(number: int, app: Handle) -> int:
        return await app.run(counts, number, id=f"counts-{number}")

    @web.get("/counts/{number}/numbers")
    async def numbers(number: int, app: Handle, request: Request) -> Response:
        return fastapi.event_stream(await app.get(f"counts-{number}"), "numbers", request)

    @web.get("/errors/{kind}")
    async def fail(kind: str) -> None:
        raise {"full": QueueFull("mail", 5), "away": StoreUnavailable("no answer")}[kind]

    @web.websocket("/socket")
    async def socket(socket: WebSocket, app: Handle) -> None:
        await socket.accept()
        await socket.send_text(app.name)
        await socket.close()

    return web


def test_requests_start_and_wait(url: str) -> None:
    with TestClient(_web(Outlive(url, name="web"))) as client:
        assert client.post("/counts/3").json() == 6
        with client.websocket_connect("/socket") as socket:
            assert socket.receive_text() == "web"


def test_errors_become_answers(url: str) -> None:
    with TestClient(_web(Outlive(url, worker=False))) as client:
        missing = client.get("/counts/9/numbers")
        assert (missing.status_code, missing.json()) == (404, {"detail": str(RunNotFound("counts-9"))})
        full, away = client.get("/errors/full"), client.get("/errors/away")
        assert [(answer.status_code, answer.headers["retry-after"]) for answer in (full, away)] == [
            (429, "1"),
            (503, "1"),
        ]


# What a handle or a program reports that is no answer to a client: the service has to handle it, or has failed.
FAULTS = {"RunError", "RunFailed", "RunCancelled", "LeaseLost", "PromiseError"}


def test_every_error_about_runs_promises_and_limits_has_an_answer_or_is_a_fault() -> None:
    branches = (outlive.RunError, outlive.PromiseError, outlive.LimitError, LookupError)
    unanswered = {
        name
        for name in errors.__all__
        if issubclass(kind := getattr(errors, name), branches) and not any(one in http.STATUSES for one in kind.__mro__)
    }
    assert unanswered == FAULTS


@pytest.mark.parametrize(("seen", "expected"), [(None, [1, 2, 3]), ("1", [2, 3]), ("3", []), ("no number", [1, 2, 3])])
def test_events_go_on_after_the_last_one_seen(url: str, seen: str | None, expected: list[int]) -> None:
    with TestClient(_web(Outlive(url))) as client:
        client.post("/counts/3")
        headers = {"Last-Event-ID": seen} if seen is not None else {}
        answer = client.get("/counts/3/numbers", headers=headers)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
        *events, end, nothing = answer.text.split("\n\n")
        assert events == [f'id: {seq}\ndata: {{"value":{seq - 1}}}' for seq in expected]
        assert (end, nothing) == ("event: end\ndata:", "")


@pytest.mark.parametrize("seen", ["9" * 19, "1" * 5000])
def test_an_event_that_cannot_be_is_the_clients_fault(url: str, seen: str) -> None:
    with TestClient(_web(Outlive(url))) as client:
        client.post("/counts/1")
        answer = client.get("/counts/1/numbers", headers={"Last-Event-ID": seen})
        assert answer.status_code == 400
        assert "Last-Event-ID" in answer.json()["detail"]


async def test_silence_is_bridged_and_a_client_that_leaves_ends_the_wait(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starlette, "_KEEP_ALIVE_S", 0.01)

    @workflow
    async def silent() -> None:
        await outlive.receive("never")

    async with Outlive(url) as app:
        events = starlette._events(await app.start(silent), "numbers", 0)
        assert [await anext(events) for _ in range(2)] == [b":\n\n"] * 2
        await events.aclose()  # the fixture of async tests fails if a task is left


def test_a_lifespan_of_ones_own_lies_around(url: str) -> None:
    told: list[str] = []
    app = Outlive(url, worker=False)

    @asynccontextmanager
    async def own(web: FastAPI) -> AsyncIterator[dict[str, str]]:
        told.append(f"{type(web).__name__} {app._entered is None}")
        yield {"own": "state"}
        told.append(f"closed {app._entered is None}")

    web = _web(app, own)

    @web.get("/own")
    async def look(request: Request) -> str:
        return f"{request.state.own} {request.state.outlive is app}"

    for _ in range(2):  # an application is started more than once in tests
        with TestClient(web) as client:
            assert client.get("/own").json() == "state True"
    assert told == ["FastAPI True", "closed True"] * 2


async def test_starlette_with_a_mounted_application(url: str) -> None:
    async def name(request: Any) -> PlainTextResponse:
        return PlainTextResponse(starlette.handle(request).name)

    inner = Starlette(routes=[Route("/name", name)])
    web = Starlette(
        routes=[Mount("/inner", inner)], lifespan=starlette.lifespan(Outlive(url, name="outer", worker=False))
    )
    with TestClient(web) as client:
        assert client.get("/inner/name").text == "outer"


async def test_without_the_lifespan_it_says_so() -> None:
    web = FastAPI()

    @web.get("/")
    async def look(app: Handle) -> None:
        """Never called."""

    async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://test") as client:
        with pytest.raises(UsageError, match="lifespan"):
            await client.get("/")
