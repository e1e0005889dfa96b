"""Messages, values, streams and promises: side rows of entries, read in batches, settled once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outlive.model.mail import (
    NewItem,
    NewMessage,
    NewPromise,
    NewValue,
    Receipt,
    Settlement,
    StreamPart,
)
from outlive.model.writes import Batch, Fence, Note
from outlive.store.interface import Store
from outlive.store.refusals import FenceLost, WriteRefused
from tests.conformance.records import (
    claim_all,
    finish,
    new_entry,
    new_run,
    register,
    release,
    start,
    start_owned,
    status,
)


def message(run: str, value: str, key: str | None = None, **facts: Any) -> NewMessage:
    plain: dict[str, Any] = {"row": None, "entry": None, "topic": "review", "codec": "json/1"}
    return NewMessage(run=run, value=value, key=key or value, **(plain | facts))


def settlement(token: str, value: str = "1", **facts: Any) -> Settlement:
    plain: dict[str, Any] = {"row": None, "entry": None, "outcome": "ok", "error": None, "codec": "json/1"}
    return Settlement(token=token, value=value, **(plain | facts))


async def read(store: Store, row: int, topic: str = "review", limit: int = 100) -> list[str]:
    found = await store.list_mail([(row, topic)], limit)
    return [one.value for one in found.get((row, topic), [])]


async def test_messages_from_outside_arrive_in_order(database):
    async with database.open() as store:
        first, second = await start(store, "first", "second")
        sides = [message("first", "1"), message("second", "2"), message("first", "3"), message("first", "4", topic="x")]
        committed = await store.commit(Batch(sides=sides), None)
        assert committed.deliveries["first", "3"].row == first.row
        assert {delivery.problem for delivery in committed.deliveries.values()} == {None}
        await store.commit(Batch(sides=[message("first", "0")]), None)
        assert await read(store, first.row) == ["1", "3", "0"]
        assert await read(store, first.row, "x") == ["4"]
        assert await read(store, second.row) == ["2"]
        assert await read(store, first.row, limit=2) == ["1", "3"]
        both = await store.list_mail([(first.row, "review"), (second.row, "review"), (7, "review")], 1)
        assert {place: len(found) for place, found in both.items()} == {
            (first.row, "review"): 1,
            (second.row, "review"): 1,
        }


async def test_a_message_of_one_key_arrives_once(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "run")
        batch = Batch(sides=[message("run", "1", "once"), message("run", "2", "other")])
        await store.commit(batch, None)
        again = await store.commit(batch, None)
        assert again.deliveries["run", "once"].problem is None
        assert await read(store, run.row) == ["1", "2"]
        (oldest, _) = (await store.list_mail([(run.row, "review")], 9))[run.row, "review"]
        receipt = Receipt(run.row, "receive:review#1", oldest.message)
        await store.commit(Batch(entries=[new_entry(run.row, "receive:review#1")], sides=[receipt]), fence)
        await store.commit(batch, None)
        assert await read(store, run.row) == ["2"], "received once, and not sent again by the same key"


async def test_one_key_within_a_batch_is_one_message(database):
    async with database.open() as store:
        (run,) = await start(store, "run")
        await store.commit(Batch(sides=[message("run", "1", "k"), message("run", "2", "k")]), None)
        assert await read(store, run.row) == ["1"]


async def test_a_message_to_nobody_is_told(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "run")
        await store.commit(Batch(sides=[message("run", "early")]), None)
        await store.commit(Batch(finishes=[finish(run.row)]), fence)
        sides = [message("nobody", "1"), message("run", "late"), message("run", "early")]
        deliveries = (await store.commit(Batch(sides=sides), None)).deliveries
        assert deliveries["nobody", "1"].problem == "unknown"
        assert deliveries["run", "late"].problem == "ended"
        assert deliveries["run", "early"].problem is None, "it was there before the run ended"


async def test_a_message_reaches_a_run_that_starts_in_the_same_batch(database):
    async with database.open() as store:
        run = new_run("run")
        batch = Batch(starts=[run], sides=[message("run", "1")])
        for _ in range(2):
            deliveries = (await store.commit(batch, None)).deliveries
            assert deliveries["run", "1"].row == run.row
        assert await read(store, run.row) == ["1"]
        other = new_run("run")
        committed = await store.commit(Batch(starts=[other], sides=[message("run", "2")]), None)
        assert committed.existing[other.row].row == run.row
        assert committed.deliveries["run", "2"].row == run.row
        assert await read(store, run.row) == ["1", "2"]


async def test_messages_of_a_workflow_come_with_their_entry(database):
    async with database.open() as store:
        fence = await register(store)
        sender, receiver = await start_owned(store, fence, "sender", "receiver")
        started = new_entry(sender.row, "send:review#1", outcome="started", kind="send")
        side = message("receiver", "1", row=sender.row, entry="send:review#1", sender="sender")
        batch = Batch(entries=[started], sides=[side])
        for _ in range(3):
            assert (await store.commit(batch, fence)).deliveries["receiver", "1"].row == receiver.row
        assert await read(store, receiver.row) == ["1"]
        orphan = message("receiver", "2", row=sender.row, entry="send:review#2")
        await store.commit(Batch(entries=[new_entry(sender.row, "/other#1")], sides=[orphan]), fence)
        assert await read(store, receiver.row) == ["1"], "no entry, no message"


async def test_a_lost_fence_sends_nothing(database):
    async with database.open() as store:
        fence = await register(store)
        sender, receiver = await start_owned(store, fence, "sender", "receiver")
        entry, side = _show(sender.row, 1)
        stale = Fence(fence.worker, fence.epoch + 1)
        sides = [side, message("receiver", "1", row=sender.row, entry=entry.key), message("receiver", "outside")]
        with pytest.raises(Exception, match="no longer has epoch"):
            await store.commit(Batch(entries=[entry], sides=sides), stale)
        assert await read(store, receiver.row) == []
        assert not await store.list_values([(sender.row, "progress")])


async def test_without_a_fence_only_outsiders_write(database):
    async with database.open() as store:
        (run,) = await start(store, "run")
        inside = [
            message("run", "1", row=run.row, entry="send#1"),
            Receipt(run.row, "receive#1", 1),
            _show(run.row, 1)[1],
            NewItem(run.row, "emit#1", "log", "1", "json/1"),
            NewItem(run.row, None, "log", "1", "json/1", "a"),
            NewPromise(run.row, "promise#1", "token"),
            settlement("token"),
        ]
        for side in inside:
            with pytest.raises(WriteRefused):
                await store.commit(Batch(sides=[side]), None)
        await store.commit(Batch(sides=[NewPromise(run.row, None, "token")]), None)


def _show(row: int, number: int) -> tuple[Any, NewValue]:
    key = f"publish:progress#{number}"
    return new_entry(row, key, seq=number), NewValue(row, key, "progress", str(number), "json/1")


async def test_the_last_value_shows(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "run")
        place = (run.row, "progress")
        assert await store.list_values([place]) == {}
        entries, sides = zip(*[_show(run.row, number) for number in (1, 2, 3)], strict=True)
        for _ in range(2):
            await store.commit(Batch(entries=list(entries), sides=list(sides)), fence)
            assert (await store.list_values([place, (run.row, "other")]))[place].value == "3"
        entry, side = _show(run.row, 4)
        await store.commit(Batch(entries=[entry], sides=[side]), fence)
        assert (await store.list_values([place]))[place].value == "4"


async def test_stream_items_are_numbered_without_gaps(database):
    async with database.open() as store:
        fence = await register(store)
        one, two = await start_owned(store, fence, "one", "two")

        def emit(row: int, number: int, name: str = "log") -> tuple[Any, NewItem]:
            key = f"emit:{name}#{number}"
            return new_entry(row, key, seq=number), NewItem(row, key, name, str(number), "json/1")

        pairs = [emit(one.row, 1), emit(two.row, 1), emit(one.row, 2), emit(one.row, 1, "other"), emit(one.row, 3)]
        batch = Batch(entries=[entry for entry, _ in pairs], sides=[item for _, item in pairs])
        for _ in range(3):
            await store.commit(batch, fence)
        entry, item = emit(one.row, 4)
        await store.commit(Batch(entries=[entry], sides=[item]), fence)
        asked = [(one.row, "log", 0), (one.row, "log", 3), (two.row, "log", 1), (one.row, "other", 0)]
        parts = await store.list_items(asked, 9)
        assert _numbers(parts[asked[0]]) == [(1, "1"), (2, "2"), (3, "3"), (4, "4")]
        assert _numbers(parts[asked[1]]) == [(4, "4")]
        assert asked[2] not in parts
        assert _numbers(parts[asked[3]]) == [(1, "1")]
        assert not any(part.is_over for part in parts.values())
        assert _numbers((await store.list_items([(one.row, "log", 1)], 2))[one.row, "log", 1]) == [(2, "2"), (3, "3")]


async def test_an_item_of_one_key_is_in_its_stream_once(database):
    async with database.open() as store:
        fence = await register(store)
        one, two = await start_owned(store, fence, "one", "two")

        def show(row: int, key: str, name: str = "log") -> NewItem:
            return NewItem(row, None, name, f'"{key}"', "json/1", key)

        first = [
            show(one.row, "a"),
            show(two.row, "a"),
            show(one.row, "a", "other"),
            show(one.row, "b"),
            show(one.row, "b"),
        ]
        entry = new_entry(one.row, "emit:log#1", seq=1)
        between = NewItem(one.row, entry.key, "log", "0", "json/1")
        last = [show(one.row, "b"), show(one.row, "c")]
        for batch in (Batch(sides=[*first]), Batch(entries=[entry], sides=[between]), Batch(sides=[*last])):
            for _ in range(2):
                await store.commit(batch, fence)
        asked = [(one.row, "log", 0), (two.row, "log", 0), (one.row, "other", 0)]
        parts = await store.list_items(asked, 9)
        assert _numbers(parts[asked[0]]) == [(1, '"a"'), (2, '"b"'), (3, "0"), (4, '"c"')]
        assert _numbers(parts[asked[1]]) == _numbers(parts[asked[2]]) == [(1, '"a"')]


async def test_a_lost_fence_shows_nothing(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "run")
        item = NewItem(run.row, None, "log", "1", "json/1", "a")
        with pytest.raises(FenceLost):
            await store.commit(Batch(sides=[item]), Fence(fence.worker, fence.epoch + 1))
        assert not await store.list_items([(run.row, "log", 0)], 9)


def _numbers(part: StreamPart) -> list[tuple[int, str]]:
    return [(item.seq, item.value) for item in part.items]


async def test_a_stream_is_over_with_its_run_and_its_last_item(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "run")
        items = [NewItem(run.row, f"emit:log#{number}", "log", "0", "json/1") for number in (1, 2)]
        entries = [new_entry(run.row, item.entry, seq=place) for place, item in enumerate(items, 1)]
        await store.commit(Batch(entries=entries, sides=[*items], finishes=[finish(run.row)]), fence)
        asked = [(run.row, "log", 0), (run.row, "log", 2), (run.row, "unknown", 0)]
        parts = await store.list_items(asked, 2)
        assert not parts[asked[0]].is_over, "there may be more"
        assert all(parts[one].is_over and not parts[one].items for one in asked[1:])


async def test_a_promise_is_settled_once(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "run")
        promise = NewPromise(run.row, "promise#1", "token")
        batch = Batch(entries=[new_entry(run.row, "promise#1")], sides=[promise])
        assert await store.settle(settlement("token")) == ("unknown", None)
        for _ in range(2):
            await store.commit(batch, fence)
        assert await store.list_settled(["token", "other"]) == {}
        outcomes = await asyncio.gather(*(store.settle(settlement("token", str(number))) for number in range(5)))
        assert sorted(word for word, _ in outcomes) == ["already"] * 4 + ["settled"]
        assert {row for _, row in outcomes} == {run.row}
        winner = next(number for number, (word, _) in enumerate(outcomes) if word == "settled")
        settled = (await store.list_settled(["token"]))["token"]
        assert (settled.outcome, settled.value) == ("ok", str(winner))
        late = settlement("token", "late", row=run.row, entry="answer#1")
        await store.commit(Batch(entries=[new_entry(run.row, "answer#1", seq=2)], sides=[late]), fence)
        assert (await store.list_settled(["token"]))["token"].value == str(winner)


async def test_open_promises_are_listed_the_oldest_first(database):
    async with database.open() as store:
        fence = await register(store)
        runs = await start_owned(store, fence, "a", "b", "c")
        now = await store.now()
        for place, (run, topic, expires_at) in enumerate(
            [(0, "review", None), (1, "review", now + 500), (1, "mail", None), (2, "review", now - 1), (2, None, None)]
        ):
            key = f"promise#{place}"
            about = None if topic is None else f'"{place}"'
            promise = NewPromise(runs[run].row, key, f"token-{9 - place}", expires_at, topic, about, "json")
            await store.commit(Batch(entries=[new_entry(runs[run].row, key, seq=place + 1)], sides=[promise]), fence)

        async def tokens(topic, run=None, after=None, limit=10):
            return [found.token for found in await store.list_promises(topic, run, after, limit)]

        assert await tokens("review") == ["token-9", "token-8"]
        assert await tokens("review", limit=1) == ["token-9"]
        assert await tokens("review", after="token-9") == ["token-8"]
        assert await tokens("review", after="token-8") == []
        assert await tokens("review", run="b") == ["token-8"]
        assert await tokens("review", run="b", after="token-8") == []
        assert await tokens("review", run="nobody") == []
        (found,) = await store.list_promises("mail", None, None, 10)
        assert (found.run, found.key, found.about, found.about_codec) == ("b", "promise#2", '"2"', "json")
        await store.settle(settlement("token-9"))
        assert await tokens("review") == ["token-8"]
        await store.commit(Batch(finishes=[finish(runs[1].row)]), fence)
        assert await tokens("review") == []
        assert await tokens("review", after="token-9") == []


async def test_an_open_promise_is_found_by_its_entry(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "run")
        now = await store.now()
        promises = [
            NewPromise(run.row, "promise#1", "open", now + 500, "review", '"it"', "json"),
            NewPromise(run.row, "promise#2", "past", now - 1, "review", '"it"', "json"),
            NewPromise(run.row, "promise#3", "private"),
        ]
        entries = [new_entry(run.row, promise.entry, seq=place) for place, promise in enumerate(promises, 1)]
        await store.commit(Batch(entries=entries, sides=[*promises]), fence)
        found = await store.find_open_promise("run", "promise#1")
        assert found is not None
        assert (found.run, found.key, found.token, found.topic, found.about) == (
            "run",
            "promise#1",
            "open",
            "review",
            '"it"',
        )
        for place in [("run", "promise#2"), ("run", "promise#3"), ("run", "promise#4"), ("nobody", "promise#1")]:
            assert await store.find_open_promise(*place) is None
        await store.settle(settlement("open"))
        assert await store.find_open_promise("run", "promise#1") is None


async def test_settling_is_noted_in_the_audit_of_the_run(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "run")
        promise = NewPromise(run.row, "promise#1", "token")
        await store.commit(Batch(entries=[new_entry(run.row, "promise#1")], sides=[promise]), fence)
        notes = [Note(number, f"person {number}", "settle", "run", "", "because") for number in range(5)]
        outcomes = await asyncio.gather(*(store.settle(settlement("token"), note) for note in notes))
        assert sorted(word for word, _ in outcomes) == ["already"] * 4 + ["settled"]
        (noted,) = await store.list_audit("run", 10, None)
        winner = next(number for number, (word, _) in enumerate(outcomes) if word == "settled")
        assert (noted.who, noted.target, noted.facts) == (f"person {winner}", "run", '{"promise": "promise#1"}')
        assert await store.settle(settlement("unheard of"), notes[0]) == ("unknown", None)


async def test_an_expired_promise_is_settled_by_its_expiry_alone(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "run")
        now = await store.now()
        promises = [
            NewPromise(run.row, "promise#1", "past", now - 1),
            NewPromise(run.row, "promise#2", "future", now + 500),
        ]
        entries = [new_entry(run.row, promise.entry, seq=place) for place, promise in enumerate(promises, 1)]
        await store.commit(Batch(entries=entries, sides=[*promises]), fence)
        assert await store.settle(settlement("past")) == ("expired", run.row)
        assert await store.list_settled(["past"]) == {}
        expiry = settlement("past", outcome="error", error='{"type": "PromiseExpired"}')
        assert await store.settle(expiry, at_expiry=True) == ("settled", run.row)
        assert await store.settle(settlement("past")) == ("already", run.row)
        assert await store.settle(settlement("future")) == ("settled", run.row)


@pytest.mark.parametrize("kind", ["receive", "wait"])
async def test_the_sweep_finds_mail_that_nobody_woke_for(database, kind):
    async with database.open() as store:
        fence = await register(store)
        waiting, other, asleep = await start_owned(store, fence, "waiting", "other", "asleep")
        name = "review" if kind == "receive" else "promise#1"
        wait = new_entry(waiting.row, "wait#1", outcome="started", kind=kind, name=name)
        elsewhere = new_entry(other.row, "wait#1", outcome="started", kind=kind, name="elsewhere")
        made = new_entry(waiting.row, "promise#1", kind="promised")
        batch = Batch(entries=[wait, elsewhere, made], sides=[NewPromise(waiting.row, "promise#1", "token")])
        await store.commit(batch, fence)
        await store.commit(Batch(releases=[release(run.row) for run in (waiting, other, asleep)]), fence)
        assert await store.sweep() == 0
        if kind == "receive":
            sides = [message(run, "1") for run in ("waiting", "other", "asleep")]
            await store.commit(Batch(sides=[*sides]), None)
        else:
            await store.settle(settlement("token"))
        assert await store.sweep() == 1
        assert await claim_all(store, fence) == ["waiting"]
        assert await status(store, "other") == "suspended"
