"""A bank: each transfer is a run, moves money in one transaction and is booked in another.

Nothing in the tables keeps a transfer from being moved or booked twice; only
the transactions do.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import outlive
from outlive import step, transaction, workflow

ACCOUNTS = 20
OPENING_CENTS = 100_000

TABLES = (
    "create table accounts (number integer primary key, cents bigint not null)",
    "create table transfers (transfer text not null, cents bigint not null)",
    "insert into accounts (number, cents) values "
    + ", ".join(f"({number}, {OPENING_CENTS})" for number in range(ACCOUNTS)),
)

ledger: Path


@step
async def authorise(transfer: str, cents: int) -> int:
    await asyncio.sleep(0.002)
    return cents


@transaction
async def move(tx: Any, source: int, target: int, cents: int) -> None:
    for number, change in sorted([(source, -cents), (target, cents)]):  # in one order: no two of these deadlock
        await tx.execute("update accounts set cents = cents + $1 where number = $2", change, number)


@transaction
def book_transfer(tx: Any, transfer: str, cents: int) -> None:
    tx.execute("insert into transfers (transfer, cents) values ($1, $2)", transfer, cents)


@workflow
async def transfer_money(transfer: str, source: int, target: int, cents: int) -> int:
    authorised = await authorise(transfer, cents)
    await move(source, target, authorised)
    await outlive.sleep(0.005)
    await asyncio.to_thread(book_transfer, transfer, authorised)
    return authorised
