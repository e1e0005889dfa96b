"""Puts the demo together: provider, database, parent, audit; and takes everything down again."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from outlive.demo.audit import Audit, Recorded, audit
from outlive.demo.orders import load_orders, money
from outlive.demo.parent import Child, Course, Parent
from outlive.demo.progress import Progress
from outlive.demo.service import PaymentService


@dataclass(frozen=True)
class Plan:
    """What to play: a `url` of None is a SQLite file in a temporary folder; `seed` draws moments and luck."""

    orders: int = 300
    kills: int = 5
    seed: int | None = None
    url: str | None = None


def run_demo(plan: Plan, out: TextIO) -> Audit:
    """Play the demo and give the verdict; every process is gone when it returns or raises."""
    seed = secrets.randbelow(10_000) if plan.seed is None else plan.seed
    orders = load_orders(plan.orders)
    total = money(sum(order.cents for order in orders))
    with _terminable(), _database(plan.url) as url, PaymentService(random.Random(seed + 1)) as provider:
        sale = f"demo-{secrets.token_hex(4)}"  # a database may be used again; an id is used once
        out.write(f"{plan.orders} orders for {total} in {_shown(url)}; to be killed: {plan.kills} × (seed {seed})\n")
        progress, recorded = Progress(len(orders), out), Recorded()

        def on_death(course: Course) -> None:
            progress.show_death(course)
            asyncio.run(recorded.note(url, sale, provider.ledger))

        parent = Parent(
            lambda: Child([url, sale, str(len(orders))], provider.url),
            orders=len(orders),
            kills=plan.kills,
            chance=random.Random(seed),
            on_progress=progress.show,
            on_death=on_death,
        )
        try:
            course = parent.run()
        finally:
            progress.end()
        return asyncio.run(audit(url, sale, orders, provider.ledger, recorded, course))


@contextmanager
def _database(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="outlive-demo-") as folder:
        yield f"sqlite:///{Path(folder) / 'shop.db'}"


def _shown(url: str) -> str:
    return "a SQLite file" if url.startswith("sqlite") else "PostgreSQL"


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that no process stays behind."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
