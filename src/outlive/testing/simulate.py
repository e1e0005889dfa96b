"""Simulation: the user's workflows on several workers that die, freeze and lose their database, from one seed.

The same seed gives the same trace. A failing simulation is repeated with fewer
and fewer faults; the error tells the seed and the shortest list that still fails.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlive.app import Outlive
from outlive.model.reads import EntryRow, RunQuery, RunRow
from outlive.model.status import Status
from outlive.testing.faultplan import Fault, draw_faults
from outlive.testing.world import SimProcess, SimWorld, Violation, finish

UNFINISHED = RunQuery(statuses=("scheduled", "queued", "running", "suspended"), limit=50)
Drive = Callable[[Outlive, SimWorld], Awaitable[None]]


@dataclass
class Simulation:
    """What happened: the trace, and at the end all runs with their entries by run id."""

    seed: int
    faults: list[Fault]
    trace: list[str]
    runs: dict[str, RunRow] = field(default_factory=dict)
    entries: dict[str, list[EntryRow]] = field(default_factory=dict)


class SimulationFailed(AssertionError):
    """A simulation broke a guarantee; says how to repeat it."""

    def __init__(self, problem: str, simulation: Simulation) -> None:
        faults = "\n".join(f"  {fault}" for fault in simulation.faults) or "  none: the order of events alone"
        super().__init__(f"seed {simulation.seed}: {problem}\nfaults that are enough:\n{faults}")
        self.problem = problem
        self.simulation = simulation


def simulate(
    drive: Drive,
    *,
    include: Sequence[Any],
    seed: int,
    workers: int = 3,
    most_faults: int = 6,
    lease_s: float = 5.0,
    limit_s: float = 600.0,
    prepare: Callable[[SimWorld], None] = lambda world: None,
    check: Callable[[SimWorld, Simulation], None] = lambda world, simulation: None,
    faults: list[Fault] | None = None,
) -> Simulation:
    """Run `drive(app, world)` in a world of `workers` processes until it has returned and every run has ended.

    A process that dies is started again; `drive` is repeated from its top if its
    process died, so it starts runs by id. Every guarantee that the world can see
    is checked as it goes, `check(world, simulation)` at the end;
    `prepare(world)` may make the program's tables.
    *Raises* SimulationFailed with the smallest list of faults found.
    """

    def play(faults: list[Fault]) -> Simulation:
        world = SimWorld(seed, faults, lease_s=lease_s)
        simulation = Simulation(seed, faults, world.trace)
        finish(world.store.open(migrate=True))
        prepare(world)
        try:
            _play(world, drive, include, workers, limit_s)
            _collect(world, simulation)
            check(world, simulation)
        except AssertionError as problem:
            raise SimulationFailed(str(problem), simulation) from problem
        finally:
            world.end()
            finish(world.store.close())
        return simulation

    if faults is None:
        faults = draw_faults(random.Random(seed ^ 0x5EED), calls=150 * workers, most=most_faults, lease_s=lease_s)
    try:
        return play(faults)
    except SimulationFailed as failed:
        raise _shrink(play, failed) from failed.__cause__


def _shrink(play: Callable[[list[Fault]], Simulation], failed: SimulationFailed) -> SimulationFailed:
    """Leave out one fault after the other as long as the simulation still fails."""
    faults = failed.simulation.faults
    position = 0
    while position < len(faults):
        fewer = faults[:position] + faults[position + 1 :]
        try:
            play(fewer)
        except SimulationFailed as smaller:
            failed, faults = smaller, fewer
        else:
            position += 1
    return failed


def _play(world: SimWorld, drive: Drive, include: Sequence[Any], workers: int, limit_s: float) -> None:
    driven = False

    async def drive_on(app: Outlive) -> None:
        nonlocal driven
        await drive(app, world)
        driven = True

    def start(place: int) -> SimProcess:
        return world.start_process(f"p{place}", include, drive_on if place == 0 and not driven else None)

    places = [start(place) for place in range(workers)]
    again_at: dict[SimProcess, float] = {}  # when who has died is started again
    end = world.now() + limit_s
    while world.now() < end:
        world.run_for(0.25)
        for place, process in enumerate(places):
            if process.loop.dead:
                due = again_at.setdefault(process, world.now() + world.chance.uniform(0, 2) * world.lease_s)
                if world.now() >= due:
                    places[place] = start(place)
        if not any(process.loop.dead for process in places):
            world.skip(end)
        if driven and world.lock_owner is None and not finish(world.store.list_runs(UNFINISHED)):
            return
    left = [f"{row.id} is {row.status}" for row in finish(world.store.list_runs(UNFINISHED))]
    raise Violation(f"not finished after {limit_s:g} s: {', '.join(left) or 'the driving program'}")


def _collect(world: SimWorld, simulation: Simulation) -> None:
    """Read all runs and entries as they are at the end, and check what holds of every run."""
    for run in finish(world.store.list_runs(RunQuery(limit=10_000))):
        simulation.runs[run.id] = run
        simulation.entries[run.id] = finish(world.store.list_entries(run.id))
    for run in simulation.runs.values():
        if not Status(run.status).final:
            raise Violation(f"run {run.id} is {run.status}: {run.hold_reason}")
        seqs = [entry.seq for entry in simulation.entries[run.id] if entry.seq is not None]
        if len(set(seqs)) != len(seqs):
            raise Violation(f"run {run.id} has two entries at one place of its order: {seqs}")
