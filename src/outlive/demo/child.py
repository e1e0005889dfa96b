"""The order service: a process that takes orders, works on them, and may die at any moment.

Started by the parent as `python -m outlive.demo.child URL SALE ORDERS`. Orders arrive one by one. A
service that was killed starts again at the first order: the id of the run says which it
has had before, and those go on where they stood. Tells its parent on stdout, a line each,
that it is ready, which orders are finished, and that all are done; then the parent says when it ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from outlive import Outlive, Run, RunOnHold
from outlive.demo.orders import Order, load_orders
from outlive.demo.workflow import fulfil, open_shop

ARRIVAL_S = 9.0  # how long it takes for all orders to come in, if that is one ...
BETWEEN_S = (0.02, 0.05)  # ... in this time
CALLS = 32  # requests to the provider at a time; asyncio's own default is too few on a small machine
LEASE_S = 3.0  # how soon a peer may take over; a new process on this host need not wait for it


def run_id(sale: str, order: Order) -> str:
    """Give the id under which an order is worked on, whoever starts it."""
    return f"{sale}/{order.id}"


async def serve(url: str, sale: str, orders: list[Order]) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(CALLS))
    between_s = min(max(ARRIVAL_S / len(orders), BETWEEN_S[0]), BETWEEN_S[1])
    async with Outlive(url, lease=LEASE_S) as app:
        await app.run(open_shop, id=f"{sale}/open-shop")
        say("ready")
        async with asyncio.TaskGroup() as reports:
            for order in orders:
                run = await app.start(fulfil, sale, order, id=run_id(sale, order))
                reports.create_task(report(run, order))
                if run.created:
                    await asyncio.sleep(between_s)


async def report(run: Run, order: Order) -> None:
    """Wait for an order; an operator's part is played here too.

    A run during which the process died three times, the last time alone, is quarantined: from inside, a
    killer that strikes again and again looks like an order that brings the process down. He knows better.
    """
    while True:
        try:
            await run.result(stop_on_hold=True)
        except RunOnHold:
            if await run.resume():
                say("resumed", order.id)
        else:
            say("finished", order.id)
            return


def say(*words: str) -> None:
    print(*words, flush=True)


def end_with_parent() -> None:
    """End when the parent says so; also when stdin ends, for he holds its other end and may be killed himself."""
    os._exit(0 if os.read(sys.stdin.fileno(), 1) else 1)


if __name__ == "__main__":
    ending = threading.Thread(target=end_with_parent, daemon=True)
    ending.start()
    asyncio.run(serve(sys.argv[1], sys.argv[2], load_orders(int(sys.argv[3]))))
    say("done")
    ending.join()
