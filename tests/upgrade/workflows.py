"""A user's program, the same under every release: what it began under an old one has to end under this one.

Its versions are given by hand, so replay is strict. It is only ever extended, by workflows of a new release.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import outlive
from outlive import Retry, step, transaction, workflow

executed: list[str] = []
NAP_S = 30.0  # long for the process that freezes, long past for the one that goes on


@dataclass
class Order:
    id: str
    cents: int
    tags: set[str]


class Refused(Exception):
    """What a step raises."""


@step
async def charge(order: Order) -> str:
    executed.append(f"charge {order.id}")
    return f"paid {order.cents}"


@step
def pack(order_id: str) -> dict[str, timedelta]:
    executed.append(f"pack {order_id}")
    return {order_id: timedelta(hours=1)}


@step(retry=Retry(attempts=2, first_delay=0.01))
async def refuse(text: str) -> None:
    executed.append(f"refuse {text}")
    raise Refused(text)


@transaction
async def book(tx: Any, order_id: str) -> int:
    executed.append(f"book {order_id}")
    return int(await tx.fetchval("select 7"))


@step
async def grow(size: int) -> str:
    executed.append(f"grow {size}")
    return "x" * size


@workflow(name="frozen-checkout", version="1")
async def checkout(order: Order) -> dict[str, Any]:
    """Every kind of entry that the first release had, then a wait, then more."""
    paid = await charge(order)
    began, number, chance = outlive.now(), outlive.uuid(), outlive.random()
    async with asyncio.TaskGroup() as group:
        packed = group.create_task(asyncio.to_thread(pack, order.id))
        booked = group.create_task(book(order.id))
    try:
        await refuse(order.id)
    except Refused as error:
        refused = str(error)
    winner, _ = await outlive.race(outlive.sleep(days=1), charge(order))
    text = await grow(70_000)
    await outlive.sleep(NAP_S)
    late = await charge(order)
    assert outlive.now() > began
    assert 0 <= chance < 1
    assert number.version == 4
    return {
        "paid": [paid, late],
        "packed": list(packed.result()),
        "booked": booked.result(),
        "refused": refused,
        "winner": winner,
        "text": len(text),
    }


@workflow(name="frozen-item", version="1")
async def item(number: int) -> int:
    await charge(Order(f"item {number}", number, set()))
    await outlive.sleep(NAP_S)
    return number * 10


@workflow(name="frozen-quick", version="1")
async def quick(number: int) -> str:
    return await charge(Order("quick", number, set()))


@workflow(name="frozen-family", version="1")
async def family() -> list[Any]:
    started = await outlive.start(item, 1, parent_close="abandon")
    values = await outlive.gather(item(2), item(3))
    return [started.id, *values]


@workflow(name="frozen-plain", version="1")
def plain(text: str) -> list[str]:
    first = list(pack(text))
    outlive.sync.sleep(NAP_S)
    return [*first, *pack(f"{text} again")]


@workflow(name="frozen-waits", version="1")
async def waits(text: str) -> str:
    await outlive.sleep(timedelta(days=365_00))
    return text


ORDER = Order("o-1", 1999, {"a"})
RUNS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "checkout": (checkout, (ORDER,)),
    "family": (family, ()),
    "plain": (plain, ("p",)),
    "held": (waits, ("held",)),
    "cancelled": (waits, ("cancelled",)),
    "later": (quick, (4,)),
}
FROZEN_AT = {
    "checkout": 9,
    "family": 3,
    "plain": 1,
    "family/1/frozen-item#1": 1,
    "family/2/frozen-item#1": 1,
    "family/frozen-item#1": 1,
}
RESULTS: dict[str, Any] = {
    "checkout": {
        "paid": ["paid 1999", "paid 1999"], "packed": ["o-1"], "booked": 7, "refused": "o-1", "winner": 1,
        "text": 70_000,
    },
    "family": ["family/frozen-item#1", 20, 30],
    "family/frozen-item#1": 10,
    "plain": ["p", "p again"],
    "later": "paid 4",
}  # fmt: skip
LATER = ["charge o-1", "pack p again", "charge quick"]  # all that may execute when the runs go on
