"""A database of each kind, with runs in it, and a user's module beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import outlive
from tests.support.command_line import CommandLine
from tests.support.postgres import shared_server

SHOP = """
import asyncio, os
import outlive
from outlive import Outlive, step, workflow

@step
async def price(item: str) -> int:
    return len(item)

@workflow
async def order(item: str) -> int:
    return await price(item)

@workflow
async def broken() -> None:
    raise ValueError("no such item")

@workflow
async def patient() -> None:
    await outlive.sleep(days=1)

app = Outlive(os.environ["OUTLIVE_URL"], include=[order, broken, patient], name="shop")
client = Outlive(os.environ["OUTLIVE_URL"], worker=False)
number = 7

def make_app() -> Outlive:
    return app

plain = outlive.sync.Outlive(os.environ["OUTLIVE_URL"], include=[order])
"""


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/cli.db"
        return
    server = shared_server()
    fresh = server.migrated_database() if "played" in request.fixturenames else server.fresh_database()
    yield fresh
    server.take_back(fresh)


@pytest.fixture
def run_cli(url: str, tmp_path: Path) -> CommandLine:
    (tmp_path / "shop.py").write_text(SHOP)
    return CommandLine(url, tmp_path)


@outlive.step
async def price(item: str) -> int:
    return len(item)


@outlive.workflow
async def order(item: str) -> int:
    return await price(item)


@outlive.workflow
async def broken() -> None:
    raise ValueError("no such item")


@outlive.workflow
async def patient() -> None:
    await outlive.sleep(days=1)


@pytest.fixture
def played(url: str) -> Callable[[], None]:
    """Leave a finished run, a failed one and one that waits; the app is closed again."""

    async def play() -> None:
        async with outlive.Outlive(url, include=[order, broken, patient]) as app:
            assert await app.run(order, "tea", id="order-1") == 3
            with pytest.raises(ValueError, match="no such item"):
                await app.run(broken, id="broken-1")
            await app.start(patient, id="patient-1")

    asyncio.run(play())
    return play
