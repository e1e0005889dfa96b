"""The simulated household: parents with children, and operators who pause, fork, rewind and delete, one or many.

What a body returns is another mark at each execution, so that nothing is
executed again unseen.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import outlive
from outlive import Outlive, RunNotFound, RunRefused, Status, StoreUnavailable, step, workflow
from outlive.testing import Simulation, SimWorld
from outlive.testing.world import finish
from tests.sim.insist import insist as insist_slowly

PARENTS = ("returns", "cancelled", "late")
TEAMS = {"a": 5, "b": 2}
CHILD = "cancelled/endless#2"  # that its parent awaits
DEADLINE_S = 30.0
PATCHED = 1_000_000
insist = partial(insist_slowly, pause_s=0.05)

world_of_test: SimWorld | None = None
marks = itertools.count(1)
held: set[str] = set()  # runs that an operator has seen paused
told_enough: set[str] = set()
gone: set[str] = set()
past: dict[tuple[int, int], list[tuple[Any, ...]]] = {}  # the journals of generations, as they were when they ended


@step
async def mark() -> int:
    world, info = world_of_test, outlive.info()
    assert world is not None and isinstance(info, outlive.StepInfo)
    process = next(process for process in world.processes if process.loop is asyncio.get_running_loop())
    if info.run_id in held and not process.outrun:
        world.problem(f"{info.run_id} executes while it is paused")
    await asyncio.sleep(world.chance.expovariate(1 / 0.01))
    return next(marks)


@workflow
async def walk() -> list[int]:
    made = []
    for _ in range(4):
        made.append(await mark())
        await outlive.sleep(0.2)
    return made


@workflow
async def hurry() -> list[int]:
    return [await mark() for _ in range(12)]


@workflow
async def walk_on() -> int:
    """Walk until somebody says that it is enough."""
    count = 0
    while not await outlive.receive("enough", timeout=0.2, default=False):
        await mark()
        count += 1
    return count


@workflow
async def endless() -> None:
    await outlive.sleep(100_000)


@workflow
async def brief() -> str:
    await outlive.sleep(2 * DEADLINE_S)
    return "done"


@workflow
async def parent(how: str) -> None:
    """End in a way, with a child that ends with it and one that does not."""
    await outlive.start(endless, id=f"{how}/goes")
    await outlive.start(brief, id=f"{how}/stays", parent_close="abandon")
    if how == "cancelled":
        await endless()
    elif how == "late":
        async with outlive.shielded():
            await outlive.sleep(4 * DEADLINE_S)
    await outlive.sleep(0.5)


@workflow
async def family(depth: int) -> int:
    return await mark() if depth == 0 else await family(depth - 1)


KINDS = (walk, hurry, walk_on, endless, brief, parent, family)


async def drive(app: Outlive, world: SimWorld) -> None:
    """Start all, then be all operators at once; again from the top after a death."""
    held.clear()
    starts: list[Callable[[], Awaitable[Any]]] = [
        lambda: app.start(walk, id="forked"),
        lambda: app.start(walk_on, id="paused"),
        *(lambda number=number: app.start(hurry, id=f"rewound {number}") for number in range(3)),
        *(
            lambda how=how: app.start(parent, how, id=how, deadline=DEADLINE_S if how == "late" else None)
            for how in PARENTS
        ),
        *(
            lambda team=team, number=number: app.start(endless, id=f"{team} {number}", attributes={"team": team})
            for team, count in TEAMS.items()
            for number in range(count)
        ),
    ]
    for start in starts:
        await insist(start)
    await asyncio.gather(
        fork(app),
        pause(app, world),
        *(rewind(app, world, f"rewound {number}") for number in range(3)),
        cancel_parent(app, world),
        disband(app, world),
        delete(app, world),
    )


async def fork(app: Outlive) -> None:
    """Fork a run once it is past a point, with another value before it."""
    run = await insist(lambda: app.get("forked"))
    while not any(entry.key == "mark#3" and entry.seq for entry in await insist(run.entries)):
        await asyncio.sleep(0.1)
    await insist(lambda: run.fork("mark#3", {"mark#2": PATCHED}, id="fork"))


async def pause(app: Outlive, world: SimWorld) -> None:
    """Pause a run, look at it for a while, and let it go on; it cannot end before it was paused."""
    run = await insist(lambda: app.get("paused"))
    await asyncio.sleep(world.chance.uniform(0, 1))
    if "paused" not in told_enough:
        with contextlib.suppress(RunRefused):
            await insist(run.delete)
            world.problem("a run is deleted that has not ended")
    await insist(lambda: run.pause("wait"))
    while "paused" not in told_enough:
        status = await insist(run.status)
        if status.final:
            world.problem(f"it is {status}, and was to be paused")
            return
        if status == Status.PAUSED:
            held.add("paused")
            await asyncio.sleep(world.chance.uniform(0, 1))
            held.clear()
            await insist(run.resume)
            told_enough.add("paused")
        await asyncio.sleep(0.05)
    while not (await insist(run.status)).final:
        await insist(run.resume)  # an operator who died may have asked twice
        await insist(lambda: app.send("paused", "enough", True, key="enough"))
        await asyncio.sleep(0.2)


async def rewind(app: Outlive, world: SimWorld, run_id: str) -> None:
    """Rewind a run once, whenever; let it go on if an operator died over it."""
    run = await insist(lambda: app.get(run_id))
    while (await insist(run.info)).generation == 0:
        if any(entry.key == "mark#2" and entry.seq for entry in await insist(run.entries)):
            with contextlib.suppress(RunRefused):  # by a try before, whose reply was lost
                await insist(lambda: run.rewind("mark#2"))
        await asyncio.sleep(0.05)
    while not (status := await insist(run.status)).final:
        if status == Status.PAUSED:
            await insist(run.resume)
        await asyncio.sleep(0.2)


async def cancel(app: Outlive, world: SimWorld, run_id: str, reason: str) -> None:
    run = await insist(lambda: app.get(run_id))
    await asyncio.sleep(world.chance.uniform(0, 1))
    await insist(lambda: run.cancel(reason))


async def cancel_parent(app: Outlive, world: SimWorld) -> None:
    while not world.sql(f"select 1 from ol_runs where id = '{CHILD}'"):
        await asyncio.sleep(0.1)
    await cancel(app, world, "cancelled", "enough")


async def disband(app: Outlive, world: SimWorld) -> None:
    """Cancel a team in bulk, which leaves the other one alone; then that one by hand."""
    count = await insist(lambda: app.cancel("team:a", dry_run=True))
    unfinished = world.sql("select count(*) from ol_live join ol_runs using (row) where id like 'a %'")
    if "a" not in told_enough and unfinished != [(count,)]:
        world.problem(f"{count} would be cancelled of {unfinished}")
    told_enough.add("a")
    await insist(lambda: app.cancel("team:a", reason="all of them"))
    await asyncio.gather(*(cancel(app, world, f"b {number}", "by hand") for number in range(TEAMS["b"])))


async def delete(app: Outlive, world: SimWorld) -> None:
    """Delete a family, which is refused before it has ended."""
    while "doomed" not in gone:
        run = await insist(lambda: app.start(family, 2, id="doomed"))
        try:
            await insist(partial(run.delete, children=True))
        except RunRefused:
            await asyncio.sleep(0.1)
            continue
        except RunNotFound:
            pass  # by an attempt before
        gone.add("doomed")


def prepare(world: SimWorld) -> None:
    """Watch what becomes of generations and families."""
    global world_of_test, marks
    world_of_test, marks = world, itertools.count(1)
    for known in (held, told_enough, gone, past):
        known.clear()  # type: ignore[attr-defined]
    store: Any = world.store
    commit, reopen, delete_runs = store.commit, store.reopen, store.delete_runs

    async def lossy_commit(batch: Any, fence: Any) -> Any:
        """Lose replies where it matters: the run is let go, and what is sent again may come after a rewind."""
        committed = await commit(batch, fence)
        if any(release.hold for release in batch.releases) and world.chance.random() < 0.5:
            world.log("lose_reply to a pause")
            raise StoreUnavailable("simulated: the reply to a pause was lost", outcome_unknown=True)
        return committed

    async def watched_reopen(reopenings: Any, note: Any) -> bool:
        journals = {(one.row, one.generation): _read_journal(world, one.row) for one in reopenings}
        reopened = await reopen(reopenings, note)
        if reopened:
            past.update(journals)
        return reopened  # type: ignore[no-any-return]

    async def watched_delete(rows: Any, note: Any) -> Any:
        unfinished = world.sql("select count(*) from ol_live join ol_runs using (row) where id like 'doomed%'")
        answer = await delete_runs(rows, note)
        left = world.sql("select id from ol_runs where id like 'doomed%'")
        if note.target == "doomed" and (unfinished == [(0,)]) is not (not left):
            world.problem(f"{unfinished} have not ended, and {left} are left")
        return answer

    store.commit, store.reopen, store.delete_runs = lossy_commit, watched_reopen, watched_delete


def _read_journal(world: SimWorld, row: int) -> list[tuple[Any, ...]]:
    return world.sql(f"select key, seq, outcome, value from ol_entries where row = {row} order by key")


def check(world: SimWorld, simulation: Simulation) -> None:
    """Everybody has ended as he should, with the marks that only his own journal can give."""
    runs = simulation.runs
    wanted = {"forked": "succeeded", "fork": "succeeded", "paused": "succeeded"}
    wanted |= {f"rewound {number}": "succeeded" for number in range(3)}
    wanted |= {"returns": "succeeded", "cancelled": "cancelled", "late": "failed", CHILD: "cancelled"}
    wanted |= {f"{how}/goes": "failed" if how == "late" else "cancelled" for how in PARENTS}
    wanted |= {f"{how}/stays": "succeeded" for how in PARENTS}
    wanted |= {f"{team} {number}": "cancelled" for team, count in TEAMS.items() for number in range(count)}
    ends = {run_id: run.status for run_id, run in runs.items()}
    assert ends == wanted, {
        run_id: (ends.get(run_id), end) for run_id, end in wanted.items() if ends.get(run_id) != end
    }
    assert "DeadlineExceeded" in (runs["late/goes"].error or "")
    for team, reason in (("a", "all of them"), ("b", "by hand")):
        assert all(reason in (runs[f"{team} {number}"].error or "") for number in range(TEAMS[team])), team
    origin, fork = (json.loads(runs[run_id].output or "null") for run_id in ("forked", "fork"))
    assert fork[:2] == [origin[0], PATCHED] and not set(fork[2:]) & set(origin), f"{origin} was forked as {fork}"
    for (row, generation), journal in past.items():
        kept = finish(world.store.list_past(row, generation))  # type: ignore[arg-type]
        found = sorted((entry.key, entry.seq, entry.outcome, entry.value) for entry in kept)
        assert found == sorted(journal), f"generation {generation} was {journal}, and is {found}"
        (run,) = (run for run in runs.values() if run.row == row)
        made = json.loads(run.output or "null")
        dropped = {value for key, _, outcome, value in journal if key.startswith("mark") and key != "mark#1"}
        assert not dropped & {str(one) for one in made[1:]}, f"{run.id} has kept {dropped}: {made}"
