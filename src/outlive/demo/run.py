"""Puts the demo together: provider, database, parent, audit; and takes everything down again."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from outlive.demo.audit import Audit, Recorded, audit, note_recorded
from outlive.demo.orders import load_orders, money
from outlive.demo.parent import Course, Parent
from outlive.demo.progress import Progress
from outlive.demo.service import Ledger, serve_payments


def run_demo(count: int, kills: int, seed: int | None, url: str | None, out: TextIO) -> Audit:
    """Play the demo and give the verdict; every process is gone when it returns or raises.

    A `url` of None is a SQLite file in a temporary folder; `seed` draws the moments of death and the trouble.
    """
    seed = secrets.randbelow(10_000) if seed is None else seed
    sale = f"demo-{secrets.token_hex(4)}"  # a database may be used again; an id is used once
    orders, ledger = load_orders(count), Ledger()
    recorded: Recorded = {}
    progress = Progress(count, out)

    def show(course: Course) -> None:
        progress.show(len(course.finished), course.deaths)

    with _terminable(), _database(url) as url, serve_payments(ledger, random.Random(seed + 1)) as provider_url:
        where = "a SQLite file" if url.startswith("sqlite") else "PostgreSQL"
        total = money(sum(order.cents for order in orders))
        progress.write(f"{count} orders for {total} in {where}; to be killed: {kills} × (seed {seed})\n")
        parent = Parent([url, sale, str(count)], provider_url, count, kills, random.Random(seed))
        try:
            while (killed := parent.live(show)) is not None:
                done = len(parent.course.finished)
                progress.write_line(f"  SIGKILL for process {killed}, {done} orders are done; the next one takes over")
                asyncio.run(note_recorded(recorded, url, sale, ledger))
        finally:
            progress.end()
        return asyncio.run(audit(url, sale, orders, ledger, recorded, parent.course))


@contextmanager
def _database(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="outlive-demo-") as folder:
        yield f"sqlite:///{Path(folder) / 'shop.db'}"


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
