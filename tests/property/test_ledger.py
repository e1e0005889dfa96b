"""The ledger of a store against a plain list: any sequence of reservations, ends, deaths and changes of limits.

The model adds up everything each time; the store keeps balances, and puts into them what has come to an end.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from outlive.model.ledger import NOTHING, Amounts, Charge, Reservation, Spent, Sums
from outlive.model.writes import Batch, NewRun, Note
from tests.conformance.records import finish, new_entry, new_run, register
from tests.property.test_line import in_postgres, in_sqlite, url
from tests.support.size import pick

__all__ = ["url"]

ACCOUNTS = some.lists(some.sampled_from("xyz"), min_size=1, max_size=3, unique=True)
AMOUNT = some.integers(0, 9)
AMOUNTS = some.builds(Amounts, AMOUNT, AMOUNT, some.just(1), some.integers(0, 1))
LIMITS = some.fixed_dictionaries({}, optional={name: some.none() | some.integers(0, 40) for name in Amounts._fields})
RUN = some.integers(0, 2)
KEY = some.integers(0, 2)
STEPS = some.one_of(
    some.tuples(some.just("reserve"), RUN, KEY, ACCOUNTS, AMOUNTS, LIMITS),
    some.tuples(some.just("reserve"), RUN, KEY, ACCOUNTS, AMOUNTS, some.just({})),
    some.tuples(some.just("call"), RUN, KEY, ACCOUNTS),
    some.tuples(some.just("repeat"), RUN),
    some.tuples(some.just("fail"), RUN, KEY, ACCOUNTS, AMOUNTS, AMOUNTS),
    some.tuples(some.just("settle"), RUN, AMOUNTS, some.sampled_from(["spent", "lost"])),
    some.tuples(some.just("end"), RUN, some.booleans()),
    some.tuples(some.just("limit"), some.sampled_from("xyz"), LIMITS),
    some.tuples(some.just("stop"), some.sampled_from("xyz"), some.booleans()),
)
_numbers = itertools.count(1)


@dataclass
class Line:
    """One reservation on one account, in the model."""

    reservation: int
    account: str
    run: int  # its row
    key: str
    state: str
    amounts: Amounts


class Twin:
    """The ledger of a store, and a list of the same."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.prefix = f"p{next(_numbers)}-"
        self.lines: list[Line] = []
        self.limits: dict[str, dict[str, Any]] = {}
        self.changed: dict[str, dict[str, Any]] = {}
        self.stopped: set[str] = set()
        self.runs: list[NewRun] = []
        self.open: dict[int, Reservation] = {}  # by row: the last one, not settled by an entry

    async def play(self, steps: list[tuple[Any, ...]]) -> None:
        self.fence = await register(self.store)
        for place in range(3):
            await self._begin(place)
        for name, *facts in steps:
            await getattr(self, f"do_{name}")(*facts)
            await self.compare()

    async def _begin(self, place: int) -> None:
        run = new_run(f"{self.prefix}{place}-{next(_numbers)}", owned=True)
        await self.store.commit(Batch(starts=[run]), self.fence)
        self.runs[place : place + 1] = [run]

    async def compare(self) -> None:
        found = {row.account: row.sums for row in await self.store.list_accounts(None, None, 1_000, self.prefix)}
        for account in (self.prefix + name for name in "xyz"):
            assert found.get(account, Sums()) == self.sums(account)

    def sums(self, account: str) -> Sums:
        parts = {"spent": NOTHING, "lost": NOTHING, "open": NOTHING}
        for line in self.lines:
            if line.account == account:
                parts[line.state] = parts[line.state].plus(line.amounts)
        return Sums(*parts.values())

    def fits(self, account: str, asked: Amounts) -> bool:
        if account in self.stopped:
            return False
        limits = {**self.limits.get(account, {}), **self.changed.get(account, {})}
        used = NOTHING
        for part in self.sums(account):
            used = used.plus(part)
        every = zip(Amounts._fields, used, asked, strict=True)
        return all(limits.get(name) is None or not more or had + more <= limits[name] for name, had, more in every)

    async def _reserve(self, asked: Reservation, earlier: Spent | None = None) -> bool:
        for charge in asked.charges:
            if charge.declared != "{}":
                self.limits[charge.account] = json.loads(charge.declared or "{}")
        for line in self.lines:
            named = any(line.account == charge.account for charge in asked.charges)
            if not named or line.state != "open" or (line.run, line.key) != (asked.row, asked.key):
                continue
            if earlier is not None and line.reservation == earlier.reservation:
                line.state, line.amounts = earlier.state, earlier.amounts
            elif line.reservation != asked.reservation:
                line.state = "lost"
        is_known = any(line.reservation == asked.reservation for line in self.lines)
        fits = is_known or all(self.fits(charge.account, asked.amounts) for charge in asked.charges)
        verdict = await self.store.reserve(self.fence, asked, earlier)
        assert (verdict.refusal is None) == fits
        if fits and not is_known:
            state = "spent" if asked.at_once else "open"
            self.lines += [
                Line(asked.reservation, charge.account, asked.row, asked.key, state, asked.amounts)
                for charge in asked.charges
            ]
        return fits

    def _asked(self, place: int, key: int, accounts: list[str], amounts: Amounts, limits: Any) -> Reservation:
        run = self.runs[place]
        charges = [Charge(self.prefix + name, None, json.dumps(limits)) for name in accounts]
        return Reservation(
            next(_numbers), run.row, run.id, "a/", f"a/model#{key}", 0, "m", amounts, charges,
        )  # fmt: skip

    async def do_reserve(self, place: int, key: int, accounts: list[str], amounts: Amounts, limits: Any) -> None:
        asked = self._asked(place, key, accounts, amounts, limits)
        if await self._reserve(asked):
            self.open[asked.row] = asked

    async def do_call(self, place: int, key: int, accounts: list[str]) -> None:
        """A call of a tool counts at once, and once."""
        asked = replace(self._asked(place, key, accounts, Amounts(tools=1), {}), key=f"a/tool#{key}", at_once=True)
        if any((line.run, line.key) == (asked.row, asked.key) for line in self.lines):
            assert (await self.store.reserve(self.fence, asked)).refusal is None
        else:
            await self._reserve(asked)

    async def do_repeat(self, place: int) -> None:
        """The reply was lost: the same is sent again."""
        if (asked := self.open.get(self.runs[place].row)) is not None:
            assert await self._reserve(asked)

    async def do_fail(self, place: int, key: int, accounts: list[str], amounts: Amounts, came_to: Amounts) -> None:
        """An attempt of the last unit failed; the next one says what it came to."""
        before = self.open.get(self.runs[place].row)
        if before is not None:
            names = [charge.account.removeprefix(self.prefix) for charge in before.charges]
            asked = replace(self._asked(place, key, names, amounts, {}), key=before.key)
            earlier = Spent(before.row, before.key, before.reservation, "spent", *came_to)
            del self.open[before.row]
            if await self._reserve(asked, earlier):
                self.open[asked.row] = asked

    async def do_settle(self, place: int, amounts: Amounts, state: Any) -> None:
        asked = self.open.pop(self.runs[place].row, None)
        if asked is not None:
            entry = new_entry(asked.row, f"{asked.key}-{next(_numbers)}", seq=next(_numbers))
            side = Spent(asked.row, entry.key, asked.reservation, state, *amounts)
            batch = Batch(entries=[entry], sides=[side])
            for _ in range(2):
                await self.store.commit(batch, self.fence)
            for line in self.lines:
                if line.reservation == asked.reservation and line.state == "open":
                    line.state, line.amounts = state, amounts

    async def do_end(self, place: int, is_deleted: bool) -> None:
        run = self.runs[place]
        self.open.pop(run.row, None)
        await self.store.commit(Batch(finishes=[finish(run.row, status="cancelled")]), self.fence)
        for line in self.lines:
            if line.run == run.row and line.state == "open":
                line.state = "lost"
        if is_deleted:
            await self.store.delete_runs([run.row], Note(next(_numbers) + 10**9, "ana", "delete", "run", run.id))
        await self._begin(place)

    async def do_limit(self, name: str, limits: dict[str, Any]) -> None:
        account = self.prefix + name
        self.changed.setdefault(account, {}).update(limits)
        await self.store.put_account(account, changed=json.dumps(limits), note=self._note(account))

    async def do_stop(self, name: str, stopped: bool) -> None:
        account = self.prefix + name
        (self.stopped.add if stopped else self.stopped.discard)(account)
        await self.store.put_account(account, stopped=stopped, note=self._note(account))

    def _note(self, account: str) -> Note:
        return Note(next(_numbers) + 10**9, "ana", "limit", "budget", account)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("opened", [in_sqlite, in_postgres])
def test_a_ledger_is_what_the_list_says(url: str, opened: Any) -> None:
    @settings(max_examples=pick(small=60 if opened is in_sqlite else 15, full=1_500))
    @given(some.lists(STEPS, min_size=5, max_size=40))
    def play(steps: list[tuple[Any, ...]]) -> None:
        async def twice() -> None:
            async with opened(url) as (store, _):
                await Twin(store).play(steps)

        asyncio.run(twice())

    play()
