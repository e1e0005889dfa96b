"""Transfers under load: drawn by seed, started by a client, executed by workers that meet some fate, then audited.

What the fate is, a death, a restart of the server or a lost reply, is the business of each test.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from outlive import Outlive, StoreUnavailable
from tests.crash import bank, databases
from tests.crash.bank import transfer_money
from tests.crash.children import Child

STUCK_S = 90.0
TOGETHER = 20  # starts under way

FINISHED = "select count(*) from outlive_runs where status = 'succeeded'"
OTHERS = "select id, status, error from outlive_runs where status <> 'succeeded'"
TOOK_OVER = re.compile(r"took over (\d+) runs")


class Transfer(NamedTuple):
    """The arguments of one run; its name is the run's id too."""

    name: str
    source: int
    target: int
    cents: int


def draw_seed() -> int:
    """Give the seed of OUTLIVE_TEST_SEED, or a new one, and print it."""
    seed = int(os.environ.get("OUTLIVE_TEST_SEED") or random.randrange(2**32))
    print(f"OUTLIVE_TEST_SEED={seed}")
    return seed


class Load:
    """The transfers of one test on one database, and the workers that carry them out.

    `url` is where the workers connect, `direct` where the audit reads, if that is another way to the same database.
    """

    def __init__(self, url: str, folder: Path, chance: random.Random, *, transfers: int, direct: str = "") -> None:
        self.url = url
        self.direct = direct or url
        self.chance = chance
        self.transfers = [
            Transfer(f"transfer-{number}", *chance.sample(range(bank.ACCOUNTS), 2), chance.randint(1, 500))
            for number in range(transfers)
        ]
        self._folder = folder
        self._finished = 0
        self.children: list[Child] = []  # dead ones included
        self.workers: list[Child] = []
        for sql in bank.TABLES:
            databases.create_table(self.direct, sql)

    # -- workers --------------------------------------------------------------
    def start_worker(self, lease_s: float) -> Child:
        worker = Child("serve", self.url, self._folder, lease_s=lease_s)
        self.children.append(worker)
        return worker

    @contextmanager
    def working(self, count: int, lease_s: float) -> Iterator[None]:
        """Keep so many workers; all of them have to leave in good order, whatever they have met."""
        try:
            self.workers = [self.start_worker(lease_s) for _ in range(count)]
            for worker in self.workers:
                worker.wait_for("ready")
            yield
            for worker in self.workers:
                worker.end()
        finally:
            for worker in self.children:
                worker.kill()

    def replace(self, index: int, lease_s: float) -> None:
        """Kill a worker and start another one."""
        assert self.workers[index].alive, self.workers[index].said
        self.workers[index].kill()
        self.workers[index] = self.start_worker(lease_s)

    def taken_over(self) -> int:
        """Count the runs that workers have taken over from dead ones."""
        return sum(int(runs) for child in self.children for runs in TOOK_OVER.findall(child.said))

    # -- the course -----------------------------------------------------------
    def draw_moments(self, count: int) -> list[int]:
        """Draw after how many finished transfers something happens: a slow machine sees the same as a fast one."""
        return sorted(self.chance.randint(0, int(len(self.transfers) * 0.9)) for _ in range(count))

    def run(self, moments: list[int], happen: Callable[[], None]) -> None:
        """Start everything and wait until it has ended; `happen` at each moment."""
        moments = sorted(moments)
        with ThreadPoolExecutor(1) as threads:
            starting = threads.submit(lambda: asyncio.run(self._start_all()))
            changed_at = time.monotonic()
            while not (starting.done() and self._finished == len(self.transfers)):
                if self._look(starting):
                    changed_at = time.monotonic()
                assert time.monotonic() - changed_at < STUCK_S, self._told()
                while moments and self._finished >= moments[0]:
                    moments.pop(0)
                    time.sleep(self.chance.uniform(0, 0.05))
                    happen()
                time.sleep(0.01)
        assert not moments

    def _look(self, starting: Future[None]) -> bool:
        """Count what is finished, if the database can tell; True if there is progress."""
        if starting.done():
            starting.result()
        try:
            ((finished,),) = databases.read_live(self.direct, FINISHED)
        except Exception as error:
            if databases.is_sqlite(self.direct) and "no such table" not in str(error):
                raise
            return False  # the server is down, or the schema not there yet
        finished, self._finished = self._finished, finished
        return finished != self._finished

    async def _start_all(self) -> None:
        """Start every transfer as a client: the workers are busy already while the last ones come in."""
        client = Outlive(self.url, worker=False)
        await _insist(client.open)
        try:
            for first in range(0, len(self.transfers), TOGETHER):
                await asyncio.gather(
                    *(
                        _insist(lambda transfer=transfer: client.start(transfer_money, *transfer, id=transfer.name))
                        for transfer in self.transfers[first : first + TOGETHER]
                    )
                )
        finally:
            await client.close()

    def _told(self) -> str:
        told = "\n".join(worker.told() for worker in self.workers)
        return f"nothing finished for {STUCK_S:g} s: {databases.read_live(self.direct, OTHERS)[:5]}\n{told}"

    # -- the end ----------------------------------------------------------------
    def audit(self) -> int:
        """Compare the tables with what the transfers should have made of them; give the number of bookings."""
        assert databases.read(self.direct, OTHERS) == []
        balances: dict[int, Any] = dict.fromkeys(range(bank.ACCOUNTS), bank.OPENING_CENTS)
        for transfer in self.transfers:
            balances[transfer.source] -= transfer.cents
            balances[transfer.target] += transfer.cents
        assert dict(databases.read(self.direct, "select number, cents from accounts")) == balances
        booked = sorted(databases.read(self.direct, "select transfer, cents from transfers"))
        assert booked == sorted((transfer.name, transfer.cents) for transfer in self.transfers)
        return len(booked)


async def _insist(ask: Callable[[], Any]) -> None:
    while True:
        try:
            await ask()
            return
        except StoreUnavailable:
            await asyncio.sleep(0.05)
