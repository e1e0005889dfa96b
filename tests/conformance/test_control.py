"""Generations, forks, deletions and the audit, as a store has to write them."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from outlive.model.writes import Batch, Fork, NewRun, Note, Reopening
from outlive.store.refusals import EntrySettled, GenerationEnded, RowTaken
from tests.conformance.records import (
    claim_all,
    finish,
    mark,
    new_entry,
    new_run,
    register,
    release,
    start,
    start_owned,
    status,
)

_numbers = itertools.count(500_000)


def note(action: str = "retry", target: str = "one", **facts: Any) -> Note:
    return Note(next(_numbers), "ada", action, "run", target, **facts)


async def end(store: Any, fence: Any, run: NewRun, *entries: Any, **facts: Any) -> Batch:
    """End a run with these entries; give the batch that did it."""
    batch = Batch(entries=list(entries), finishes=[finish(run.row, **facts)])
    await store.commit(batch, fence)
    return batch


async def reopened(store: Any, run: NewRun, **facts: Any) -> bool:
    row = await store.find_run(run.id)
    plain = {"generation": row.generation, "claim": row.claim, "action": "retry"}
    return bool(await store.reopen([Reopening(run.row, **(plain | facts))], note(target=run.id)))


async def keys(store: Any, run_id: str) -> list[str]:
    return [entry.key for entry in await store.list_entries(run_id)]


async def test_a_run_that_has_ended_is_unfinished_again(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        entries = [new_entry(run.row, f"/pay#{n}", seq=n) for n in (1, 2, 3)]
        await end(store, fence, run, *entries, status="failed", output=None, error='{"type": "E"}')
        before = await store.list_entries("one")
        assert await reopened(store, run, dropped=["/pay#2", "/pay#3"])
        found = await store.find_run("one")
        assert (found.status, found.generation, found.error, found.finished_at) == ("suspended", 1, None, None)
        assert found.started_at == 1_700_000_000.0
        assert await keys(store, "one") == ["/pay#1"]
        assert await store.list_past(run.row, 0) == before
        assert (await store.list_ended([run.row])) == []
        (claimed,) = await store.claim(fence, ["ship"], None, 10)
        assert (claimed.generation, claimed.claim, claimed.fresh, claimed.crashes) == (1, 2, False, 0)
        assert [entry.key for entry in (await store.load_entries([run.row]))[run.row]] == ["/pay#1"]


async def test_generations_stay_readable(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        await end(store, fence, run, new_entry(run.row, "/a#1", seq=1), new_entry(run.row, "/b#1", seq=2, value='"0"'))
        for generation in (1, 2):
            assert await reopened(store, run, action="rewind", dropped=["/b#1"])
            (claimed,) = await store.claim(fence, ["ship"], None, 10)
            entry = new_entry(run.row, "/b#1", seq=2, value=f'"{generation}"', generation=generation)
            await end(store, fence, run, entry, claim=claimed.claim)
        for generation in (0, 1):
            journal = [(entry.key, entry.value) for entry in await store.list_past(run.row, generation)]
            assert journal == [("/a#1", '"paid"'), ("/b#1", f'"{generation}"')]
        assert [entry.value for entry in await store.list_entries("one")] == ['"paid"', '"2"']


async def test_a_late_write_of_an_old_claim_is_refused(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        batch = await end(store, fence, run, new_entry(run.row, "/a#1", seq=1), new_entry(run.row, "/b#1", seq=2))
        assert await reopened(store, run, dropped=["/b#1"])
        committed = await store.commit(batch, fence)  # its reply was lost: it is sent again as it is
        assert not committed.refused
        assert (await keys(store, "one"), await status(store, "one")) == (["/a#1"], "suspended")
        (claimed,) = await store.claim(fence, ["ship"], None, 10)
        late = [
            Batch(finishes=[finish(run.row, claim=1)]),
            Batch(releases=[release(run.row, claim=1, hold="paused")]),
            Batch(marks=[mark(run.row, claim=1, in_user_code=False)]),
            Batch(entries=[new_entry(run.row, "/c#1", seq=3)]),
            batch,
        ]
        for one in late:
            await store.commit(one, fence)
        assert (await keys(store, "one"), await status(store, "one")) == (["/a#1"], "running")
        own = new_entry(run.row, "/b#1", seq=2, value='"anew"', generation=1)
        await end(store, fence, run, own, claim=claimed.claim)
        await store.commit(batch, fence)
        assert [entry.value for entry in await store.list_entries("one")] == ['"paid"', '"anew"']
        assert await status(store, "one") == "succeeded"


async def test_a_late_transaction_is_rolled_back(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        tx = await store.begin(5.0)
        await tx.execute("create table bookings (label text)")
        await tx.commit(fence, new_entry(run.row, "/a#1", kind="transaction"))
        await end(store, fence, run)
        assert await reopened(store, run, dropped=["/a#1"])
        tx = await store.begin(5.0)
        await tx.execute("insert into bookings values ('late')")
        with pytest.raises(EntrySettled):
            await tx.commit(fence, new_entry(run.row, "/b#1", kind="transaction", seq=2))
        tx = await store.begin(5.0)
        assert await tx.fetchval("select count(*) from bookings") == 0
        await tx.rollback()
        assert await keys(store, "one") == []


async def test_what_somebody_owns_or_has_owned_since_is_left_alone(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        await store.commit(Batch(entries=[new_entry(run.row)]), fence)
        row = await store.find_run("one")
        assert row is not None
        plan = Reopening(run.row, 0, row.claim, "rewind", ["/pay#1"])
        assert not await store.reopen([plan], note())
        await store.commit(Batch(releases=[release(run.row, wake_at=0.0)]), fence)
        await claim_all(store, fence)
        await store.commit(Batch(releases=[release(run.row, claim=2)]), fence)
        assert not await store.reopen([plan], note())  # it was owned between
        assert not await store.reopen([dataclasses.replace(plan, claim=2, generation=1)], note())
        assert await keys(store, "one") == ["/pay#1"]
        assert await store.list_audit(None, 10, None) == []
        assert await store.reopen([dataclasses.replace(plan, claim=2)], note())
        assert await keys(store, "one") == []


async def test_all_of_them_or_none(database):
    async with database.open() as store:
        fence = await register(store)
        one, two = await start_owned(store, fence, "one", "two")
        await end(store, fence, one)
        plans = [Reopening(one.row, 0, 1, "retry"), Reopening(two.row, 0, 1, "retry")]
        assert not await store.reopen(plans, note())
        assert (await status(store, "one"), await status(store, "two")) == ("succeeded", "running")
        await end(store, fence, two)
        assert await store.reopen(plans, note())
        assert sorted(await claim_all(store, fence)) == ["one", "two"]


@pytest.mark.parametrize("resume", [True, False])
async def test_a_held_run_goes_on_only_if_asked(database, resume):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        held = release(run.row, hold="paused", hold_reason="{}")
        await store.commit(Batch(entries=[new_entry(run.row)], releases=[held]), fence)
        await store.add_request("one", "pause", None)
        assert await reopened(store, run, action="rewind", dropped=["/pay#1"], resume=resume)
        assert await status(store, "one") == ("suspended" if resume else "paused")
        assert await claim_all(store, fence) == (["one"] if resume else [])
        assert len(await store.list_requests(fence)) == 0


async def test_a_child_is_awaited_again_and_another_one_cancelled(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        begun = [new_entry(run.row, f"/c#{n}", outcome="started", kind="child") for n in (1, 2)]
        children = [new_run(f"c{n}", parent=run.row, parent_key=f"/c#{n}", parent_close="cancel") for n in (1, 2)]
        await store.commit(Batch(entries=begun, starts=children), fence)
        outcomes = [new_entry(run.row, f"/c#{n}", seq=n, kind="child", outcome="error", error="{}") for n in (1, 2)]
        await end(store, fence, run, *outcomes)
        assert await reopened(
            store, run, dropped=["/c#2"], awaited={"/c#1": '{"run": "c1"}'}, cancelled=[children[1].row]
        )
        (entry,) = await store.list_entries("one")
        assert (entry.key, entry.outcome, entry.seq, entry.value, entry.error) == (
            "/c#1", "started", None, '{"run": "c1"}', None,
        )  # fmt: skip
        assert [entry.outcome for entry in await store.list_past(run.row, 0)] == ["error", "error"]
        await claim_all(store, fence)
        assert [request.row for request in await store.list_requests(fence)] == [children[1].row]


async def test_requests_for_a_run_that_had_ended_are_over(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        await store.add_request("one", "cancel", '"too late"')
        await end(store, fence, run)
        assert await reopened(store, run)
        assert await claim_all(store, fence) == ["one"]
        assert await store.list_requests(fence) == []


async def test_a_deadline_is_lifted_only_when_it_has_passed(database):
    async with database.open() as store:
        fence = await register(store)
        now = await store.now()
        late = await start_owned(store, fence, "late", deadline_at=now - 5)
        for run in (*late, *await start_owned(store, fence, "soon", deadline_at=now + 500)):
            await end(store, fence, run)
            assert await reopened(store, run)
        assert (await store.find_run("late")).deadline_at is None
        assert (await store.find_run("soon")).deadline_at == pytest.approx(now + 500)


async def test_the_earlier_deadline_counts(database):
    async with database.open() as store:
        now = await store.now()
        (a,) = await start(store, "a", deadline_s=50.0)
        (b,) = await start(store, "b", deadline_s=50.0, deadline_at=now + 20)
        (c,) = await start(store, "c", deadline_s=50.0, deadline_at=now + 90, delay_s=1_000.0)
        for run, expected in ((a, 50), (b, 20), (c, 50)):
            found = await store.find_run(run.id)
            assert found.deadline_at == pytest.approx(now + expected, abs=5)
        assert (await store.find_run("c")).wake_at == pytest.approx(now + 50, abs=5)


# -- forks --------------------------------------------------------------------
async def test_a_fork_has_what_it_keeps(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one", input='["x"]', key="k", attributes='{"a": 1}')
        entries = [new_entry(run.row, f"/pay#{n}", seq=n) for n in (1, 2, 3)]
        await store.commit(Batch(entries=entries), fence)
        fork = Fork(900_001, "f", run.row, 0, ["/pay#1", "/pay#2"], {"/pay#2": '"patched"'}, 60.0)
        assert await store.fork(fork, note("fork")) is None
        found = await store.find_run("f")
        assert (found.forked_from, found.input, found.key, found.attributes) == ("one", '["x"]', "k", '{"a": 1}')
        assert found.deadline_at == pytest.approx(await store.now() + 60, abs=5)
        assert [entry.value for entry in await store.list_entries("f")] == ['"paid"', '"patched"']
        assert await keys(store, "one") == ["/pay#1", "/pay#2", "/pay#3"]
        (claimed,) = await store.claim(fence, ["ship"], None, 10)
        assert (claimed.id, claimed.fresh, claimed.salt) == ("f", False, run.row)
        assert claimed.started_at == pytest.approx(run.started_at, abs=1e-5)
        again = await store.fork(fork, note("fork"))
        assert again is not None and again.row == fork.row
        other = await store.fork(dataclasses.replace(fork, row=900_002), note("fork"))
        assert other is not None and (other.row, other.id) == (fork.row, "f")
        assert len(await store.list_audit(None, 10, None)) == 1


async def test_a_fork_of_another_generation_or_on_a_taken_row(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        await end(store, fence, run)
        with pytest.raises(RowTaken):
            await store.fork(Fork(run.row, "f", run.row, 0, []), note("fork"))
        for origin, generation in ((run.row, 1), (12345, 0)):
            with pytest.raises(GenerationEnded):
                await store.fork(Fork(900_003, "f", origin, generation, []), note("fork"))
        assert await store.find_run("f") is None
        assert await store.list_audit(None, 10, None) == []
        assert await store.fork(Fork(900_003, "f", run.row, 0, []), note("fork")) is None
        (claimed,) = await store.claim(fence, ["ship"], None, 10)
        assert claimed.started_at >= run.started_at  # without entries its time is its own


# -- deletions ----------------------------------------------------------------
async def test_a_deleted_run_takes_all_that_is_its_own(database):
    async with database.open() as store:
        fence = await register(store)
        one, two = await start_owned(store, fence, "one", "two", input='"' + "x" * 70_000 + '"')
        for run in (one, two):
            await end(store, fence, run, new_entry(run.row, "/a#1", seq=1))
            assert await reopened(store, run, dropped=["/a#1"])
        (*_,) = await claim_all(store, fence)
        for run in (one, two):
            await end(store, fence, run, claim=2)
        assert await store.delete_runs([one.row], note("delete")) == ([], [])
        assert await store.find_run("one") is None
        assert await store.list_past(one.row, 0) == []
        assert len(await store.list_past(two.row, 0)) == 1
        (fresh,) = await start(store, "one", row=one.row)
        assert fresh.row == one.row
        assert await store.list_entries("one") == []
        assert await store.list_past(one.row, 0) == []


async def test_what_is_in_the_way_of_a_deletion(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        begun = new_entry(run.row, "/c#1", outcome="started", kind="child")
        child = replace(new_run("c", owned=True, parent=run.row, parent_key="/c#1", parent_close="cancel"))
        await store.commit(Batch(entries=[begun], starts=[child]), fence)
        assert await store.list_descendants(run.row) == [child.row]
        unfinished, _ = await store.delete_runs([run.row, child.row], note("delete"))
        assert sorted(unfinished) == ["c", "one"]
        await end(store, fence, child)
        assert await store.delete_runs([child.row], note("delete")) == ([], ["c"])
        assert await store.list_audit(None, 10, None) == []
        await end(store, fence, run, new_entry(run.row, "/c#1", seq=1, kind="child"))
        assert await store.delete_runs([run.row, child.row], note("delete")) == ([], [])
        assert await store.find_run("c") is None


# -- the audit ----------------------------------------------------------------
async def test_a_note_is_written_with_its_action_and_once(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        asked = note("cancel", reason="enough", facts='{"a": 1}')
        for _ in range(2):
            assert await store.add_request("one", "cancel", None, asked)
        assert not await store.resume("one", note("resume"))
        await store.add_request("one", "pause", None)  # not a person's
        (row,) = await store.list_audit(None, 10, None)
        assert (row.audit, row.who, row.action, row.noun, row.target, row.reason, row.facts) == (
            asked.audit, "ada", "cancel", "run", "one", "enough", '{"a": 1}',
        )  # fmt: skip
        assert row.at == pytest.approx(await store.now(), abs=60)
        await end(store, fence, run)
        assert not await store.add_request("one", "cancel", None, note("cancel"))
        assert len(await store.list_audit(None, 10, None)) == 1


async def test_the_audit_is_read_by_target_and_page(database):
    async with database.open() as store:
        await start(store, "one", "two")
        for target in ("one", "two", "one", "one"):
            await store.add_request(target, "cancel", None, note("cancel", target))
        assert [row.target for row in await store.list_audit(None, 10, None)] == ["one", "one", "two", "one"]
        first = await store.list_audit("one", 2, None)
        rest = await store.list_audit("one", 2, first[-1].audit)
        assert [len(first), len(rest)] == [2, 1]
        assert await store.list_audit("three", 10, None) == []
