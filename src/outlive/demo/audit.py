"""The audit: compares the orders file, the provider's ledger, the bookings and the journal.

Reads the database through Outlive like any client, so it is the same on both stores. What is recorded
is noted while the order service is dead: a step whose outcome is in the journal then must
never ask the provider again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from outlive import Outlive, Status, transaction, workflow
from outlive.demo.child import run_id
from outlive.demo.orders import Order, money
from outlive.demo.parent import Course
from outlive.demo.service import Ledger

_PATHS = {"charge": "/charges", "mail_receipt": "/receipts"}

# Steps with an outcome on disk at a death, by order and name, and how often each had asked the provider by then.
Recorded = dict[tuple[str, str], int]


async def note_recorded(recorded: Recorded, url: str, sale: str, ledger: Ledger) -> None:
    """Read the journals of all unfinished orders; the first death that finds a step counts."""
    async with Outlive(url, worker=False) as client:
        async for info in client.runs(id_prefix=f"{sale}/"):
            if not info.status.final:
                order_id = info.id.removeprefix(f"{sale}/")
                for entry in await (await client.get(info.id)).entries():
                    if entry.outcome == "ok":
                        asked = ledger.requests[_PATHS.get(entry.name, ""), order_id]
                        recorded.setdefault((order_id, entry.name), asked)


def executed_again(recorded: Recorded, ledger: Ledger) -> list[str]:
    """List recorded steps that asked the provider once more afterwards."""
    return [
        f"{name} of {order_id}"
        for (order_id, name), asked in recorded.items()
        if ledger.requests[_PATHS.get(name, ""), order_id] != asked
    ]


@transaction
async def read_bookings(tx: Any, sale: str) -> list[tuple[str, int]]:
    rows = await tx.fetch("select order_id, cents from demo_bookings where sale = $1", sale)
    return [(row["order_id"], row["cents"]) for row in rows]


@workflow
async def close_books(sale: str) -> list[tuple[str, int]]:
    return await read_bookings(sale)


@dataclass
class Audit:
    """The verdict and the figures behind it; amounts in cents."""

    orders: int
    finished: int
    ordered_cents: int
    charged_cents: int
    booked_cents: int
    charges: int
    bookings: int
    receipts: int
    wrong_amounts: list[str]
    doubled: list[str]
    executed_again: list[str]
    deaths: int
    resumed: int
    steps_replayed: int
    provider_errors: int
    provider_late: int
    repeated_requests: int

    @property
    def all_finished(self) -> bool:
        """Whether every order came to its end."""
        return self.finished == self.orders == self.charges == self.bookings == self.receipts

    @property
    def money_conserved(self) -> bool:
        """Whether order by order the same amount was ordered, charged and booked."""
        return self.ordered_cents == self.charged_cents == self.booked_cents and not self.wrong_amounts

    @property
    def passed(self) -> bool:
        """Whether everything is as it would be if nobody had been killed."""
        return self.all_finished and self.money_conserved and not self.doubled and not self.executed_again

    def to_json(self) -> dict[str, Any]:
        """Give all figures."""
        return {"passed": self.passed, **asdict(self)}

    def report(self) -> str:
        """Give the report as people read it."""
        again = f"{len(self.executed_again)} of them executed again" if self.executed_again else "none executed again"
        amounts = (money(cents) for cents in (self.ordered_cents, self.charged_cents, self.booked_cents))
        nothing = f"nothing: {self.charges} charges, {self.bookings} bookings, {self.receipts} receipts"
        resumed = f"; runs quarantined after too many of them, and resumed: {self.resumed}" if self.resumed else ""
        trouble = f"the provider failed {self.provider_errors} × and was late {self.provider_late} ×"
        lines: list[tuple[bool | None, str, str]] = [
            (self.all_finished, "finished", f"{self.finished} of {self.orders} orders"),
            (self.money_conserved, "money", "ordered {}, charged {}, booked {}".format(*amounts)),
            (not self.doubled, "doubled", ", ".join(self.doubled[:5]) or nothing),
            (not self.executed_again, "replayed", f"{self.steps_replayed} steps answered from the journal, {again}"),
            (None, "deaths", f"{self.deaths} × SIGKILL{resumed}"),
            (None, "trouble", f"{trouble}; {self.repeated_requests} × a request was repeated"),
        ]
        marks = {None: "", True: "ok", False: "FAIL"}
        times = "once" if self.deaths == 1 else f"{self.deaths} times"
        verdict = f"The process died {times}; the work outlived it."
        if not self.passed:
            verdict = "The audit failed: this is a bug."
        return "\n".join(["audit", *(f"  {marks[ok]:<4}  {title:<9} {text}" for ok, title, text in lines), verdict])


async def audit(url: str, sale: str, orders: list[Order], ledger: Ledger, recorded: Recorded, course: Course) -> Audit:
    """Look at everything once more and judge."""
    async with Outlive(url, include=[close_books]) as app:
        booked = await app.run(close_books, sale, id=f"{sale}/close-books")
        finished = 0
        ours = {run_id(sale, order) for order in orders}
        async for info in app.runs(id_prefix=f"{sale}/", status=Status.SUCCEEDED):
            finished += info.id in ours
    wanted = {order.id: order.cents for order in orders}
    return Audit(
        orders=len(orders),
        finished=finished,
        ordered_cents=sum(wanted.values()),
        charged_cents=sum(cents for _, cents in ledger.charged),
        booked_cents=sum(cents for _, cents in booked),
        charges=len(ledger.charged),
        bookings=len(booked),
        receipts=len(ledger.receipts),
        wrong_amounts=sorted({order_id for order_id, cents in [*ledger.charged, *booked] if wanted[order_id] != cents}),
        doubled=[
            *_doubled("charge", [order_id for order_id, _ in ledger.charged]),
            *_doubled("booking", [order_id for order_id, _ in booked]),
            *_doubled("receipt", ledger.receipts),
        ],
        executed_again=executed_again(recorded, ledger),
        deaths=course.deaths,
        resumed=course.resumed,
        steps_replayed=len(recorded),
        provider_errors=ledger.errors,
        provider_late=ledger.late,
        repeated_requests=ledger.requests.total() - len(ledger.requests),
    )


def _doubled(what: str, order_ids: list[str]) -> list[str]:
    return [f"{what} of {order_id}" for order_id, times in Counter(order_ids).items() if times > 1]
