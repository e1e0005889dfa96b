"""What the order service does with an order: charge the card, book the sale, mail the receipt.

Nothing in here knows that the process will be killed. Each step may execute more than once if
a process dies before its outcome is recorded, so each hands the provider a key by which it
recognises a repeated request; `book` needs none, it commits together with its record.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any
from urllib.request import Request, urlopen

from outlive import Retry, step, transaction, workflow
from outlive.demo.orders import Order

PATIENT = Retry(attempts=12, first_delay=0.05, max_delay=0.5)


@step(retry=PATIENT, timeout=1.0)
async def charge(order: Order) -> str:
    answer = await asyncio.to_thread(_post, "/charges", order.id, {"cents": order.cents})
    return str(answer["charge"])


@transaction
async def book(tx: Any, sale: str, order: Order, payment: str) -> None:
    await tx.execute(
        "insert into demo_bookings (sale, order_id, cents, payment) values ($1, $2, $3, $4)",
        sale,
        order.id,
        order.cents,
        payment,
    )


@step(retry=PATIENT, timeout=1.0)
async def mail_receipt(order: Order, payment: str) -> str:
    text = f"Dear {order.customer}, thank you for {order.quantity} × {order.item} ({payment})."
    answer = await asyncio.to_thread(_post, "/receipts", order.id, {"text": text})
    return str(answer["receipt"])


@workflow
async def fulfil(sale: str, order: Order) -> str:
    payment = await charge(order)
    await book(sale, order, payment)
    return await mail_receipt(order, payment)


@transaction
async def create_tables(tx: Any) -> None:
    await tx.execute(
        "create table if not exists demo_bookings"
        " (sale text not null, order_id text not null, cents bigint not null, payment text not null)"
    )


@workflow
async def open_shop() -> None:
    await create_tables()


def _post(path: str, idempotency_key: str, body: dict[str, Any]) -> dict[str, Any]:
    request = Request(  # noqa: S310 - the address is the demo's own
        os.environ["DEMO_PROVIDER"] + path,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": idempotency_key},
    )
    with urlopen(request, timeout=5) as response:  # noqa: S310 - as above
        answer: dict[str, Any] = json.load(response)
    return answer
