"""A run that goes on as new: its journal moves to the past, of which the last generations stay; by its owner, once."""

from __future__ import annotations

import time

import pytest

from outlive.limits import BLOB_THRESHOLD_CHARS, GENERATIONS_KEPT
from outlive.model.writes import Batch, Continue, Fence
from outlive.store.refusals import FenceLost
from tests.conformance.records import claim_all, finish, new_entry, new_run, register, release, start_owned

LARGE = '"' + "x" * BLOB_THRESHOLD_CHARS + '"'
AT = 1_700_000_100.25


def end_generation(row, generation=0, claim=1, **facts):
    plain = {"version": "2", "input": f"[{generation + 1}]", "at": AT + generation, "continued": generation + 1}
    return Continue(row=row, claim=claim, generation=generation, **(plain | facts))


def entry(row, generation, **facts):
    return new_entry(row, f"~{generation}/pay#1" if generation else "/pay#1", generation=generation, **facts)


async def keys(store, run_id="order"):
    return [entry.key for entry in await store.list_entries(run_id)]


async def test_it_has_another_journal_and_other_arguments(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order", version="1", key="ann")
        await store.commit(Batch(entries=[entry(run.row, 0)]), fence)
        await store.commit(Batch(continues=[end_generation(run.row)]), fence)
        found = await store.find_run("order")
        assert (found.input, found.version, found.generation, found.continued) == ("[1]", "2", 1, 1)
        assert (found.status, found.key, found.began_at) == ("running", "ann", AT)
        assert found.started_at == pytest.approx(run.started_at, abs=1e-5)
        assert await keys(store) == []
        assert [each.key for each in await store.list_past(run.row, 0)] == ["/pay#1"]
        await store.commit(Batch(entries=[entry(run.row, 1)]), fence)
        assert await keys(store) == ["~1/pay#1"]
        await store.commit(Batch(finishes=[finish(run.row)]), fence)
        assert (await store.find_run("order")).status == "succeeded"


async def test_who_claims_it_next_gets_the_next_generation(database):
    async with database.open() as store:
        fence, peer = await register(store), await register(store)
        (run,) = await start_owned(store, fence, "order")
        await store.commit(Batch(entries=[entry(run.row, 0)]), fence)
        await store.commit(Batch(continues=[end_generation(run.row)]), fence)
        await store.commit(Batch(entries=[entry(run.row, 1)]), fence)
        await store.take_over([fence.worker])
        (claimed,) = await store.claim(peer, ["ship"], None, 1)
        assert (claimed.input, claimed.version, claimed.generation, claimed.continued) == ("[1]", "2", 1, 1)
        assert (claimed.began_at, claimed.started_at) == (AT, pytest.approx(run.started_at, abs=1e-5))
        assert [each.key for each in (await store.load_entries([run.row]))[run.row]] == ["~1/pay#1"]


async def test_a_second_send_changes_nothing(database):
    """Neither that of the end nor a late one of what came before it."""
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order")
        before = Batch(entries=[entry(run.row, 0)])
        end = Batch(continues=[end_generation(run.row)])
        await store.commit(before, fence)
        for _ in range(2):
            await store.commit(end, fence)
        assert not (await store.commit(before, fence)).refused
        assert await keys(store) == []
        after = Batch(entries=[entry(run.row, 1)])
        await store.commit(after, fence)
        await store.commit(end, fence)
        assert await keys(store) == ["~1/pay#1"]
        assert (await store.find_run("order")).generation == 1


@pytest.mark.parametrize("wrong", ["claim", "worker", "fence", "generation"])
async def test_only_its_owner_ends_a_generation(database, wrong):
    async with database.open() as store:
        fence, peer = await register(store), await register(store)
        (run,) = await start_owned(store, fence, "order")
        await store.commit(Batch(entries=[entry(run.row, 0)]), fence)
        end = end_generation(run.row, int(wrong == "generation"), 1 + (wrong == "claim"))
        if wrong == "fence":
            with pytest.raises(FenceLost):
                await store.commit(Batch(continues=[end]), Fence(fence.worker, fence.epoch + 1))
        else:
            await store.commit(Batch(continues=[end]), peer if wrong == "worker" else fence)
        assert (await store.find_run("order")).generation == 0
        assert await keys(store) == ["/pay#1"]


async def test_the_last_generations_stay_and_the_others_go(database):
    """With their large payloads, and with what they received; what is still referred to stays."""
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order")
        generations = GENERATIONS_KEPT + 3
        for generation in range(generations):
            value = LARGE.replace("x", str(generation % 2), 1)  # two texts, in turn
            await store.commit(Batch(entries=[entry(run.row, generation, value=value)], large=True), fence)
            given = LARGE.replace("x", "i", 1) if generation % 3 else f"[{generation}]"
            end = end_generation(run.row, generation, input=given)
            await store.commit(Batch(continues=[end], large=True), fence)
        past = [await store.list_past(run.row, generation) for generation in range(generations)]
        assert [len(entries) for entries in past] == [0] * 3 + [1] * GENERATIONS_KEPT
        for generation in range(3, generations):
            assert past[generation][0].value == LARGE.replace("x", str(generation % 2), 1)
        assert (await store.find_run("order")).input == LARGE.replace("x", "i", 1)
        for generation in range(generations, generations + GENERATIONS_KEPT + 1):
            await store.commit(Batch(continues=[end_generation(run.row, generation)]), fence)
        assert await count_blobs(store) == 0


async def count_blobs(store):
    tx = await store.begin(5.0)
    try:
        table = "ol_blobs" if store.url.startswith("sqlite") else "outlive.blobs"
        return await tx.fetchval(f"select count(*) from {table}")
    finally:
        await tx.rollback()


async def test_children_that_end_with_their_parent_are_asked_to(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order")
        closing = new_run("closing", parent=run.row, parent_key="/pay#1", parent_close="cancel")
        lasting = new_run("lasting", parent=run.row, parent_key="/pay#1", parent_close="abandon")
        await store.commit(Batch(starts=[closing, lasting], entries=[entry(run.row, 0)]), fence)
        end = end_generation(run.row, close_reason='"its parent has continued"')
        for _ in range(2):
            await store.commit(Batch(continues=[end]), fence)
        await store.claim(fence, ["ship"], None, 9)
        requests = await store.list_requests(fence)
        assert [(request.row, request.kind) for request in requests] == [(closing.row, "cancel")]


async def test_a_suspect_that_goes_on_as_new_is_none_any_more(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order")
        for suspect in (False, True):
            await store.take_over([fence.worker])
            fence = await register(store)
            await store.claim(fence, ["ship"], None, 1, suspect=suspect)
        await store.commit(Batch(continues=[end_generation(run.row, 0, 3)]), fence)
        found = await store.find_run("order")
        assert (found.crashes, found.generation) == (0, 1)
        await store.commit(Batch(releases=[release(run.row, 3, wake_at=time.time())]), fence)
        assert await claim_all(store, fence) == ["order"]
