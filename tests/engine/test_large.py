"""Large payloads: they come back whole, whoever reads them, and neither they nor their cap hurt anybody else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import outlive
from outlive import Outlive, PayloadTooLarge, Status, step, workflow
from outlive.limits import BLOB_THRESHOLD_CHARS, PAYLOAD_MAX_BYTES
from outlive.model.writes import Batch, Fence
from outlive.store.postgres import commit
from outlive.store.refusals import WriteRefused
from tests.engine import large_values
from tests.engine.large_values import MB, everything, executed, fails_largely, grow, text, twice

LIMIT_S = 30.0
ROOT = Path(__file__).parents[2]
LARGE = BLOB_THRESHOLD_CHARS + 1
SUM = f"a{MB} s1 v{MB} t{MB + 1} d{2 * MB} "


@pytest.fixture(autouse=True)
def _clean() -> None:
    executed.clear()


async def until(run: outlive.Run, status: Status) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await run.status() != status:
            await asyncio.sleep(0.005)


async def test_everything_large_comes_back_in_a_fresh_process(url: str) -> None:
    async with Outlive(url, include=[large_values]) as app:
        run = await app.start(everything, text("a"), id="large")
        async with asyncio.timeout(LIMIT_S):
            while "f" not in executed:
                await asyncio.sleep(0.001)
    assert sorted(executed)[:1] == ["c"]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.engine.large_values", url, run.id],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said, _, again = done.stdout.partition("executed")
    assert said.split()[:5] == SUM.split()
    assert said.split()[5] == "(8000"  # of the error
    assert said.split()[6:] == [f"w{MB}", str(MB)]
    assert not {"s", "v", "t"} & set(again.split()), "recorded steps were executed again"

    async with Outlive(url, worker=False) as client:
        run = await client.get("large")
        result = await run.result(timeout=LIMIT_S)
        assert result["whole"] == text("v")
        values = {entry.key: entry.value for entry in await run.entries()}
        assert values["grow#2"] == text("v")
        assert values["twice#1"] == text("d") + text("c")
        assert (await (await client.get(result["id"])).result(timeout=LIMIT_S)) == text("e") + text("c")


async def test_a_large_error_is_cut_and_comes_back(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(fails_largely, text("g"))
        with pytest.raises(outlive.RunFailed, match=r"ValueError: .'ggg") as first:
            await run.result(timeout=LIMIT_S)
    async with Outlive(url, worker=False) as client:
        with pytest.raises(outlive.RunFailed) as again:
            await (await client.get(run.id)).result(timeout=LIMIT_S)
    assert str(first.value) == str(again.value)
    assert len(str(first.value)) < 10_000


@pytest.mark.parametrize("size", [BLOB_THRESHOLD_CHARS - 3, BLOB_THRESHOLD_CHARS - 2, BLOB_THRESHOLD_CHARS - 1])
async def test_around_the_threshold(url: str, size: int) -> None:
    async with Outlive(url) as app:
        run = await app.start(sized, text("x", size - 20), size)
        assert await run.result(timeout=LIMIT_S) == text("y", size)
        assert [entry.value for entry in await run.entries()] == [text("y", size)]


@workflow
async def sized(given: str, size: int) -> str:
    return await grow("y", size)


# -- others go on --------------------------------------------------------------------------------


class Gate:
    """Holds up every batch with a large payload, and notes what was written meanwhile."""

    def __init__(self, app: Outlive) -> None:
        store = app._engine().store
        self._commit: Callable[[Batch, Fence | None], Awaitable[Any]] = store.commit
        store.commit = self.commit  # type: ignore[method-assign]
        self.open = asyncio.Event()
        self.waiting = 0
        self.large: list[Batch] = []
        self.small: list[Batch] = []
        self.at_once = self.most_at_once = 0

    async def commit(self, batch: Batch, fence: Fence | None) -> Any:
        if not batch.large:
            self.small.append(batch)
            return await self._commit(batch, fence)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.waiting += 1
        try:
            await self.open.wait()
            self.large.append(batch)
            return await self._commit(batch, fence)
        finally:
            self.at_once -= 1

    async def closed_before(self, count: int) -> None:
        async with asyncio.timeout(LIMIT_S):
            while self.waiting < count:
                await asyncio.sleep(0.001)


@workflow
async def counts(number: int) -> int:
    total = 0
    for _ in range(number):
        total += len(await grow("s", 1))
    return total


@workflow
async def branches_of_different_size() -> list[int]:
    """While the large outcome is being written, the other branch goes on."""
    small = [grow("s", 1) for _ in range(3)]
    return [len(value) for value in await asyncio.gather(grow("l", LARGE), *small)]


async def test_others_go_on_while_a_large_payload_is_written(url: str) -> None:
    async with Outlive(url) as app:
        gate = Gate(app)
        large = await app.start(branches_of_different_size, id="large")
        await gate.closed_before(1)
        starting = asyncio.create_task(app.start(twice, text("z"), id="large-start"))
        for number in range(5):
            assert await app.run(counts, number) == number
        row = large._row
        assert not starting.done()
        gate.small.clear()
        await asyncio.sleep(0.05)
        assert not [entry for batch in gate.small for entry in batch.entries if entry.row == row], "order of one run"
        gate.open.set()
        assert await large.result(timeout=LIMIT_S) == [LARGE, 1, 1, 1]
        assert len(await (await starting).result(timeout=LIMIT_S)) == 2 * MB
        assert gate.most_at_once == 1
        seqs = [entry.seq for entry in await large.entries()]
        assert seqs == sorted(seqs)
        assert all(not batch.large for batch in gate.small)


async def test_what_is_held_back_follows(url: str) -> None:
    """A pause that comes while the large outcome is under way is written after it."""
    async with Outlive(url) as app:
        gate = Gate(app)
        run = await app.start(grows_then_waits, 3600)
        await gate.closed_before(1)
        assert await run.pause("for a while")
        async with asyncio.timeout(LIMIT_S):
            while app._engine().roster.executions[run._row].closed is False:
                await asyncio.sleep(0.001)
        assert await run.status() == Status.RUNNING
        gate.open.set()
        await until(run, Status.PAUSED)
        assert [entry.value for entry in await run.entries()] == [text("l", LARGE)]
        executed.clear()
        await run.resume()
        assert await run.cancel("enough")
        with pytest.raises(outlive.RunCancelled):
            await run.result(timeout=LIMIT_S)
        assert executed == []


@workflow
async def grows_then_waits(delay_s: float = 0.05) -> int:
    value = await grow("l", LARGE)
    await outlive.sleep(delay_s)
    return len(value)


async def test_an_app_that_is_left_writes_what_is_large_first(url: str) -> None:
    async with Outlive(url) as app:
        gate = Gate(app)
        run = await app.start(grows_then_waits, id="left")
        await gate.closed_before(1)
        asyncio.get_running_loop().call_later(0.1, gate.open.set)
    assert executed == ["l"]
    async with Outlive(url) as app:
        assert await (await app.get(run.id)).result(timeout=LIMIT_S) == LARGE
        assert executed == ["l"]


async def test_a_lease_that_is_lost_meanwhile(url: str) -> None:
    async with Outlive(url, lease=1) as app:
        gate = Gate(app)
        run = await app.start(grows_then_waits, id="lost")
        await gate.closed_before(1)
        engine = app._engine()
        lost = engine.fence()
        await engine.store.take_over([lost.worker])
        gate.open.set()
        with pytest.raises(outlive.LeaseLost):
            await run.result(timeout=LIMIT_S)
        assert await (await app.get(run.id)).result(timeout=LIMIT_S) == LARGE
        assert executed == ["l", "l"]


@workflow
async def many(count: int, size: int) -> int:
    values = await outlive.gather(*(grow(chr(97 + number), size) for number in range(count)))
    return sum(map(len, values))


async def test_many_large_ones_at_once(url: str) -> None:
    async with Outlive(url) as app:
        runs = [await app.start(many, 5, LARGE + number) for number in range(10)]
        assert [await run.result(timeout=LIMIT_S) for run in runs] == [5 * (LARGE + number) for number in range(10)]


async def test_a_run_that_has_more_to_write_than_one_statement_holds(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "STATEMENT_MAX_CHARS", 2 * LARGE + 1_000)  # of PostgreSQL; SQLite has no such limit
    async with Outlive(url) as app:
        gate = Gate(app)
        run = await app.start(many, 9, LARGE)
        await gate.closed_before(1)
        async with asyncio.timeout(LIMIT_S):
            while len(executed) < 9:
                await asyncio.sleep(0.001)
        gate.open.set()
        assert await run.result(timeout=LIMIT_S) == 9 * LARGE
        assert [entry.seq for entry in await run.entries()] == list(range(1, 10))


async def test_of_a_run_whose_data_is_refused_the_good_beginning_is_kept(url: str) -> None:
    async with Outlive(url) as app:
        gate = Gate(app)
        commit_really = gate._commit

        async def refuse(batch: Batch, fence: Fence | None) -> Any:
            if any((entry.value or "").startswith('"f') for entry in batch.entries):
                raise WriteRefused("no f")
            return await commit_really(batch, fence)

        gate._commit = refuse
        gate.open.set()
        run = await app.start(many, 9, LARGE)
        with pytest.raises(outlive.RunOnHold, match="no f"):
            await run.result(timeout=LIMIT_S, stop_on_hold=True)
        kept = [entry.value[0] for entry in await run.entries()]
        assert kept == ["a", "b", "c", "d", "e"]
        assert await app.run(counts, 2) == 2
        gate._commit = commit_really
        executed.clear()
        await run.resume()
        assert await run.result(timeout=LIMIT_S) == 9 * LARGE
        assert executed == ["f", "g", "h", "i"]


# -- the cap ---------------------------------------------------------------------------------------


@step
async def too_large_step() -> str:
    return "x" * PAYLOAD_MAX_BYTES


@workflow
async def too_large(what: str) -> str:
    if what == "result":
        return "x" * PAYLOAD_MAX_BYTES
    try:
        return await too_large_step()
    except PayloadTooLarge as error:
        return str(error)


async def test_the_cap(url: str) -> None:
    sentence = r"33,554,4.. bytes, the limit is 33,554,432; store it elsewhere and pass a reference"
    async with Outlive(url) as app:
        with pytest.raises(PayloadTooLarge, match=f"arguments of workflow twice is {sentence}"):
            await app.start(twice, "x" * PAYLOAD_MAX_BYTES, id="never")
        with pytest.raises(outlive.RunNotFound):
            await app.get("never")
        said = await app.run(too_large, "step")
        assert said.startswith("result of step too_large_step is 33,554,434 bytes, the limit is 33,554,432; ")
        run = await app.start(too_large, "result")
        with pytest.raises(PayloadTooLarge, match=f"result of workflow too_large is {sentence}"):
            await run.result(timeout=LIMIT_S)
        assert await run.status() == Status.FAILED
        below = "x" * (PAYLOAD_MAX_BYTES - 100)
        assert await app.run(echo, below) == below


@workflow
async def echo(given: str) -> str:
    return given
