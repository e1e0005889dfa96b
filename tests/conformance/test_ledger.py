"""The ledger of budgets: what is reserved, refused, settled, lost and put into balances; on both stores the same."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from outlive.limits import GENERATIONS_KEPT
from outlive.model.ledger import Amounts, Charge, Refusal, Reservation, Spent, Sums
from outlive.model.writes import Batch, Continue, Fence, NewRun, Note
from outlive.store.interface import Store
from outlive.store.refusals import FenceLost
from tests.conformance.records import finish, new_entry, new_run, register

_numbers = itertools.count(1_000_000)


def note(action: str = "limit", target: str = "team") -> Note:
    return Note(next(_numbers), "ana", action, "budget", target, "why")


def charge(account: str = "team", per: Any = None, **limits: Any) -> Charge:
    return Charge(account, per, json.dumps(limits))


def ask(run: NewRun, *charges: Charge, key: str = "a#1/model#1", **facts: Any) -> Reservation:
    plain: dict[str, Any] = {
        "reservation": next(_numbers), "row": run.row, "run": run.id, "scope": "a#1/", "key": key, "generation": 0,
        "model": "m", "amounts": Amounts(usd=10, tokens=100, requests=1), "charges": charges,
    }  # fmt: skip
    return Reservation(**(plain | facts))


def spent(asked: Reservation, state: Any = "spent", **amounts: int) -> Spent:
    return Spent(asked.row, asked.key, asked.reservation, state, *Amounts(**amounts))


async def owned_runs(store: Store, fence: Fence, *ids: str, **facts: Any) -> list[NewRun]:
    runs = [new_run(run_id, owned=True, **facts) for run_id in ids]
    await store.commit(Batch(starts=runs), fence)
    return runs


async def settle(store: Store, fence: Fence, asked: Reservation, state: Any = "spent", **amounts: int) -> None:
    entry = new_entry(asked.row, asked.key, seq=next(_numbers))
    await store.commit(Batch(entries=[entry], sides=[spent(asked, state, **amounts)]), fence)


async def sums(store: Store, account: str = "team", period: str | None = None) -> Sums:
    ((found),) = await store.list_accounts(account, period, 10, "")
    return found.sums


async def test_what_is_reserved_counts_until_it_is_settled(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        asked = ask(run, charge(usd=25))
        verdict = await store.reserve(fence, asked)
        assert (verdict.refusal, verdict.left_s) == (None, None)
        assert await sums(store) == Sums(reserved=Amounts(10, 100, 1))
        await settle(store, fence, asked, usd=3, tokens=40, requests=1)
        assert await sums(store) == Sums(spent=Amounts(3, 40, 1))
        other = ask(run, charge(usd=25), key="a#1/model#2")
        assert (await store.reserve(fence, other)).refusal is None
        assert await sums(store) == Sums(spent=Amounts(3, 40, 1), reserved=Amounts(10, 100, 1))


@pytest.mark.parametrize("measure", ["usd", "tokens", "requests", "tools"])
async def test_what_does_not_fit_is_refused_and_changes_nothing(database, measure):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        amounts = Amounts(**{measure: 10})
        fits = ask(run, charge(**{measure: 19}), amounts=amounts)
        assert (await store.reserve(fence, fits)).refusal is None
        refused = ask(run, charge("first"), charge(**{measure: 19}), key="a#1/model#2", amounts=amounts)
        verdict = await store.reserve(fence, refused)
        assert verdict.refusal == Refusal("team", measure, 19, 0, 10, 10)
        assert await sums(store) == Sums(reserved=amounts)
        assert await sums(store, "first") == Sums()
        exactly = ask(run, charge(**{measure: 20}), key="a#1/model#3", amounts=amounts)
        assert (await store.reserve(fence, exactly)).refusal is None


async def test_a_second_send_neither_adds_nor_is_refused(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        asked = ask(run, charge(usd=10))
        for _ in range(3):
            assert (await store.reserve(fence, asked)).refusal is None
        await store.put_account("team", stopped=True, note=note("stop"))
        assert (await store.reserve(fence, asked)).refusal is None
        assert await sums(store) == Sums(reserved=Amounts(10, 100, 1))
        await settle(store, fence, asked, usd=7)
        entry = new_entry(asked.row, asked.key, seq=1)
        again = Batch(entries=[entry], sides=[spent(asked, usd=7)])
        await store.commit(again, fence)
        await store.commit(again, fence)
        assert await sums(store) == Sums(spent=Amounts(7))


async def test_an_interrupted_attempt_is_lost_and_the_next_one_has_to_fit(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        assert (await store.reserve(fence, ask(run, charge(usd=25)))).refusal is None
        second = ask(run, charge(usd=25))
        assert (await store.reserve(fence, second)).refusal is None
        assert await sums(store) == Sums(lost=Amounts(10, 100, 1), reserved=Amounts(10, 100, 1))
        refusal = (await store.reserve(fence, ask(run, charge(usd=25)))).refusal
        assert refusal == Refusal("team", "usd", 25, 20, 0, 10)
        assert await sums(store) == Sums(lost=Amounts(20, 200, 2))
        await settle(store, fence, second, usd=1)  # too late: it was given up
        assert await sums(store) == Sums(lost=Amounts(20, 200, 2))


async def test_an_attempt_that_failed_here_is_what_it_came_to(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        first, second = ask(run, charge(usd=10)), ask(run, charge(usd=10))
        assert (await store.reserve(fence, first)).refusal is None
        free = spent(first, requests=1)
        for _ in range(2):  # sent again
            assert (await store.reserve(fence, second, free)).refusal is None
        assert await sums(store) == Sums(spent=Amounts(requests=1), reserved=Amounts(10, 100, 1))


async def test_what_counts_at_once_counts_once_for_each_generation(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        call = {"key": "a#1/tool:t(1)#1", "amounts": Amounts(tools=1), "at_once": True}
        for _ in range(3):
            assert (await store.reserve(fence, ask(run, charge(tools=2), **call))).refusal is None
        assert await sums(store) == Sums(spent=Amounts(tools=1))
        assert (await store.reserve(fence, ask(run, charge(tools=2), generation=1, **call))).refusal is None
        assert await sums(store) == Sums(spent=Amounts(tools=2))
        refusal = (await store.reserve(fence, ask(run, charge(tools=2), generation=2, **call))).refusal
        assert refusal == Refusal("team", "tools", 2, 2, 0, 1)


async def test_what_a_run_left_open_is_lost_when_it_ends(database):
    async with database.open() as store:
        fence = await register(store)
        one, other = await owned_runs(store, fence, "a", "b")
        assert (await store.reserve(fence, ask(one, charge(usd=15)))).refusal is None
        await store.commit(Batch(finishes=[finish(one.row, status="cancelled")]), fence)
        assert await sums(store) == Sums(lost=Amounts(10, 100, 1))
        refusal = (await store.reserve(fence, ask(other, charge(usd=15)))).refusal
        assert refusal == Refusal("team", "usd", 15, 10, 0, 10)


async def test_balances_outlive_runs_and_their_own_accounts_do_not(database):
    async with database.open() as store:
        fence = await register(store)
        one, other = await owned_runs(store, fence, "a", "b")
        own = Charge("a/a#1", None, "{}", one.row, 0)
        for number, state in enumerate(["spent", "open", "spent"]):
            asked = ask(one, charge(), own, key=f"a#1/model#{number}")
            assert (await store.reserve(fence, asked)).refusal is None
            if state == "spent":
                await settle(store, fence, asked, usd=5)
        await store.commit(Batch(finishes=[finish(one.row)]), fence)
        assert await store.delete_runs([one.row], note("delete", "a")) == ([], [])
        assert await store.list_accounts("a/a#1", None, 10, "") == []
        assert await store.list_ledger("a/a#1", 10, 2**62) == []
        assert await sums(store) == Sums(spent=Amounts(10), lost=Amounts(10, 100, 1))
        assert (await store.reserve(fence, ask(other, charge()))).refusal is None
        assert await sums(store) == Sums(Amounts(10), Amounts(10, 100, 1), Amounts(10, 100, 1))
        assert {row.run for row in await store.list_ledger("team", 10, 2**62)} == {"b"}


async def test_a_run_that_goes_on_as_new_forgets_what_its_last_generations_did_not_spend(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        for generation in range(GENERATIONS_KEPT + 3):
            scope = f"~{generation}/a#1/"
            own = Charge(f"a/{scope}", None, "{}", run.row, generation)
            asked = ask(run, charge(), own, scope=scope, key=f"{scope}model#1", generation=generation)
            assert (await store.reserve(fence, asked)).refusal is None
            entry = new_entry(run.row, asked.key, seq=1, generation=generation)
            await store.commit(Batch(entries=[entry], sides=[spent(asked, usd=1)]), fence)
            end = Continue(run.row, 1, generation, generation + 1, "2", "[]", 1.0 + generation)
            await store.commit(Batch(continues=[end]), fence)
        left = [row.account for row in await store.list_accounts(None, None, 99, "")]
        assert len([account for account in left if account != "team"]) == GENERATIONS_KEPT
        assert len(await store.list_ledger("team", 99, 2**62)) == GENERATIONS_KEPT
        assert await sums(store) == Sums(spent=Amounts(GENERATIONS_KEPT + 3))
        assert await store.list_ledger("a/~0/a#1/", 99, 2**62) == []


async def test_the_fence_is_checked(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        await store.take_over([fence.worker])
        with pytest.raises(FenceLost):
            await store.reserve(fence, ask(run, charge()))
        assert await store.list_accounts(None, None, 10, "") == []


async def test_a_stopped_account_refuses_what_is_new_and_settles_what_is_under_way(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        asked = ask(run, charge(usd=100))
        assert (await store.reserve(fence, asked)).refusal is None
        await store.put_account("team", stopped=True, note=note("stop"))
        assert (await store.reserve(fence, ask(run, charge(usd=100), key="k"))).refusal == Refusal("team")
        await settle(store, fence, asked, usd=4)
        assert await sums(store) == Sums(spent=Amounts(4))
        await store.put_account("team", stopped=False, note=note("resume"))
        assert (await store.reserve(fence, ask(run, charge(usd=100), key="k"))).refusal is None
        assert [row.action for row in await store.list_audit("team", 10, None)] == ["resume", "stop"]


async def test_what_an_operator_changes_wins_over_what_code_declares(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        await store.put_account("team", changed='{"usd": 15}', note=note())  # before anybody was charged to it
        keys = iter(f"a#1/model#{number}" for number in range(9))
        assert (await store.reserve(fence, ask(run, charge(usd=1), key=next(keys)))).refusal is None
        refusal = (await store.reserve(fence, ask(run, charge(usd=1), key=next(keys)))).refusal
        assert refusal == Refusal("team", "usd", 15, 0, 10, 10)
        await store.put_account("team", changed='{"usd": null}', note=note())
        assert (await store.reserve(fence, ask(run, charge(usd=1), key=next(keys)))).refusal is None
        await store.put_account("team", changed='{"tokens": 250}', note=note())
        refusal = (await store.reserve(fence, ask(run, charge(usd=1), key=next(keys)))).refusal
        assert refusal == Refusal("team", "tokens", 250, 0, 200, 100)
        (found,) = await store.list_accounts("team", None, 10, "")
        assert json.loads(found.changed) == {"usd": None, "tokens": 250}
        assert json.loads(found.declared) == {"usd": 1}


async def test_a_charge_that_declares_nothing_keeps_what_was_declared(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        assert (await store.reserve(fence, ask(run, charge(usd=10)))).refusal is None
        (known,) = await store.list_charged(await child_of(store, fence, run, "a#1/tool:t(1)#1/ship#1"))
        assert json.loads(known.declared or "") == {"usd": 10}
        inherited = Charge("team")
        assert (await store.reserve(fence, ask(run, inherited, key="k"))).refusal == Refusal(
            "team", "usd", 10, 0, 10, 10
        )


async def child_of(store: Store, fence: Fence, parent: NewRun, key: str) -> int:
    child = new_run(f"{parent.id}/{key}", parent=parent.row, parent_key=key)
    entry = new_entry(parent.row, key, kind="child", outcome="started", value="{}")
    await store.commit(Batch(starts=[child], entries=[entry]), fence)
    return child.row


async def test_the_accounts_of_those_above(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        for scope in ("a#1/", "a#2/"):
            await store.reserve(
                fence, ask(run, charge(f"of {scope}"), charge("both"), scope=scope, key=f"{scope}model#1")
            )
        plain = await child_of(store, fence, run, "plain#1")
        below = await child_of(store, fence, run, "a#2/tool:t(1)#1/ship#1")
        assert await store.list_charged(run.row) == []
        assert await store.list_charged(plain) == []
        assert [one.account for one in await store.list_charged(below)] == ["both", "of a#2/"]
        (claimed,) = await store.claim(fence, ["ship"], None, 1)
        deeper = await child_of(store, fence, NewRun(claimed.row, claimed.id, "ship", "[]"), "any#1")
        above = [] if claimed.row == plain else ["both", "of a#2/"]
        assert [one.account for one in await store.list_charged(deeper)] == above


async def test_a_limit_of_time_counts_from_its_beginning(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        now = await store.now()
        own = Charge("own", None, '{"wall": 60}', run.row, 0, now - 20)
        verdict = await store.reserve(fence, ask(run, own))
        assert verdict.left_s == pytest.approx(40, abs=5)
        later = Charge("own", None, '{"wall": 10}', run.row, 0, now)  # it began when it was opened
        refusal = (await store.reserve(fence, ask(run, later, key="k"))).refusal
        assert refusal is not None
        assert (refusal.account, refusal.measure, refusal.limit) == ("own", "wall", 10)


async def test_each_day_has_its_balance(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        asked = ask(run, charge(per="day", usd=15))
        assert (await store.reserve(fence, asked)).refusal is None
        (found,) = await store.list_accounts("team", None, 10, "")
        assert len(found.period) == 10
        assert found.sums == Sums(reserved=Amounts(10, 100, 1))
        assert await sums(store, period="2001-01-01") == Sums()
        await settle(store, fence, asked, usd=6)
        assert (await store.reserve(fence, ask(run, charge(per="day", usd=15), key="k"))).refusal == Refusal(
            "team", "usd", 15, 6, 0, 10
        )


async def test_accounts_and_the_ledger_are_read_in_pages(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await owned_runs(store, fence, "a")
        asked = [ask(run, charge("b"), charge("a"), charge("c"), key=f"k{number}") for number in range(5)]
        for each in asked:
            await store.reserve(fence, each)
        assert [one.account for one in await store.list_accounts(None, None, 2, "")] == ["a", "b"]
        assert [one.account for one in await store.list_accounts(None, None, 2, "b")] == ["c"]
        page = await store.list_ledger("b", 3, 2**62)
        assert [row.reservation for row in page] == [each.reservation for each in reversed(asked[2:])]
        rest = await store.list_ledger("b", 3, page[-1].reservation)
        assert [row.reservation for row in rest] == [each.reservation for each in reversed(asked[:2])]
        assert (rest[0].run, rest[0].model, rest[0].state, rest[0].settled_at) == ("a", "m", "open", None)


async def test_many_at_once_on_accounts_in_any_order(database):
    """Nobody deadlocks, and the limit is met exactly."""
    async with database.open() as store:
        fence = await register(store)
        runs = await owned_runs(store, fence, *"abcdef")
        names = ["x", "y", "z"]

        async def go(number: int) -> bool:
            order = names[number % 3 :] + names[: number % 3]
            asked = ask(runs[number % 6], *[charge(name, requests=15) for name in order], key=f"k{number}")
            if (await store.reserve(fence, asked)).refusal is not None:
                return False
            if number % 2 == 0:
                await settle(store, fence, asked, requests=1)
            return True

        done = await asyncio.gather(*(go(number) for number in range(30)))
        assert sum(done) == 15
        for name in names:
            found = await sums(store, name)
            assert found.spent.requests + found.reserved.requests == 15
