"""The simulated post: runs that send, receive, emit, promise and settle, while their workers die; order and once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import outlive
from outlive import Outlive, workflow
from outlive.errors import AlreadySettled, StoreError
from outlive.testing import Simulation, SimWorld

LETTERS = 6
SENDERS = 2


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


KINDS = (sender, receiver, trusting, keeper)


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
    for wish in wanted:
        while True:
            try:
                await wish()
            except StoreError:
                await asyncio.sleep(0.2)
            else:
                break
        await asyncio.sleep(world.chance.uniform(0, 0.3))


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
    unread = world.sql("select count(*) from ol_messages where received_by is null")
    assert unread == [(0,)], unread
