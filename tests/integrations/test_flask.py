"""Flask: the extension, its commands, errors as answers, application contexts in steps, forks."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, current_app

from outlive import LimitError, RunNotFound, UsageError, step, sync, workflow
from outlive.integrations.flask import FlaskOutlive, current_outlive


@step
def name_of_app() -> str:
    return current_app.config["NAME"]


@workflow
def asks() -> str:
    return name_of_app()


def _make(url: str, **config: Any) -> Flask:
    web = Flask("shop")
    web.config.update(OUTLIVE_URL=url, NAME="the shop", **config)
    FlaskOutlive().init_app(web)

    @web.get("/run")
    def run() -> str:
        return current_outlive.run(asks)

    @web.get("/runs/<id>")
    def look(id: str) -> str:
        return current_outlive.get(id).status()

    @web.get("/async/<id>")
    def look_async(id: str) -> str:
        async def view() -> str:
            return await asyncio.to_thread(lambda: current_outlive.get(id).status())

        return asyncio.run(view())

    @web.get("/full")
    def fail() -> None:
        raise LimitError("the queue is full")

    return web


@pytest.fixture
def web(url: str) -> Iterator[Flask]:
    web = _make(url, OUTLIVE_WORKER=True)
    assert web.test_cli_runner().invoke(args=["outlive", "db", "migrate"]).exit_code == 0
    yield web
    with web.app_context():
        current_outlive.close()


def test_requests_and_steps(web: Flask) -> None:
    client = web.test_client()
    with web.app_context():
        current_outlive.start(asks, id="one")
    assert client.get("/async/one").status_code == 200
    assert client.get("/run").text == "the shop"
    missing, full = client.get("/runs/none"), client.get("/full")
    assert (missing.status_code, missing.get_json()) == (404, {"detail": str(RunNotFound("none"))})
    assert (full.status_code, full.headers["Retry-After"]) == (429, "1")


def test_all_threads_share_one_app(web: Flask) -> None:
    found = []

    def look() -> None:
        with web.app_context():
            found.append(current_outlive._get_current_object())  # type: ignore[attr-defined]

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_commands(web: Flask) -> None:
    with web.app_context():
        current_outlive.start(asks, id="one").result()
    run = web.test_cli_runner().invoke
    assert [row["id"] for row in json.loads(run(args=["outlive", "runs", "ls", "--json"]).stdout)["runs"]] == ["one"]
    missing = run(args=["outlive", "runs", "show", "none"])
    assert missing.exit_code == 3
    assert "no run 'none'" in missing.output
    assert run(args=["outlive", "worker", "--help"]).exit_code == 0
    assert run(args=["outlive", "queues", "pause", "mail", "--reason", "strike"]).exit_code == 0
    assert "strike" in run(args=["outlive", "audit"]).stdout


def test_web_processes_make_no_tables(bare_url: str) -> None:
    web = _make(bare_url)
    with web.app_context(), pytest.raises(Exception, match="db migrate"):
        current_outlive.name  # noqa: B018


@pytest.mark.parametrize("config", [{}, {"OUTLIVE_URL": ""}])
def test_what_is_missing_is_said(config: dict[str, str]) -> None:
    web = Flask("shop")
    web.config.update(config)
    if config:
        FlaskOutlive(web)
    with web.app_context(), pytest.raises(UsageError, match=r"FlaskOutlive\(app\)" if not config else "OUTLIVE_URL"):
        current_outlive.name  # noqa: B018


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forks with threads, which servers do too
def test_a_forked_process_opens_its_own(web: Flask) -> None:
    with web.app_context():
        current_outlive.start(asks, id="before").result()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 7 if current_outlive.get("before").result() == "the shop" else 2
                current_outlive.close()
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert isinstance(current_outlive.get("before"), sync.Run)
