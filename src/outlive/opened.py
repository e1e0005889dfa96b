"""The life of an app: entered, left, and refused where it cannot be used. The parts of its face are built on it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

from outlive.clock import Clock, Duration, SystemClock, seconds
from outlive.codec.jsontext import JsonCodec
from outlive.codec.payload import Codec
from outlive.engine.engine import Engine, Options
from outlive.engine.filelock import FileLocks
from outlive.engine.transactions import current_transaction
from outlive.errors import UsageError
from outlive.limits import LEASE_MIN_S
from outlive.model.options import check_queue_name
from outlive.registry import Registry, check_include
from outlive.store.factory import make_store
from outlive.store.interface import Store

Declare = Callable[[Engine], Awaitable[None]]


class World:
    """What an app takes from the outside: time, chance, stores, locks. The simulator puts its own in the place."""

    threaded = True

    def __init__(self) -> None:
        self.clock: Clock = SystemClock()
        self.chance = random.Random(random.SystemRandom().getrandbits(128))
        self.secrets: random.Random = random.SystemRandom()
        self.locks = FileLocks()

    def make_store(self, url: str, pool_size: int) -> Store:
        """Give the store of a URL, not yet opened."""
        chance = random.Random(self.chance.getrandbits(64))
        return make_store(url, clock=self.clock, chance=chance, pool_size=pool_size)

    def main_loop(self) -> asyncio.AbstractEventLoop:
        """Give the loop that the engine lives on: the one that runs."""
        return asyncio.get_running_loop()

    async def sleep(self, delay_s: float) -> None:
        """Let the time pass between two attempts of a step."""
        await asyncio.sleep(delay_s)


class Opened:
    """The settings of an app, and its engine while it is open. `Outlive` says what the settings mean."""

    def __init__(
        self,
        url: str,
        *,
        include: Iterable[Any] | None = None,
        worker: bool = True,
        name: str | None = None,
        lease: Duration = 15.0,
        grace: Duration = 10.0,
        pool_size: int = 5,
        max_running: int = 1000,
        migrate: bool = True,
        codec: Codec | None = None,
        queues: Iterable[str] | None = None,
    ) -> None:
        self.name = name if name is not None else f"outlive-{os.getpid()}"
        lease_s = seconds(lease)
        if lease_s < LEASE_MIN_S:
            raise UsageError(f"lease=… is at least {LEASE_MIN_S} seconds, not {lease_s:g}")
        if max_running < 1 or pool_size < 2:
            raise UsageError("max_running=… is at least 1 and pool_size=… at least 2")
        self._options = Options(
            codec=_check_codec(codec) if codec is not None else JsonCodec(),
            worker=worker,
            name=self.name,
            lease_s=lease_s,
            grace_s=seconds(grace),
            max_running=max_running,
            queues=_check_queues(queues),
        )
        self._url = url
        self._pool_size = pool_size
        self._migrate = migrate
        self._include = check_include(include)
        self._declarations: dict[tuple[str, str], Declare] = {}  # by kind and name: what is put into the store on entry
        self._entered: Engine | None = None
        self._pid = 0
        self._world = World()
        self._world.make_store(url, pool_size)  # a wrong URL fails here

    def _adjust(self, url: str | None, queues: Iterable[str] | None) -> None:
        """Take what a command line says in the place of what the program does; None leaves it. Only before `open`."""
        if url is not None and url != self._url:
            if self._entered is not None:
                raise UsageError("this app is open already, and cannot be given another database")
            self._world.make_store(url, self._pool_size)  # a wrong URL fails here
            self._url = url
        if queues is not None:
            self._options.queues = _check_queues(queues)

    # -- life ---------------------------------------------------------------
    async def open(self) -> Self:
        """Connect, migrate if asked, and begin to work. The same as entering `async with`."""
        if self._entered is not None:
            raise UsageError("this app is open already; make another Outlive(...) for another loop or block")
        registry = Registry(self._include)
        world = self._world
        engine = Engine(world.make_store(self._url, self._pool_size), world, registry, self._options)
        self._pid = os.getpid()
        try:
            await engine.open(migrate=self._migrate)
            for declare in self._declarations.values():
                await declare(engine)
        except BaseException:
            await engine.close()
            raise
        self._entered = engine
        return self

    async def close(self) -> None:
        """Stop claiming, let steps finish within the grace, release the runs; waiting runs stay as they are."""
        engine = self._engine()
        self._entered = None
        await engine.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_exc: object) -> None:
        if self._entered is not None:
            await self.close()

    def _engine(self, *, joining: bool = False) -> Engine:
        """Give the engine, or say why this app cannot be used here. `joining`: the call brings a transaction along."""
        engine = self._entered
        if engine is None:
            raise UsageError("this app is not open: use it inside `async with Outlive(...) as app:`")
        if os.getpid() != self._pid:
            raise UsageError("this app was opened before a fork; open one in each process")
        if asyncio._get_running_loop() is not engine.main:
            raise UsageError(
                "this app belongs to another event loop; in a workflow body use outlive.start and the other "
                "functions of `outlive`, in another thread open an app of its own"
            )
        inside = current_transaction.get()
        if inside is not None and not joining:
            raise UsageError(
                f"the app was used inside a transaction ({inside}), which holds the database: start runs with "
                "app.start(…, tx=tx), and do everything else in a step or in the workflow"
            )
        return engine


def _check_codec(codec: Any) -> Codec:
    if isinstance(codec, type) or not all(hasattr(codec, name) for name in ("id", "encode", "decode")):
        raise UsageError(f"codec=… is an object with an id, encode(…) and decode(…), not {codec!r}")
    return codec  # type: ignore[no-any-return]


def _check_queues(queues: Iterable[str] | None) -> list[str] | None:
    if queues is None:
        return None
    if isinstance(queues, str):
        raise UsageError(f"queues=… is a list of names, not the text {queues!r}")
    return [check_queue_name(name) for name in queues]
