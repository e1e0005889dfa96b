"""A bank whose workers are killed at random moments: money is conserved, and every transfer is booked once.

The moments are drawn as numbers of finished transfers, so that a slow machine
sees as many transfers between two deaths as a fast one.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outlive import Outlive, StoreUnavailable
from tests.crash import bank, databases
from tests.crash.bank import transfer_money
from tests.crash.children import Child
from tests.crash.points import STORES
from tests.support.postgres import shared_server
from tests.support.size import pick

LEASE_S = 3.0
TRANSFERS = pick(small=200, full=10_000)
KILLS = pick(small=6, full=200)
WORKERS = pick(small=2, full=4)
STUCK_S = 60.0

FINISHED = "select count(*) from outlive_runs where status = 'succeeded'"
OTHERS = "select id, status, error from outlive_runs where status <> 'succeeded'"


def make_bank(store: str, folder: Path) -> str:
    url = f"sqlite:///{folder}/bank.db?driver=apsw"
    if store == "postgres":
        url = shared_server().fresh_database()
    for sql in bank.TABLES:
        databases.create_table(url, sql)
    return url


def draw_transfers(chance: random.Random) -> list[tuple[str, int, int, int]]:
    drawn = []
    for number in range(TRANSFERS):
        source, target = chance.sample(range(bank.ACCOUNTS), 2)
        drawn.append((f"transfer-{number}", source, target, chance.randint(1, 500)))
    return drawn


async def start_all(url: str, transfers: list[tuple[str, int, int, int]]) -> None:
    """Start every transfer as a client: the workers are busy already while the last ones come in."""
    async with Outlive(url, worker=False) as client:
        for first in range(0, len(transfers), 20):
            await asyncio.gather(*(insist(client, transfer) for transfer in transfers[first : first + 20]))


async def insist(client: Outlive, transfer: tuple[str, int, int, int]) -> None:
    while True:
        try:
            await client.start(transfer_money, *transfer, id=transfer[0])
            return
        except StoreUnavailable:
            await asyncio.sleep(0.05)


class Deaths:
    """Keeps workers running and kills one whenever so many transfers are finished as was drawn."""

    def __init__(self, url: str, start: Callable[[], Child], chance: random.Random) -> None:
        self._url = url
        self._start = start
        self._chance = chance
        self._moments = sorted(chance.randint(0, int(TRANSFERS * 0.9)) for _ in range(KILLS))
        self.workers = [start() for _ in range(WORKERS)]
        self.killed = 0

    def live(self) -> None:
        """Kill and replace until everything is finished."""
        changed_at, finished = time.monotonic(), -1
        while finished < TRANSFERS:
            now_finished = databases.read_live(self._url, FINISHED)[0][0]
            if now_finished != finished:
                changed_at, finished = time.monotonic(), now_finished
            assert time.monotonic() - changed_at < STUCK_S, self._told()
            while self._moments and finished >= self._moments[0]:
                self._moments.pop(0)
                self._kill_one()
            time.sleep(0.01)

    def _kill_one(self) -> None:
        time.sleep(self._chance.uniform(0, 0.05))
        index = self._chance.randrange(WORKERS)
        assert self.workers[index].alive, self.workers[index].said
        self.workers[index].kill()
        self.killed += 1
        self.workers[index] = self._start()

    def _told(self) -> str:
        told = "\n".join(worker.told() for worker in self.workers)
        return f"nothing finished for {STUCK_S:g} s: {databases.read_live(self._url, OTHERS)[:5]}\n{told}"


@pytest.mark.timeout(pick(small=120, full=5_000))
@pytest.mark.parametrize("store", STORES)
def test_money_is_conserved(store: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("OUTLIVE_TEST_SEED") or random.randrange(2**32))
    print(f"OUTLIVE_TEST_SEED={seed}")
    chance = random.Random(seed)
    url = make_bank(store, tmp_path)
    transfers = draw_transfers(chance)
    deaths = Deaths(url, lambda: Child("serve", url, tmp_path, lease_s=LEASE_S), chance)
    try:
        for worker in deaths.workers:
            worker.wait_for("ready")
        asyncio.run(start_all(url, transfers))
        deaths.live()
        for worker in deaths.workers:
            worker.end()
    finally:
        for worker in deaths.workers:
            worker.kill()
    assert deaths.killed == KILLS
    check_bank(url, transfers)


def check_bank(url: str, transfers: list[tuple[str, int, int, int]]) -> None:
    """Compare the tables with what the transfers should have made of them."""
    assert databases.read(url, OTHERS) == []
    balances: dict[int, Any] = dict.fromkeys(range(bank.ACCOUNTS), bank.OPENING_CENTS)
    for _, source, target, cents in transfers:
        balances[source] -= cents
        balances[target] += cents
    assert dict(databases.read(url, "select number, cents from accounts")) == balances
    booked = sorted(databases.read(url, "select transfer, cents from transfers"))
    assert booked == sorted((transfer, cents) for transfer, _, _, cents in transfers)
