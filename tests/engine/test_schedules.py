"""Schedules through the public API: each tick one run, what an operator changes, what is refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from outlive import EncodeFailed, Outlive, RunCancelled, ScheduleNotFound, Status, UsageError, step, workflow
from outlive.model import schedule

LONG_AGO, NEVER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC)
gates: dict[str, asyncio.Event] = {}


@workflow
async def greet(name: str, *, loud: bool = False) -> str:
    return name.upper() if loud else name


@step
async def pass_gate(name: str) -> None:
    await gates.setdefault(name, asyncio.Event()).wait()


@workflow
async def held_up(gate: str) -> str:
    await pass_gate(gate)
    return gate


@pytest.fixture(autouse=True)
def new_gates() -> None:
    gates.clear()


async def runs_of(app: Outlive, name: str) -> list[Any]:
    """List the runs of a schedule, oldest first."""
    return sorted([info async for info in app.runs(id_prefix=f"{name}@")], key=lambda info: info.id)


async def until_runs(app: Outlive, name: str, number: int, status: str | None = None) -> list[Any]:
    """Wait until a schedule has so many runs (of a status)."""
    while True:
        found = [info for info in await runs_of(app, name) if status in (None, info.status)]
        if len(found) >= number:
            return found
        await asyncio.sleep(0.02)


async def test_each_tick_is_one_run_with_its_arguments(url: str) -> None:
    app = Outlive(url, include=[greet])
    app.schedule("often", greet, "ann", every=1, kwargs={"loud": True})
    peer = Outlive(url, include=[greet])
    async with app, peer:
        found = (await until_runs(app, "often", 3))[:3]
        ticks = [datetime.fromisoformat(info.id.partition("@")[2]) for info in found]
        assert {late - early for early, late in pairwise(ticks)} == {timedelta(seconds=1)}
        info = await app.get_schedule("often")
        assert ticks[0] == info.created_at + timedelta(seconds=1)
        assert (info.every, info.declared, info.changed, info.skipped) == (1.0, True, False, 0)
        assert await (await app.get(found[0].id)).result() == "ANN"
        assert info.next_at is not None
        assert info.last_at is not None


async def test_cron_fires_by_seconds(url: str) -> None:
    async with Outlive(url, include=[greet]) as app:
        await app.put_schedule("seconds", greet, "bob", cron="* * * * * *", zone="Europe/Berlin")
        found = await until_runs(app, "seconds", 2, Status.SUCCEEDED)
        assert all(info.id.endswith("Z") and "." not in info.id for info in found)
        assert await (await app.get(found[0].id)).result() == "bob"


async def test_one_off_starts_once_and_ends(url: str) -> None:
    app = Outlive(url, include=[greet])
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    app.schedule("once", greet, "ann", at=soon)
    async with app:
        (info,) = await until_runs(app, "once", 1)
        assert datetime.fromisoformat(info.id.partition("@")[2]) == soon
        assert (await app.get_schedule("once")).next_at is None
        assert await app.next_fires("once", 3) == []
    again = Outlive(url, include=[greet])
    again.schedule("once", greet, "ann", at=soon)
    async with again:
        assert (await again.get_schedule("once")).next_at is None
        assert len(await runs_of(again, "once")) == 1


# -- overlap --------------------------------------------------------------------
async def test_skip_starts_nothing_beside_a_run(url: str) -> None:
    async with Outlive(url, include=[held_up]) as app:
        await app.put_schedule("skips", held_up, "skips", cron="* * * * * *", overlap="skip")
        (first,) = await until_runs(app, "skips", 1)
        while (await app.get_schedule("skips")).skipped < 2:
            await asyncio.sleep(0.05)
        assert [info.id for info in await runs_of(app, "skips")] == [first.id]
        gates["skips"].set()
        await until_runs(app, "skips", 2)


async def test_queue_starts_one_after_the_other(url: str) -> None:
    async with Outlive(url, include=[held_up]) as app:
        await app.put_schedule("queues", held_up, "queues", cron="* * * * * *", overlap="queue")
        while (await app.get_schedule("queues")).waiting < 2:
            await asyncio.sleep(0.05)
        assert len(await runs_of(app, "queues")) == 1
        gates["queues"].set()
        found = await until_runs(app, "queues", 3, Status.SUCCEEDED)
        assert all(early.finished_at <= late.created_at for early, late in pairwise(found))
        ticks = [datetime.fromisoformat(info.id.partition("@")[2]) for info in found]
        assert {late - early for early, late in pairwise(ticks)} == {timedelta(seconds=1)}


async def test_cancel_makes_room(url: str) -> None:
    async with Outlive(url, include=[held_up]) as app:
        await app.put_schedule("cancels", held_up, "cancels", cron="* * * * * *", overlap="cancel")
        cancelled = await until_runs(app, "cancels", 1, Status.CANCELLED)
        await app.pause_schedule("cancels")
        with pytest.raises(RunCancelled, match="next run of schedule 'cancels'"):
            await (await app.get(cancelled[0].id)).result()
        gates["cancels"].set()
        newest = (await runs_of(app, "cancels"))[-1]
        assert await (await app.get(newest.id)).result() == "cancels"


async def test_jitter_puts_the_start_off(url: str) -> None:
    async with Outlive(url, include=[greet]) as app:
        await app.put_schedule("spread", greet, "ann", every=1, jitter=5000)
        (info,) = (await until_runs(app, "spread", 1))[:1]
        assert info.status == Status.SCHEDULED


# -- missed, paused, backfilled ---------------------------------------------------
async def test_ticks_that_nobody_fired_are_caught_up(url: str) -> None:
    """What was missed before anybody was alive: a client declares, a worker comes much later."""
    client = Outlive(url, worker=False)
    client.schedule("too late", "greet", "ann", at=LONG_AGO, catch_up=60)
    async with client:
        await client.put_schedule("once", "greet", "ann", at=LONG_AGO, catch_up=timedelta(days=36_500))
    async with Outlive(url, include=[greet]) as app:
        (info,) = await until_runs(app, "once", 1, Status.SUCCEEDED)
        assert info.id == "once@2020-01-01T00:00:00Z"
        while not (await app.get_schedule("too late")).skipped:
            await asyncio.sleep(0.02)
        assert await runs_of(app, "too late") == []
        assert (await app.get_schedule("once")).skipped == 0


async def test_pause_resume_and_trigger(url: str) -> None:
    app = Outlive(url, include=[greet])
    app.schedule("often", greet, "ann", every=1)
    async with app:
        await app.pause_schedule("often", "too loud", by="bob")
        before = await app.get_schedule("often")
        run = await app.trigger_schedule("often", by="bob")
        assert await run.result() == "ann"
        assert run.id.startswith("often@")
        await asyncio.sleep(1.1)
        assert len(await runs_of(app, "often")) <= 2, "the triggered one, and perhaps one before the pause"
        assert (before.paused, (await app.get_schedule("often")).next_at) == (True, before.next_at)
        await app.resume_schedule("often")
        after = await app.get_schedule("often")
        assert after.next_at > before.next_at
        assert (after.next_at - after.created_at) % timedelta(seconds=1) == timedelta(0), "no drift"
        audit = [(entry.action, entry.by, entry.reason) for entry in await app.audit("often")]
        assert audit == [("resume", app.name, None), ("trigger", "bob", None), ("pause", "bob", "too loud")]


async def test_backfill_starts_nothing_twice(url: str) -> None:
    async with Outlive(url, include=[greet]) as app:
        await app.put_schedule("nightly", greet, "ann", cron="30 2 * * *", zone="Europe/Berlin")
        start, end = datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC)
        runs = await app.backfill_schedule("nightly", start, end)
        assert [run.id for run in runs] == [
            "nightly@2026-03-28T01:30:00Z",
            "nightly@2026-03-29T01:00:00Z",
            "nightly@2026-03-30T00:30:00Z",
        ]
        assert [await run.result() for run in runs] == ["ann"] * 3
        again = await app.backfill_schedule("nightly", start, end + timedelta(days=1))
        assert [run.created for run in again] == [False, False, False, True]
        assert [await run.result() for run in again] == ["ann"] * 4
        assert (await app.get_schedule("nightly")).last_at is None


async def test_next_fires_are_in_the_zone(url: str) -> None:
    async with Outlive(url, worker=False) as app:
        await app.put_schedule("leap", "greet", cron="0 12 29 2 *", zone="Australia/Lord_Howe")
        fires = await app.next_fires("leap", 3)
        assert all((fire.month, fire.day, fire.hour) == (2, 29, 12) for fire in fires)
        assert fires[0].tzinfo == ZoneInfo("Australia/Lord_Howe")
        assert len(await app.next_fires("leap")) == 10


async def test_a_pinned_workflow_is_pinned_by_who_fires_it(url: str) -> None:
    @workflow(name="pinned", version="seven", pin=True)
    async def pinned() -> None:
        pass

    async with Outlive(url, worker=False) as client:
        await client.put_schedule("pinned", "pinned", at=LONG_AGO, catch_up=timedelta(days=36_500))
    async with Outlive(url, include=[pinned]) as app:
        (info,) = await until_runs(app, "pinned", 1, Status.SUCCEEDED)
        assert info.version == "seven"


# -- code and operators -------------------------------------------------------------
def declared(url: str, name: str = "plan", **rule: Any) -> Outlive:
    app = Outlive(url, worker=False)
    app.schedule(name, greet, "ann", **rule)
    return app


async def test_what_an_operator_changes_wins_until_it_is_reset(url: str) -> None:
    async with declared(url, every=100) as app:
        await app.put_schedule("plan", greet, "bob", every=300)
        await app.pause_schedule("plan")
    async with declared(url, every=200) as app:
        info = await app.get_schedule("plan")
        assert (info.every, info.paused, info.declared, info.changed) == (300.0, True, True, True)
        await app.reset_schedule("plan")
        info = await app.get_schedule("plan")
        assert (info.every, info.paused, info.changed) == (200.0, False, False)
        assert info.next_at == info.created_at + timedelta(seconds=200)


async def test_a_declaration_that_changes_replaces_the_last_one(url: str) -> None:
    async with declared(url, every=100) as app:
        first = await app.get_schedule("plan")
    async with declared(url, every=100, overlap="skip") as app:
        second = await app.get_schedule("plan")
        assert (second.overlap, second.next_at) == ("skip", first.next_at)
    async with declared(url, cron="0 0 1 1 *") as app:
        third = await app.get_schedule("plan")
        assert (third.cron, third.every, third.created_at) == ("0 0 1 1 *", None, first.created_at)
        assert third.next_at.month == 1
    async with Outlive(url, worker=False) as app:
        assert [info.name for info in await app.schedules()] == ["plan"], "what is no longer declared stays"
        await app.delete_schedule("plan")
        assert await app.schedules() == []


async def test_processes_that_declare_at_once_agree(url: str) -> None:
    apps = [declared(url, every=100) for _ in range(5)]
    await asyncio.gather(*(app.open() for app in apps))
    try:
        assert len(await apps[0].schedules()) == 1
    finally:
        await asyncio.gather(*(app.close() for app in apps))


async def test_one_bad_row_stops_nobody(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Outlive(url, include=[greet]) as app:
        await app.put_schedule("bad", greet, "ann", every=1)
        engine = app._engine()
        (row,) = await engine.store.list_schedules("bad")
        for broken in (
            '{"workflow": 7}',
            (row.changed or "").replace('"every_s":1.0', '"cron":"0 0 * * *"').replace("UTC", "Moon/Crater"),
        ):
            (row,) = await engine.store.list_schedules("bad")
            write = schedule.change(row, engine.new_row())
            write.changed, write.next_at = broken, row.now - 1
            assert await engine.store.write_schedules([write]) == [True]
            await app.put_schedule("good", greet, "ann", at=datetime.now(UTC))
            await until_runs(app, "good", 1)
            while "'bad' cannot be computed here" not in caplog.text:
                await asyncio.sleep(0.02)
            caplog.clear()
            engine.scheduler._left.clear()
            await app.delete_schedule("good")
        assert await runs_of(app, "bad") == []


# -- what is refused ------------------------------------------------------------------
WRONG_RULES: list[tuple[dict[str, Any], str]] = [
    ({}, "one of cron"),
    ({"cron": "* * * * *", "every": 5}, "cron and every"),
    ({"cron": "61 * * * *"}, "minute"),
    ({"cron": "* 24 * * *"}, "hour"),
    ({"cron": "* * 32 * *"}, "day-of-month"),
    ({"cron": "* * * 13 *"}, "month"),
    ({"cron": "* * * * 8"}, "day-of-week"),
    ({"cron": "60 * * * * *"}, "second"),
    ({"cron": "*/0 * * * *"}, "minute"),
    ({"cron": "* * * *"}, "number of fields"),
    ({"cron": "@daily"}, "number of fields"),
    ({"cron": ""}, "number of fields"),
    ({"cron": "0 0 31 2 *"}, "day-of-month"),
    ({"cron": "0 0 */31 * MON#2"}, "never start"),
    ({"cron": 5}, "text"),
    ({"cron": "1" * 5000 + " * * * *"}, "cron="),
    ({"every": -1}, "every="),
    ({"every": 0.5}, "at least 1 s"),
    ({"every": float("nan")}, "every="),
    ({"every": float("inf")}, "hundred years"),
    ({"every": "5"}, "every="),
    ({"at": datetime(2026, 1, 1)}, "at="),  # noqa: DTZ001 - that is the point
    ({"at": "tomorrow"}, "at="),
    ({"every": 5, "zone": "Moon/Crater"}, "Moon/Crater"),
    ({"every": 5, "zone": "Europe"}, "Europe"),
    ({"every": 5, "zone": "../etc/passwd"}, "passwd"),
    ({"every": 5, "zone": ""}, "zone="),
    ({"every": 5, "zone": None}, "zone="),
    ({"every": 5, "zone": 1}, "zone="),
    ({"every": 5, "jitter": -1}, "jitter"),
    ({"every": 5, "catch_up": timedelta(seconds=-1)}, "catch_up"),
    ({"every": 5, "overlap": "never"}, "allow, skip, queue, cancel"),
    ({"every": 5, "priority": 2.5}, "priority"),
    ({"every": 5, "queue": 7}, "queue"),
    ({"every": 5, "kwargs": [1]}, "kwargs"),
]


@pytest.mark.parametrize(("rule", "word"), WRONG_RULES)
def test_wrong_declarations(rule: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Outlive("sqlite://").schedule("wrong", greet, "ann", **rule)


async def test_a_time_that_has_passed_is_refused_where_it_is_put_anew(url: str) -> None:
    """Code may declare it for ever, and what holds may be put again: after a lost answer, with another priority."""
    client = Outlive(url, worker=False)
    client.schedule("declared", "greet", "ann", at=LONG_AGO)
    async with client:
        for name in ("declared", "new"):
            with pytest.raises(UsageError, match=rf"'{name}' would never start .*: 2020-01-02 .* 3600 s .*catch_up"):
                await client.put_schedule(
                    name, "greet", "ann", at=LONG_AGO + timedelta(days=1), catch_up=timedelta(hours=1)
                )
        with pytest.raises(UsageError, match="older than 60 s"):
            await client.put_schedule("new", "greet", "ann", at=datetime.now(UTC) - timedelta(minutes=5))
        assert [info.name for info in await client.schedules()] == ["declared"]
        await client.put_schedule("declared", "greet", "bob", at=LONG_AGO, priority=3)
        assert (await client.get_schedule("declared")).priority == 3
        await client.put_schedule("new", "greet", "ann", at=datetime.now(UTC) - timedelta(seconds=5))
        await client.put_schedule("new", "greet", "ann", at=LONG_AGO, catch_up=timedelta(days=36_500))


async def test_wrong_rules_are_refused_and_nothing_is_written(url: str) -> None:
    async with Outlive(url, worker=False) as app:
        for rule, word in WRONG_RULES:
            with pytest.raises(UsageError, match=word):
                await app.put_schedule("wrong", greet, "ann", **rule)
        assert await app.schedules() == []


async def test_wrong_names(url: str) -> None:
    app = Outlive(url, worker=False)
    names: list[Any] = ["", "a@b", "a/b", "x" * 171, 7, "line\nbreak"]
    for name in names:
        with pytest.raises(UsageError, match="name"):
            app.schedule(name, greet, "ann", every=5)
    async with app:
        for name in names:
            with pytest.raises(UsageError, match="name"):
                await app.put_schedule(name, greet, "ann", every=5)
            with pytest.raises(UsageError, match="name"):
                await app.pause_schedule(name)
        assert await app.schedules() == []


async def test_wrong_arguments_are_refused_where_they_are_given(url: str) -> None:
    app = Outlive(url, worker=False)
    with pytest.raises(TypeError, match="greet"):
        app.schedule("wrong", greet, every=5)
    with pytest.raises(EncodeFailed):
        app.schedule("wrong", greet, object(), every=5)
    with pytest.raises(UsageError, match="workflow"):
        app.schedule("wrong", pass_gate, "x", every=5)
    app.schedule("right", greet, "ann", every=5)
    with pytest.raises(UsageError, match="declared twice"):
        app.schedule("right", greet, "ann", every=5)
    async with app:
        with pytest.raises(UsageError, match="put_schedule"):
            app.schedule("late", greet, "ann", every=5)
        assert [info.name for info in await app.schedules()] == ["right"]


async def test_a_worker_refuses_a_workflow_that_it_does_not_know(url: str) -> None:
    app = Outlive(url, include=[greet])
    app.schedule("wrong", "greeet", "ann", every=5)
    with pytest.raises(UsageError, match="greeet"):
        await app.open()
    async with Outlive(url, include=[greet]) as app:
        with pytest.raises(UsageError, match="greeet"):
            await app.put_schedule("wrong", "greeet", "ann", every=5)
        assert await app.schedules() == []


async def test_unknown_names(url: str) -> None:
    async with Outlive(url, worker=False) as app:
        for ask in (
            app.get_schedule,
            app.pause_schedule,
            app.resume_schedule,
            app.reset_schedule,
            app.delete_schedule,
            app.trigger_schedule,
            app.next_fires,
            lambda name: app.backfill_schedule(name, LONG_AGO, LONG_AGO + timedelta(days=1)),
        ):
            with pytest.raises(ScheduleNotFound, match="'nobody'"):
                await ask("nobody")
        assert await app.audit() == []


async def test_wrong_questions(url: str) -> None:
    async with Outlive(url, worker=False) as app:
        await app.put_schedule("plan", greet, "ann", cron="* * * * *")
        with pytest.raises(UsageError, match="made at run time"):
            await app.reset_schedule("plan")
        for n in (0, -1, 1.5, 10**9):
            with pytest.raises(UsageError, match="next_fires"):
                await app.next_fires("plan", n)
        for start, end in ((LONG_AGO, NEVER), (NEVER, LONG_AGO), (LONG_AGO, LONG_AGO)):
            with pytest.raises(UsageError, match="in the past"):
                await app.backfill_schedule("plan", start, end)
        with pytest.raises(UsageError, match="more than 10,000 ticks"):
            await app.backfill_schedule("plan", LONG_AGO, LONG_AGO + timedelta(days=30))
        with pytest.raises(UsageError, match="time zone"):
            await app.backfill_schedule("plan", LONG_AGO.replace(tzinfo=None), NEVER)
        with pytest.raises(UsageError, match="by="):
            await app.pause_schedule("plan", by=7)  # type: ignore[arg-type]
        assert [info async for info in app.runs()] == []
        assert not (await app.get_schedule("plan")).paused
