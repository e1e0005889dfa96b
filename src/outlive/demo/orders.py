"""The orders of the demo: read from the CSV file that ships with the package."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from itertools import count


@dataclass(frozen=True)
class Order:
    """One order; `cents` is its total, shipping included."""

    id: str
    customer: str
    item: str
    quantity: int
    cents: int


def load_orders(wanted: int) -> list[Order]:
    """Give the first `wanted` orders; beyond the end of the file they come again under new ids."""
    text = files("outlive.demo").joinpath("orders.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    orders: list[Order] = []
    for lap in count(1):
        for row in rows[: wanted - len(orders)]:
            order_id = row["order_id"] if lap == 1 else f"{row['order_id']}-{lap}"
            orders.append(Order(order_id, row["customer"], row["item"], int(row["quantity"]), int(row["cents"])))
        if len(orders) >= wanted:
            break
    return orders


def money(cents: int) -> str:
    """Give an amount as people write it."""
    return f"{cents // 100:,}.{cents % 100:02d}"
