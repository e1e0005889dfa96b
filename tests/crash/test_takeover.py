"""How soon peers take over, who is blamed for a death, and what becomes of a process that stands still."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from outlive import Outlive
from outlive.limits import QUARANTINE_CRASHES
from tests.crash import databases, scenario
from tests.crash.children import PATIENCE_S, Child
from tests.crash.conftest import make_url
from tests.crash.points import STORES
from tests.crash.records import read_ledger
from tests.support.evidence import Evidence
from tests.support.size import CALM_LEASE_S

FINISHED = "select count(*) from outlive_runs where status = 'succeeded'"
STATUSES = "select id, status from outlive_runs"


def as_client(url: str, ask: Callable[[Outlive], Awaitable[Any]]) -> Any:
    """Do something as a program that does not work itself."""

    async def run() -> Any:
        async with Outlive(url, worker=False) as client:
            return await ask(client)

    return asyncio.run(run())


def wait_until(condition: Callable[[], bool], *children: Child, timeout_s: float = PATIENCE_S) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "\n".join(child.told() for child in children)
        time.sleep(0.005)


def executed(folder: Path, key: str, times: int = 1) -> Callable[[], bool]:
    return lambda: [place[1] for place in read_ledger(folder)].count(key) >= times


def kill_and_measure(victim: Child, peer: Child, folder: Path) -> float:
    """Kill the process that executes `stall`; give how long it took until a peer executed it again."""
    killed_at = time.time()
    victim.kill()
    wait_until(executed(folder, "stall#1", 2), peer)
    return executed_again_at(folder) - killed_at


def executed_again_at(folder: Path) -> float:
    return float(json.loads((folder / "ledger").read_text().splitlines()[-1])["at"])


@pytest.mark.parametrize("store", STORES)
def test_a_dead_peer_on_this_host_is_replaced_at_once(store: str, tmp_path: Path, evidence: Evidence) -> None:
    lease_s = 4 * PATIENCE_S
    url = make_url(store, tmp_path, several=True)
    with Child("serve", url, tmp_path, lease_s=lease_s) as victim:
        victim.wait_for("ready")
        as_client(url, lambda client: client.start(scenario.stalls, id="stalls"))
        wait_until(executed(tmp_path, "stall#1"), victim)
        with Child("serve", url, tmp_path, lease_s=lease_s) as peer:
            peer.wait_for("ready")
            took_s = kill_and_measure(victim, peer, tmp_path)
            assert took_s < lease_s / 2, "it was the lease that told"
            wait_until(lambda: databases.read_live(url, FINISHED) == [(1,)], peer)
    evidence("takeover after a death", store, lock_tells_after_s=f"{took_s:.2f}")


@pytest.mark.parametrize("store", STORES)
def test_a_peer_takes_over_within_the_lease_where_no_lock_tells(store: str, tmp_path: Path, evidence: Evidence) -> None:
    lease_s = 1.5
    url = make_url(store, tmp_path, several=True)
    with Child("serve", url, tmp_path, lease_s=lease_s) as victim:
        victim.wait_for("ready")
        as_client(url, lambda client: client.start(scenario.stalls, id="stalls"))
        wait_until(executed(tmp_path, "stall#1"), victim)
        for (path,) in databases.read_live(url, "select lock_path from outlive_workers"):
            Path(path).unlink()
        with Child("serve", url, tmp_path, lease_s=lease_s) as peer:
            peer.wait_for("ready")
            before = "extract(epoch from expires_at)" if store == "postgres" else "unixepoch(expires_at, 'subsec')"
            ((expires_at,),) = databases.read_live(
                url, f"select {before} from outlive_workers where pid = {victim.pid}"
            )
            took_s = kill_and_measure(victim, peer, tmp_path)
            assert executed_again_at(tmp_path) >= float(expires_at)
            wait_until(lambda: databases.read_live(url, FINISHED) == [(1,)], peer)
    evidence("takeover after a death", store, lease_s=f"{lease_s}", lease_tells_after_s=f"{took_s:.2f}")


@pytest.mark.parametrize("store", STORES)
def test_a_blocked_loop_is_reported_and_its_runs_move_on(store: str, tmp_path: Path, evidence: Evidence) -> None:
    lease_s = 1.0
    url = make_url(store, tmp_path, several=True)
    with Child("serve", url, tmp_path, lease_s=lease_s) as blocked:
        blocked.wait_for("ready")

        async def start(client: Outlive) -> None:
            await client.start(scenario.innocent, 0.3, id="beside")
            await client.start(scenario.blocks, 4 * lease_s, id="blocks")

        as_client(url, start)
        wait_until(executed(tmp_path, "block#1"), blocked)
        with Child("serve", url, tmp_path, lease_s=lease_s) as peer:
            wait_until(lambda: databases.read_live(url, FINISHED) == [(2,)], blocked, peer)
            assert "took over" in peer.said
            blocked.wait_for("lease lost")
            assert "the event loop has been blocked" in blocked.said
            assert "in block" in blocked.said  # the stack names the culprit
            as_client(url, lambda client: client.start(scenario.errand, 1, id="later"))
            wait_until(lambda: databases.read_live(url, FINISHED) == [(3,)], blocked, peer)
            peer.end()
            blocked.end()
    if "lease lost" not in peer.said:  # else a busy machine has stopped that one too
        assert read_ledger(tmp_path).count(("blocks", "block#1")) == 2
    evidence("blocked loop is reported and its runs move on", store, lease_s=lease_s, blocked_for_s=4 * lease_s)


@pytest.mark.parametrize("store", STORES)
def test_only_the_poisonous_run_is_quarantined(store: str, tmp_path: Path, evidence: Evidence) -> None:
    url = make_url(store, tmp_path, several=True)
    innocents = 12

    async def start(client: Outlive) -> None:
        for number in range(innocents):
            await client.start(scenario.innocent, 0.05 * number, id=f"innocent-{number}")
        await client.start(scenario.sleeps_long, id="sleeper")
        await client.start(scenario.poison, id="poison")
        for number in range(innocents):
            await client.start(scenario.order, f"book {number}", 100, id=f"order-{number}")

    def finished() -> bool:
        statuses = dict(databases.read_live(url, STATUSES))
        held = {run_id for run_id, status in statuses.items() if status in ("paused", "quarantined")}
        assert held <= {"poison"}, held
        return statuses["poison"] == "quarantined" and set(statuses.values()) == {"quarantined", "succeeded"}

    as_client(url, start)
    workers = [Child("serve", url, tmp_path, lease_s=CALM_LEASE_S) for _ in range(2)]
    deaths = 0
    try:
        until = time.monotonic() + PATIENCE_S
        while not finished():
            assert time.monotonic() < until, "\n".join(worker.told() for worker in workers)
            for index, worker in enumerate(workers):
                if not worker.alive:
                    worker.kill()
                    deaths += 1
                    workers[index] = Child("serve", url, tmp_path, lease_s=CALM_LEASE_S)
            time.sleep(0.01)
        deaths += sum(not worker.alive for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
    assert deaths == read_ledger(tmp_path).count(("poison", "kill_own_process#1")) == QUARANTINE_CRASHES
    assert sorted(databases.read(url, "select count(*) from bookings")) == [(2 * innocents,)]
    evidence(
        "poisonous run among innocent ones", store, deaths=deaths, quarantined=1, innocents_finished=2 * innocents + 1
    )
