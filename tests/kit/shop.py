"""A shop as a user writes it."""

from __future__ import annotations

import asyncio

import outlive
from outlive import Retry, step, transaction, workflow

effects: list[str] = []


@step
async def charge(order: str) -> str:
    effects.append(f"charge {order}")
    await asyncio.sleep(0.001)  # of real time
    return f"payment of {order}"


@step
def ship(order: str) -> str:
    effects.append(f"ship {order}")
    return f"parcel of {order}"


@step(retry=Retry(attempts=5, first_delay=60.0, jitter=0.0))
async def call_bank(order: str) -> int:
    effects.append(f"bank {order}")
    return 7


@transaction
async def book(tx, order: str) -> None:
    await tx.execute("insert into bookings (name) values ($1)", order)


@workflow
async def order(name: str) -> list[str]:
    payment = await charge(name)
    await outlive.sleep(days=3)
    return [payment, await asyncio.to_thread(ship, name)]


@workflow
async def both(name: str) -> list[object]:
    return list(await outlive.gather(charge(name), call_bank(name)))


@workflow
async def booking(name: str) -> str:
    await book(name)
    await charge(name)
    return name


@workflow
def plainly(name: str) -> str:
    return ship(name) + ship(name)


@workflow
async def review() -> str:
    return str(await outlive.receive("review", timeout=7 * 86_400.0, default="nobody looked"))


@workflow
async def parent(name: str) -> list[str]:
    return [await order(name), await order(name + "!")][1]


@workflow
async def tick() -> None:
    effects.append(f"{outlive.now():%d %H:%M}")


@workflow
async def failing() -> None:
    await charge("first")
    raise ValueError("no such thing")


turns = 0


@workflow
async def turning() -> str:
    """Take another way each time that it is executed."""
    global turns
    turns += 1
    if turns % 2:
        await charge("odd")
    else:
        await call_bank("even")
    return await charge("last")
