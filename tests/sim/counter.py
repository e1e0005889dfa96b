"""The simulated counter: a run that goes on as new while people outside write to it, call it, read what it shows.

Whatever dies meanwhile, each letter is read once and in order, each call is
answered once, a promise has one outcome, and readers see neither gap nor return.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import outlive
from outlive import AlreadySettled, Outlive, PromiseExpired, RunEnded, transaction, workflow
from outlive.errors import StoreError
from outlive.testing import Simulation, SimWorld
from tests.sim.insist import insist

LETTERS = 8
CALLS = 4  # of each of two callers
EXPIRIES_S = (None, 0.5, 1.5)  # of promises

numbers = itertools.count(1)  # of calls: one that is made again is another one
answers: dict[int, tuple[int, Any]] = {}  # what callers have asked for and were told, by number
told: dict[str, list[str]] = {}  # whose settlement was taken, by run
items: list[tuple[int, Any]] = []  # what the reader of the stream has seen
latest = 0.0  # what the reader of the value has seen


@transaction
async def book(tx: Any, number: int) -> int:
    await tx.execute("insert into bookings (call) values ($1)", number)
    return 1


@workflow
async def counter(letters: list[int], balance: int) -> list[Any]:
    """Read two letters in each generation, and book what callers want; no call is left without an answer."""
    busy = 0

    async def pay(number: int, cents: int) -> int:
        nonlocal busy, balance
        busy += 1
        booked = await book(number)
        balance += booked
        busy -= 1
        return balance

    def refuse_debt(number: int, cents: int) -> None:
        if cents < 0:
            raise ValueError("no debts")

    outlive.on_call("pay", pay, validate=refuse_debt)
    for _ in range(2):
        letters.append(await outlive.receive("letters"))
        for seen in (len(letters) - 0.5, len(letters)):
            await outlive.publish("letters", seen)
        await outlive.emit("letters", letters[-1])
        await outlive.sleep(0.3)
    while busy:
        await outlive.sleep(0.05)
    if len(letters) < LETTERS:
        await outlive.continue_as_new(letters, balance)
    return [letters, balance]


@workflow
async def trusting(expires_s: float | None) -> list[Any]:
    """Await a promise, and again: it has one outcome."""
    promise = await outlive.promise(expires_s)
    await outlive.publish("token", promise.token)
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(await promise)
        except PromiseExpired:
            outcomes.append("expired")
        await outlive.sleep(0.2)
    return outcomes


KINDS = (counter, trusting)


async def drive(app: Outlive, world: SimWorld) -> None:
    """Start all; then be everybody outside at once, again from the top after a death."""
    run = await insist(lambda: app.start(counter, [], 0, id="counter"))
    for number, expires_s in enumerate(EXPIRIES_S):
        await insist(lambda expires_s=expires_s, number=number: app.start(trusting, expires_s, id=f"t{number}"))
    await asyncio.gather(
        write(app, world),
        *(call(run, world) for _ in range(2)),
        *(settle(app, world, f"t{number}", f"{place}") for number in range(len(EXPIRIES_S)) for place in range(2)),
        watch(run, world),
        read(run),
    )


async def write(app: Outlive, world: SimWorld) -> None:
    """Send each letter with its key, some of them once more later, the last ones together."""
    for number in range(LETTERS - 2):
        await insist(lambda number=number: send(app, [number]))
        await asyncio.sleep(world.chance.uniform(0, 0.3))
        await insist(lambda number=number: send(app, [world.chance.randrange(number + 1)]))
    await insist(lambda: send(app, [LETTERS - 2, LETTERS - 1]))


async def send(app: Outlive, letters: list[int]) -> None:
    try:
        await app.send_many([("counter", "letters", number, f"letter {number}") for number in letters])
    except RunEnded:
        pass  # it has them all


async def call(run: outlive.Run, world: SimWorld) -> None:
    """Call, as long as there is anybody; a call may be lost with its reply, and is not repeated."""
    for _ in range(CALLS):
        number = next(numbers)
        cents = world.chance.choice([1, 1, 1, -1])
        try:
            answers[number] = cents, await run.call("pay", number, cents)
        except (ValueError, RunEnded) as refusal:
            answers[number] = cents, type(refusal)
        except StoreError:
            pass
        await asyncio.sleep(world.chance.uniform(0, 0.4))


async def settle(app: Outlive, world: SimWorld, run_id: str, value: str) -> None:
    """Settle a promise that another one settles too, before or after it expires."""
    run = await insist(lambda: app.get(run_id))
    token = await insist(lambda: run.value("token", wait=1_000))
    await asyncio.sleep(world.chance.uniform(0, 2))
    try:
        await insist(lambda: app.settle(token, value))
        told.setdefault(run_id, []).append(value)
    except (AlreadySettled, PromiseExpired):
        pass


async def watch(run: outlive.Run, world: SimWorld) -> None:
    """Look at the value again and again: it never goes back."""
    global latest
    while not (await insist(run.status)).final:
        seen = await insist(lambda: run.value("letters")) or 0
        if seen < latest:
            world.problem(f"a value is {seen} after it was {latest}")
        latest = max(latest, seen)
        await asyncio.sleep(world.chance.uniform(0, 0.1))


async def read(run: outlive.Run) -> None:
    """Read the stream to its end, behind what was read before a death."""
    async for item in run.stream("letters", after=len(items)):
        items.append((item.seq, item.value))


def prepare(world: SimWorld) -> None:
    """Make the user's table, and watch what becomes of promises."""
    global numbers, latest
    numbers, latest = itertools.count(1), 0.0
    for known in (answers, told, items):
        known.clear()  # type: ignore[attr-defined]
    world.sql("create table bookings (call integer)")
    store: Any = world.store
    commit, settle = store.commit, store.settle
    settled: dict[str, Any] = {}

    def check_settled() -> None:
        for token, *outcome in world.sql("select token, outcome, value from ol_promises where outcome is not null"):
            if settled.setdefault(token, outcome) != outcome:
                world.problem(f"a promise was settled with {settled[token]}, then with {outcome}")

    async def watched_commit(*args: Any) -> Any:
        committed = await commit(*args)
        check_settled()
        return committed

    async def watched_settle(settlement: Any, note: Any = None, *, at_expiry: bool = False) -> Any:
        found = world.sql(f"select outcome, expires_at from ol_promises where token = '{settlement.token}'")
        is_late = found[0][1] is not None and found[0][1] <= world.database_now() and not at_expiry
        settling = await settle(settlement, note, at_expiry=at_expiry)
        expected = "already" if found[0][0] is not None else "expired" if is_late else "settled"
        if settling[0] != expected:
            world.problem(f"a promise is {settling[0]}, and should be {expected}")
        check_settled()
        return settling

    store.commit, store.settle = watched_commit, watched_settle


