"""The simulated post: runs that send, receive, emit, promise and settle, while their workers die; order and once."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from weakref import WeakKeyDictionary

import outlive
from outlive import Outlive, workflow
from outlive.errors import AlreadySettled, RunEnded, StoreError
from outlive.testing import Simulation, SimWorld
from tests.sim.insist import insist

LETTERS = 6
SENDERS = 2
IMPATIENT = 5
PATIENCE_S = 1.0


@workflow
async def sender(name: str, to: str) -> int:
    for number in range(LETTERS):
        await outlive.send(to, "letters", [name, number])
        await outlive.emit("sent", number)
        if number % 3 == 1:
            await outlive.sleep(0.3)
    return LETTERS


@workflow
async def receiver(count: int) -> list[Any]:
    letters: list[Any] = []

    async def take() -> None:
        letter = await outlive.receive("letters")
        letters.append(letter)
        await outlive.emit("letters", letter)

    while len(letters) < count - 3:
        await asyncio.gather(take(), take(), take())
    while len(letters) < count:
        letter = await outlive.receive("letters", timeout=5, default=None)
        if letter is None:
            await outlive.publish("waited", len(letters))
        else:
            letters.append(letter)
            await outlive.emit("letters", letter)
    return letters


@workflow
async def trusting(child: str) -> Any:
    promise = await outlive.promise()
    await outlive.start(keeper, promise.token, id=child, parent_close="abandon")
    return await promise


@workflow
async def keeper(token: str) -> None:
    await outlive.sleep(1)
    await outlive.send("inbox", "letters", ["keeper", 0])


@workflow
async def sorter(count: int) -> list[Any]:
    sorted_out: list[Any] = []
    while len(sorted_out) < count:
        sorted_out.append((await outlive.race(outlive.receive("left"), outlive.receive("right")))[1])
    return sorted_out


@workflow
async def impatient() -> str:
    answer: str = await outlive.receive("answer", timeout=PATIENCE_S, default="nothing")
    return answer


KINDS = (sender, receiver, trusting, keeper, sorter, impatient)


ANSWERED_AT: WeakKeyDictionary[SimWorld, dict[int, float]] = WeakKeyDictionary()


async def drive(app: Outlive, world: SimWorld) -> None:
    """Start the runs, send letters from outside with keys, again and again until it is known that they have arrived."""
    total = SENDERS * LETTERS + LETTERS + 1
    wanted: list[Any] = [lambda: app.start(receiver, total, id="inbox")]
    wanted += [
        lambda number=number: app.start(sender, f"s{number}", "inbox", id=f"s{number}") for number in range(SENDERS)
    ]
    wanted += [lambda: app.start(trusting, "keeper", id="trusting")]
    wanted += [
        lambda number=number: app.send("inbox", "letters", ["outside", number], key=f"outside-{number}")
        for number in range(LETTERS)
    ]
    wanted += [lambda: _settle(app)]
    wanted += [lambda: app.start(sorter, 2 * LETTERS, id="sorter")]
    wanted += [
        lambda number=number: app.send_many(
            [("sorter", topic, [topic, number], f"{topic}-{number}") for topic in ("left", "right")]
        )
        for number in range(LETTERS)
    ]
    for wish in wanted:
        await insist(wish)
        await asyncio.sleep(world.chance.uniform(0, 0.3))
    for number in range(IMPATIENT):
        await insist(lambda run_id=f"impatient-{number}": app.start(impatient, id=run_id))
        await asyncio.sleep(world.chance.uniform(0.8, 1.05) * PATIENCE_S)
        try:
            await insist(lambda run_id=f"impatient-{number}": app.send(run_id, "answer", "in time", key="answer"))
            ANSWERED_AT.setdefault(world, {})[number] = world.database_now()
        except RunEnded:
            pass


async def _settle(app: Outlive) -> None:
    made = [entry for entry in await (await app.get("trusting")).entries() if entry.kind == "promise"]
    if not made:
        raise StoreError("the promise is not made yet")
    try:
        await app.settle(made[0].value["token"], "kept")
    except AlreadySettled:
        pass  # by an attempt before


def check(world: SimWorld, simulation: Simulation) -> None:
    """Each letter came once, those of one sender in order; streams have every number once."""
    failed = [f"{run.id} {run.status} {run.error}" for run in simulation.runs.values() if run.status != "succeeded"]
    assert not failed, failed
    received = [entry for entry in simulation.entries["inbox"] if entry.kind == "receive" and entry.outcome == "ok"]
    by_sender: dict[str, list[int]] = {}
    for entry in received:
        name, number = json.loads(entry.value or "null")
        by_sender.setdefault(name, []).append(number)
    wanted = {f"s{number}": list(range(LETTERS)) for number in range(SENDERS)}
    assert by_sender == {**wanted, "outside": list(range(LETTERS)), "keeper": [0]}, by_sender
    assert simulation.runs["trusting"].output == '"kept"'
    rows = world.sql(
        "select r.id, i.name, group_concat(i.seq) from ol_stream_items i join ol_runs r using (row) group by 1, 2"
    )
    for run_id, name, numbers in rows:
        seqs = sorted(map(int, numbers.split(",")))
        count = LETTERS if name == "sent" else len(received)
        assert seqs == list(range(1, count + 1)), f"stream {name} of {run_id}: {seqs}"
    unread = world.sql("select count(*) from ol_messages where received_by is null and topic <> 'answer'")
    assert unread == [(0,)], unread
    _check_sorted(simulation)
    if not any(fault.kind == "clock_jump" for fault in simulation.faults):
        _check_in_time(simulation, ANSWERED_AT.get(world, {}))


def _check_sorted(simulation: Simulation) -> None:
    """What lost a race had not taken its message."""
    sorted_out = json.loads(simulation.runs["sorter"].output or "null")
    for topic in ("left", "right"):
        assert [one for one in sorted_out if one[0] == topic] == [[topic, number] for number in range(LETTERS)], (
            sorted_out
        )


def _check_in_time(simulation: Simulation, answered_at: dict[int, float]) -> None:
    """A message that was there before the timeout came before it."""
    for number, at in answered_at.items():
        run = simulation.runs[f"impatient-{number}"]
        [receive] = [entry for entry in simulation.entries[run.id] if entry.kind == "receive"]
        due_at = receive.started_at + PATIENCE_S
        assert run.output == '"in time"' or at > due_at, f"{run.id}: answered at {at}, due at {due_at}: {run.output}"
