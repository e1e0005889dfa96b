"""Settings of every test: the stores, async tests, the hypothesis profile, and soak tests only at full size.

The order is random; pytest-randomly prints its seed in the header, and
`make test ARGS="-p randomly --randomly-seed=N"` repeats it.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import random
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from outlive.clock import SystemClock
from outlive.definitions import declared
from outlive.store.interface import Store
from tests.support.evidence import evidence, pytest_runtest_logreport, pytest_sessionfinish
from tests.support.size import SOAK, pick

pytest_plugins = ["pytest_outlive"]  # as installed; here it is found below src
__all__ = ["evidence", "pytest_runtest_logreport", "pytest_sessionfinish"]

settings.register_profile(
    "outlive",
    deadline=None,  # two cores are shared with a database: time says nothing about a property
    max_examples=pick(small=50, full=1_000),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("outlive")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if SOAK:
        items.sort(key=_patience_s, reverse=True)  # the long ones first: no core waits for the other at the end
        return
    left = [item for item in items if item.get_closest_marker("soak")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def _patience_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test on a loop of its own, and fail it if it leaves tasks or threads behind."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    before = set(threading.enumerate())
    with asyncio.Runner() as runner:
        runner.run(_run_alone(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})))
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(timeout=2.0)
    assert not [thread for thread in left if thread.is_alive()], "threads left behind"
    return True


async def _run_alone(test: Coroutine[Any, Any, None]) -> None:
    await test
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"


@pytest.fixture(autouse=True)
def _own_workflows(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hide the workflows of other test modules that have the name of one of this module: an app would serve neither."""
    module = getattr(request, "module", None)
    hidden: list[tuple[str, int, Any]] = []
    for name, places in declared.items():
        others = [
            (number, one) for number, one in list(places.items()) if one.spec.function.__module__ != module.__name__
        ]
        if module is not None and 0 < len(others) < len(places):
            hidden += [(name, number, one) for number, one in others]
            for number, _ in others:
                del places[number]
    yield
    for name, number, one in hidden:
        declared.setdefault(name, weakref.WeakValueDictionary())[number] = one


_seeds = itertools.count(7)  # two stores with the same chance would take each other for themselves


@dataclass(frozen=True)
class Database:
    """An empty database of one kind: `async with database.open() as store`, as often as wanted unless in memory."""

    kind: str
    url: str

    def make(self, **settings: Any) -> Store:
        """Give a store that is not open yet."""
        random_source = random.Random(next(_seeds))
        if self.kind == "postgres":
            from outlive.store.postgres import PostgresStore

            return PostgresStore(self.url, clock=SystemClock(), chance=random_source, **settings)
        from outlive.store.sqlite import SqliteStore

        inline = {"inline": True} if self.kind == "sqlite-memory" else {}
        return SqliteStore(self.url, clock=SystemClock(), chance=random_source, **inline, **settings)

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator[Store]:
        """Open a store on this database, with its schema, and close it at the end."""
        store = self.make(**settings)
        await store.open(migrate=True)
        try:
            yield store
        finally:
            await store.close()


SHARED = ("sqlite", "sqlite-apsw", "postgres")


def _databases(request: pytest.FixtureRequest, folder: Path) -> Iterator[Database]:
    kind: str = request.param
    if kind == "postgres":
        from tests.support.postgres import shared_server  # fails where there is no server: never skipped

        server = shared_server()
        is_bare = getattr(request.module, "UNMIGRATED", False)
        url = server.fresh_database() if is_bare else server.migrated_database()
        yield Database(kind, url)
        server.take_back(url)
        return
    urls = {
        "sqlite": f"sqlite:///{folder / 'test.db'}",
        "sqlite-apsw": f"sqlite:///{folder / 'test.db'}?driver=apsw",
        "sqlite-memory": "sqlite://",
    }
    yield Database(kind, urls[kind])


@pytest.fixture(params=["sqlite-memory", *SHARED])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of each kind."""
    yield from _databases(request, tmp_path)


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of each kind that several stores may open at a time."""
    yield from _databases(request, tmp_path)
