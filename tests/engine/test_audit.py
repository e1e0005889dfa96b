"""The audit: each action of an operator with who, when and why, in the transaction of the action; nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import outlive
from outlive import Outlive, RunCancelled, Status, UsageError, workflow
from tests.engine.test_cancel import until

LIMIT_S = 20.0


@workflow
async def rests() -> None:
    await outlive.sleep(100_000)


@workflow
async def waits_for_one() -> None:
    await rests()


async def test_who_did_what_and_why(url: str) -> None:
    async with Outlive(url, name="the shop") as app:
        run = await app.start(rests, id="one")
        await app.start(rests, id="two")
        await until(run, Status.SUSPENDED)
        assert await run.pause("have a look", by="ada")
        await until(run, Status.PAUSED)
        assert await run.resume(reason="seen", by="bob")
        assert await run.resume() is False  # nothing was done, nothing is noted
        assert await run.cancel("enough")
        with pytest.raises(RunCancelled):
            await run.result(timeout=LIMIT_S)
        assert await run.cancel() is False
        assert await (await app.get("two")).cancel("not needed", by="eve")
        entries = await app.audit("one")
        assert [(entry.action, entry.by, entry.reason) for entry in entries] == [
            ("cancel", "the shop", "enough"),
            ("resume", "bob", "seen"),
            ("pause", "ada", "have a look"),
        ]
        assert all(entry.noun == "run" and entry.target == "one" and entry.facts is None for entry in entries)
        assert abs(datetime.now(UTC) - entries[0].at) < timedelta(minutes=1)
        assert [entry.target for entry in await app.audit()] == ["two", "one", "one", "one"]
        first = await app.audit(limit=1)
        assert [entry.target for entry in await app.audit(limit=2, after=first[0].number)] == ["one", "one"]


async def test_what_no_person_did_is_not_there(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(waits_for_one, id="p")
        await until(await app.get("p"), Status.RUNNING)
        await run.cancel("alone")
        with pytest.raises(RunCancelled):
            await run.result(timeout=LIMIT_S)
        assert [entry.target for entry in await app.audit()] == ["p"]  # not the cancellation of its child


async def test_a_client_may_act_and_look(url: str) -> None:
    async with Outlive(url, worker=False, name="console") as client:
        run = await client.start("rests", id="r")
        assert await run.pause("a try") is True
        assert await run.resolve("no_such#1", value=1) is False
        (entry,) = await client.audit("r")
        assert (entry.action, entry.by, entry.reason) == ("pause", "console", "a try")


@pytest.mark.parametrize("wrong", ["a\0b", "\ud800", 7], ids=["nul", "surrogate", "number"])
async def test_what_cannot_be_written_is_refused_and_nothing_is_done(url: str, wrong: Any) -> None:
    async with Outlive(url, worker=False) as client:
        run = await client.start("rests", id="r")
        for ask in (run.cancel, run.pause):
            for fact in ({"reason": wrong}, {"by": wrong}):
                with pytest.raises((outlive.EncodeFailed, UsageError), match=next(iter(fact))):
                    await ask(**fact)
        for ask_queue in (client.pause_queue, client.resume_queue, client.reset_queue, client.put_queue):
            limits = {"concurrency": 1} if ask_queue == client.put_queue else {}
            with pytest.raises((outlive.EncodeFailed, UsageError), match="by"):
                await ask_queue("q", **limits, by=wrong)  # type: ignore[operator]
        assert await client.audit() == []
        for limit in (0, -1, 1.5, True):
            with pytest.raises(UsageError, match="limit"):
                await client.audit(limit=limit)  # type: ignore[arg-type]
