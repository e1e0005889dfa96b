"""Schedules: written against a revision together with the runs that they start, found when they are due, deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from outlive.limits import BLOB_THRESHOLD_CHARS
from outlive.model.reads import RunQuery
from outlive.model.schedule import ScheduleWrite
from outlive.model.writes import Batch, Note
from outlive.store.interface import Store
from outlive.store.refusals import WriteRefused
from tests.conformance.records import claim_all, finish, new_run, register, start, start_owned, status

SPEC = '{"workflow":"ship","input":"[]","codec":"json/1","cron":"* * * * *","every_s":null,"at":null,"zone":"UTC"}'


DELETE = Note(5, "ann", "delete", "schedule", "nightly", "no longer needed")


async def write_one(store: Store, write: ScheduleWrite, starts: Any = (), note: Note | None = None) -> bool:
    (written,) = await store.write_schedules([replace(write, starts=list(starts))], note)
    return written


def new_schedule(name: str = "nightly", revision: int = 1, **facts: Any) -> ScheduleWrite:
    plain = {"declared": SPEC, "next_at": 1_800_000_000.25, "created_at": 1_700_000_000.5}
    return ScheduleWrite(name, None, revision, **(plain | facts))


def after(write: ScheduleWrite, revision: int, **facts: Any) -> ScheduleWrite:
    return replace(write, expected=write.revision, revision=revision, **facts)


async def test_a_schedule_is_stored_with_all_its_facts(database):
    async with database.open() as store:
        before = await store.now()
        (run,) = await start(store, "order-1")
        write = new_schedule(
            changed=SPEC, paused=True, last_at=1_700_000_060.125, waiting=[1.5, 2.25], skipped=7, running=[run.row, 5]
        )
        assert await write_one(store, write)
        (found,) = await store.list_schedules("nightly")
        assert (found.name, found.revision, found.declared, found.changed) == ("nightly", 1, SPEC, SPEC)
        assert (found.paused, found.next_at, found.last_at) == (True, 1_800_000_000.25, 1_700_000_060.125)
        assert (found.waiting, found.skipped, found.created_at) == ([1.5, 2.25], 7, 1_700_000_000.5)
        assert found.unfinished == [run.row]
        assert before - 0.001 <= found.now <= await store.now()


async def test_a_schedule_may_have_next_to_nothing(database):
    async with database.open() as store:
        assert await write_one(store, new_schedule(next_at=None))
        (found,) = await store.list_schedules()
        assert (found.changed, found.next_at, found.last_at, found.waiting, found.unfinished) == (
            None,
            None,
            None,
            [],
            [],
        )
        assert await store.list_schedules("other") == []


async def test_only_the_first_inserts(database):
    async with database.open() as store:
        assert await write_one(store, new_schedule(revision=1))
        assert not await write_one(store, new_schedule(revision=2), [new_run("nightly@1")])
        (found,) = await store.list_schedules()
        assert found.revision == 1
        assert await store.find_run("nightly@1") is None


async def test_compare_and_set_with_the_runs(database):
    async with database.open() as store:
        first = new_schedule()
        await write_one(store, first)
        second = after(first, 2, next_at=1_800_000_060.0, skipped=1)
        assert await write_one(store, second, [new_run("nightly@1"), new_run("nightly@2", delay_s=500.0)])
        assert not await write_one(store, after(first, 3, skipped=9), [new_run("nightly@3")])
        assert not await write_one(store, second, [new_run("nightly@3")]), "sent again"
        (found,) = await store.list_schedules()
        assert (found.revision, found.next_at, found.skipped) == (2, 1_800_000_060.0, 1)
        assert [run.id for run in await store.list_runs(RunQuery())] == ["nightly@2", "nightly@1"]
        assert await claim_all(store, await register(store)) == ["nightly@1"]
        assert await status(store, "nightly@2") == "scheduled"


async def test_a_run_that_is_there_is_not_started_again(database):
    async with database.open() as store:
        (run,) = await start(store, "nightly@1")
        await write_one(store, new_schedule())
        again = new_run("nightly@1", workflow="refund", input="[2]")
        assert await write_one(store, after(new_schedule(), 2, running=[again.row]), [again])
        found = await store.find_run("nightly@1")
        assert found is not None
        assert (found.row, found.workflow, found.input) == (run.row, "ship", "[]")
        assert (await store.list_schedules())[0].unfinished == []


async def test_a_row_number_that_is_taken_refuses_all(database):
    async with database.open() as store:
        (run,) = await start(store, "order-1")
        await write_one(store, new_schedule())
        with pytest.raises(WriteRefused):
            await write_one(store, after(new_schedule(), 2), [new_run("nightly@1", row=run.row)])
        assert (await store.list_schedules())[0].revision == 1


async def test_large_arguments_are_kept_apart(database):
    async with database.open() as store:
        large = '["' + "x" * BLOB_THRESHOLD_CHARS + '"]'
        await write_one(store, new_schedule(), [new_run("nightly@1", input=large)])
        found = await store.find_run("nightly@1")
        assert found is not None
        assert found.input == large


async def test_runs_before_are_asked_to_cancel(database):
    async with database.open() as store:
        fence = await register(store)
        mine, done = await start_owned(store, fence, "nightly@1", "nightly@2")
        await store.commit(Batch(finishes=[finish(done.row)]), fence)
        (waiting,) = await start(store, "nightly@3")
        newest, last = new_run("nightly@4"), new_run("nightly@5")
        cancels = [mine.row, done.row, waiting.row, newest.row, 12345]
        assert await write_one(store, new_schedule(cancels=cancels, reason='"for the next"'), [newest, last])
        assert [(one.row, one.kind, one.payload) for one in await store.list_requests(fence)] == [
            (mine.row, "cancel", '"for the next"')
        ]
        claimed = await store.claim(fence, ["ship"], None, 10)
        assert {run.id: run.asked for run in claimed} == {"nightly@3": True, "nightly@4": True, "nightly@5": False}


async def test_several_are_written_together_each_by_its_revision(database):
    async with database.open() as store:
        names = ["b", "a", "c"]
        writes = [new_schedule(name, starts=[new_run(f"{name}@1")]) for name in names]
        assert await store.write_schedules(writes) == [True, True, True]
        await write_one(store, after(writes[1], 5))
        again = [after(write, 7, starts=[new_run(f"{write.name}@2")]) for write in writes]
        assert await store.write_schedules(again) == [True, False, True]
        assert {row.name: row.revision for row in await store.list_schedules()} == {"a": 5, "b": 7, "c": 7}
        assert sorted(run.id for run in await store.list_runs(RunQuery())) == ["a@1", "b@1", "b@2", "c@1", "c@2"]


async def test_what_is_due(database):
    async with database.open() as store:
        now = await store.now()
        (busy,) = await start(store, "order-1")
        assert await store.next_tick([]) is None
        for write in (
            new_schedule("late", next_at=now - 60),
            new_schedule("later", next_at=now - 50),
            new_schedule("to come", next_at=now + 100),
            new_schedule("over", next_at=None),
            new_schedule("paused", next_at=now - 90, paused=True),
            new_schedule("held up", next_at=now + 200, waiting=[now - 5], running=[busy.row]),
            new_schedule("let go", next_at=None, waiting=[now - 5], running=[4711]),
        ):
            assert await write_one(store, write)

        async def due(*but: str, limit: int = 10) -> list[str]:
            return [row.name for row in await store.list_due_schedules(but, limit)]

        assert [name for name in await due() if name != "let go"] == ["late", "later"]
        assert "let go" in await due()
        assert await due("late", "let go") == ["later"]
        assert len(await due(limit=1)) == 1
        assert await store.next_tick(["let go"]) <= 0
        assert await store.next_tick(["late", "later"]) <= 0
        assert 98 < await store.next_tick(["late", "later", "let go"]) <= 100


async def test_deleting(database):
    async with database.open() as store:
        await write_one(store, new_schedule(), [new_run("nightly@1")])
        assert await store.delete_schedule("nightly", DELETE)
        assert not await store.delete_schedule("nightly", DELETE)
        assert await store.list_schedules() == []
        assert await status(store, "nightly@1") == "queued"
        assert await write_one(store, new_schedule(revision=9))
        (noted,) = await store.list_audit("nightly", 10, None)
        assert (noted.who, noted.action, noted.reason) == ("ann", "delete", "no longer needed")


async def test_an_operator_is_noted_with_what_he_does(database):
    async with database.open() as store:
        await write_one(store, new_schedule())
        note = Note(6, "bob", "pause", "schedule", "nightly", "too loud")
        assert await write_one(store, after(new_schedule(), 2, paused=True), note=note)
        refused = Note(7, "eve", "resume", "schedule", "nightly")
        assert not await write_one(store, after(new_schedule(), 3), note=refused)
        assert [one.who for one in await store.list_audit(None, 10, None)] == ["bob"]


async def test_the_view_shows_what_holds(database):
    async with database.open() as store:
        changed = SPEC.replace('"cron":"* * * * *","every_s":null', '"cron":null,"every_s":90.5')
        await write_one(store, new_schedule("a"))
        await write_one(store, new_schedule("b", changed=changed, paused=True, waiting=[1.5, 2.5], skipped=3))
        tx = await store.begin(5.0)
        view = "outlive.outlive_schedules" if database.kind == "postgres" else "outlive_schedules"
        a, b = await tx.fetch(f"select * from {view} order by name")
        await tx.rollback()
        assert [a[name] for name in ("workflow", "cron", "every_s", "at", "zone", "input")] == [
            "ship",
            "* * * * *",
            None,
            None,
            "UTC",
            "[]",
        ]
        assert [b[name] for name in ("cron", "every_s", "waiting", "skipped", "last_at")] == [None, 90.5, 2, 3, None]
        facts = [(bool(row["paused"]), bool(row["declared"]), bool(row["changed"])) for row in (a, b)]
        assert facts == [(False, True, False), (True, True, True)]
        assert str(a["next_at"])[:10] == "2027-01-15"