def check(world: SimWorld, simulation: Simulation) -> None:
    """Everything came once, and everybody was told what is so."""
    runs = simulation.runs
    failed = [f"{run.id} {run.status} {run.error}" for run in runs.values() if run.status != "succeeded"]
    assert not failed, failed
    letters, balance = json.loads(runs["counter"].output or "null")
    assert letters == list(range(LETTERS)), letters
    assert items == [(number + 1, number) for number in range(LETTERS)], items
    shown = world.sql("select value from ol_run_values where name = 'letters'")
    assert shown == [(str(LETTERS),)], f"it shows {shown}"
    _check_calls(world, balance)
    for run_id, taken in ((f"t{number}", told.get(f"t{number}", [])) for number in range(len(EXPIRIES_S))):
        first, second = json.loads(runs[run_id].output or "null")
        assert first == second and taken in ([], [first]), f"{run_id} got {first} and {second}, taken was {taken}"


def _check_calls(world: SimWorld, balance: int) -> None:
    booked = dict(world.sql("select call, count(*) from bookings group by call"))
    assert set(booked.values()) <= {1} and balance == len(booked), f"{balance} is booked as {booked}"
    paid = [answer for _, answer in answers.values() if isinstance(answer, int)]
    assert len(set(paid)) == len(paid), f"two callers were told the same: {paid}"
    for number, (cents, answer) in answers.items():
        assert answer is RunEnded or isinstance(answer, int) is (cents > 0), f"{cents} in a call: {answer}"
        assert (number in booked) is isinstance(answer, int), f"call {number} was answered by {answer}"
    accepted = world.sql(
        "select count(*) from (select name, outcome from ol_entries"
        " union all select name, outcome from ol_past_entries) where name = 'call/pay' and outcome = 'ok'"
    )
    assert accepted == [(balance,)], f"{accepted} calls are in the journal, {balance} were accepted"
