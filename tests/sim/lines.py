"""The simulated queues: three workers, kills and lost replies, and at each claim a model that says what it may give.

What is counted here comes from which runs have begun and not ended, not from
what the store notes about slots; so a store that notes wrongly is found out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import outlive
from outlive import Outlive, step, workflow
from outlive.model.line import QueueLimits
from outlive.testing import Simulation, SimWorld
from tests.property.line_model import LineModel, Waiting
from tests.sim.insist import insist

RUNS = 24
QUEUES = {
    "q": QueueLimits(concurrency=4, per_worker=2, per_key=2),
    "r": QueueLimits(rate=(2, 2.0), rate_per_key=(1, 3.0)),
}
world_of_test: SimWorld | None = None
admissions: dict[str, list[tuple[float, float, str]]] = {}  # by the database's clock, and by one that does not jump
remembered: dict[str, list[tuple[float, str]]] = {}  # those that count: what has left a window stays out of it
served: dict[str, str] = {}
latest = 0.0  # the latest time of a claim: the clock may jump back


def _world() -> SimWorld:
    assert world_of_test is not None
    return world_of_test


@step
async def work(run_id: str) -> str:
    await asyncio.sleep(_world().chance.expovariate(1 / 0.05))
    return run_id


@workflow
async def lined(run_id: str, rest_s: float) -> str:
    """A run of a queue: it works, rests out of memory, and works again."""
    world = _world()
    rows = world.sql(f"select l.line from ol_live l join ol_runs r on r.row = l.row where r.id = '{run_id}'")
    if rows not in ([("admitted",)], []):
        world.problem(f"{run_id} executes while it is {rows[0][0]}")
    await work(run_id)
    await outlive.sleep(rest_s)
    return await work(run_id)


async def drive(app: Outlive, world: SimWorld) -> None:
    for number in range(RUNS):
        run_id, queue = f"l{number}", "qr"[number % 3 == 2]
        options = {
            "id": run_id,
            "queue": queue,
            "key": world.chance.choice(["a", "a", "a", "b", "c", None]),
            "priority": world.chance.choice([0, 0, 0, 1, -1]),
            "delay": world.chance.choice([None, None, None, 0.7]),
        }
        await insist(lambda options=options, run_id=run_id: app.start(lined, run_id, 0.3, **options))
        if number % 8 == 7:
            run = await app.get(run_id)
            await insist(lambda run=run: run.cancel("no need"))
        if number % 3 == 1:
            run = await app.get(f"l{world.chance.randrange(number + 1)}")
            when = world.chance.choice([None, 0, 0.4, 1.1]), None, world.chance.choice([0, 1, -1])
            await insist(lambda run=run, when=when: run.reschedule(*when))
        await asyncio.sleep(world.chance.uniform(0, 0.05))


def prepare(world: SimWorld) -> None:
    """Declare the queues, and watch each claim."""
    global world_of_test, latest
    world_of_test, latest = world, 0.0
    admissions.clear()
    served.clear()
    for queue, limits in QUEUES.items():
        rate, per_key = (f"[{r[0]}, {r[1]}]" if r else "null" for r in (limits.rate, limits.rate_per_key))
        text = (
            f'{{"concurrency": {limits.concurrency or "null"}, "per_worker": {limits.per_worker or "null"}, '
            f'"per_key": {limits.per_key or "null"}, "rate": {rate}, "rate_per_key": {per_key}}}'
        )
        world.sql(f"insert into ol_queues (queue, declared, limits) values ('{queue}', '{text}', '{text}')")
        admissions[queue], remembered[queue], served[queue] = [], [], ""
    store: Any = world.store
    claim, claim_line, reschedule = store.claim, store.claim_line, store.reschedule

    async def watched_claim(*args: Any, **options: Any) -> Any:
        claimed = await claim(*args, **options)
        _check_limits(world)
        return claimed

    async def watched_reschedule(*args: Any, **options: Any) -> Any:
        global latest
        latest = max(latest, world.database_now())  # who is due from then on is in line at once
        return await reschedule(*args, **options)

    async def watched_claim_line(fence: Any, workflows: Any, queues: Any, limit: int, after: str) -> Any:
        global latest
        now = world.database_now()
        latest = max(latest, now)
        models = {queue: _model(world, queue) for queue in QUEUES}
        found = await claim_line(fence, workflows, queues, limit, after)
        for queue, model in models.items():
            given = [run for run in found.claimed if run.queue == queue]
            expected = model.claim(fence.worker, limit, now)
            if [run.row for run in given] != expected:
                world.problem(f"queue {queue} gave {[run.id for run in given]}, the model {expected}")
            admissions[queue] += [(now, world.now(), run.key or "") for run in given]
            remembered[queue] += [(now, run.key or "") for run in given]
            widest_s = max((rate[1] for rate in (model.limits.rate, model.limits.rate_per_key) if rate), default=0.0)
            if given:
                remembered[queue] = [one for one in remembered[queue] if one[0] > now - widest_s]
            served[queue] = model.served
        _check_limits(world)
        return found

    store.claim, store.claim_line, store.reschedule = watched_claim, watched_claim_line, watched_reschedule


def _model(world: SimWorld, queue: str) -> LineModel:
    model = LineModel(QUEUES[queue], served=served[queue], admissions=list(remembered[queue]))
    rows = world.sql(
        "select l.row, l.key, l.priority, line_at, owner, l.started_at is not null,"
        f" hold is null and owner is null and (wake_at is null or wake_at > {world.database_now()}), line,"
        " line_at > created_at"
        f" from ol_live l join ol_runs r on r.row = l.row where l.queue = '{queue}'"
    )
    for row, key, priority, line_at, owner, begun, able, line, is_delayed in rows:
        if begun:
            model.admitted[row] = (key, owner)
        elif able:
            in_line = line == "waiting"
            model.waiting.append(Waiting(row, key, priority, line_at, in_line))
            if in_line and is_delayed and line_at > latest:
                world.problem(f"row {row} is in line before its delay has ended")
    return model


def _check_limits(world: SimWorld) -> None:
    for queue, limits in QUEUES.items():
        rows = world.sql(f"select owner, key from ol_live where queue = '{queue}' and started_at is not null")
        counts = {
            "concurrency": len(rows),
            "per_worker": max(Counter(owner for owner, _ in rows if owner is not None).values(), default=0),
            "per_key": max(Counter(key for _, key in rows).values(), default=0),
        }
        for name, count in counts.items():
            most = getattr(limits, name)
            if most is not None and count > most:
                world.problem(f"queue {queue}: {count} at a time, {name} is {most}")


def check(world: SimWorld, simulation: Simulation) -> None:
    """Every run has ended as it should, and no window of a rate has had more admissions than it may."""
    for run in simulation.runs.values():
        assert run.status in ("succeeded", "cancelled"), f"{run.id} {run.status} {run.error}"
    for queue, limits in QUEUES.items():
        for rate, keys in ((limits.rate, [None]), (limits.rate_per_key, ["", "a", "b", "c"])):
            for key in keys if rate is not None else []:
                times = [times for *times, own in admissions[queue] if key is None or own == key]
                count, window_s = rate
                early = [  # by either clock, so many within the window before it
                    (at, real)
                    for place, (at, real) in enumerate(times)
                    if sum(at - a < window_s and real - r < window_s for a, r in times[:place]) >= count
                ]
                assert not early, f"queue {queue}: more than {count} within {window_s} s at {early}"
