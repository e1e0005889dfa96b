"""`run.why()` of runs that wait for their turn, or to be answered: the sentence names the cause and what helps."""

from __future__ import annotations

import re

import pytest

import outlive
from outlive import Debounce, Outlive, Run, workflow
from tests.engine.test_why import until

HOUR_S = 3_600


@workflow
async def why_listens() -> str:
    return await outlive.receive("go")  # type: ignore[no-any-return]


@workflow
async def why_other() -> None:
    return None


@workflow
async def why_clears_up() -> None:
    try:
        await outlive.receive("go")
    finally:
        async with outlive.shielded():
            await outlive.receive("cleared")


@workflow
async def why_promises() -> str:
    token = await outlive.promise(expires=10_800)
    return await token  # type: ignore[no-any-return]


@workflow
async def why_is_called() -> None:
    outlive.on_call("approve", lambda: True)
    await outlive.receive("end")


async def waiting(app: Outlive, count: int, queue: str, **options: object) -> list[Run]:
    """Start runs that wait for a message; the first ones are admitted in this order."""
    return [await app.start(why_listens, id=f"{queue}-{n}", queue=queue, **options) for n in range(count)]


def make_app(url: str, **limits: object) -> Outlive:
    app = Outlive(url, include=[why_listens, why_promises, why_is_called], name="shop")
    app.queue("q", **limits)  # type: ignore[arg-type]
    return app


async def admitted(run: Run) -> None:
    await until(run, "waits for a message 'go'")


async def test_a_delay_and_its_queue(url: str) -> None:
    async with Outlive(url, worker=False) as client:
        plain = await client.start("why_listens", id="plain", delay=3 * HOUR_S, deadline=5 * HOUR_S)
        said = await plain.why()
        assert re.fullmatch(
            r"run 'plain' has a delayed start: until .+ UTC \(in 3 h\); its deadline is at [-\d: ]+ UTC \(in 5 h\)"
            r" → reschedule\(0\) lets it start now",
            said,
        ), said
        lined = await client.start("why_listens", queue="q", delay=3 * HOUR_S, deadline=5 * HOUR_S)
        assert "has a delayed start: until" in (said := await lined.why()) and "(in 3 h)" in said
        assert await lined.reschedule(4 * HOUR_S)
        assert "(in 4 h)" in await lined.why()
        await client.pause_queue("q")
        assert "the queue is paused by outlive" in (said := await lined.why()) and said.endswith("→ resume_queue('q')")


async def test_a_debounced_run(url: str) -> None:
    async with Outlive(url, worker=False) as client:
        run = await client.start("why_listens", id="d", key="k", debounce=Debounce(3 * HOUR_S, 6 * HOUR_S))
        said = await run.why()
        assert "run 'd' is debounced until" in said and "(in 3 h), at the latest until" in said and "(in 6 h)" in said


async def test_a_paused_queue_and_no_worker(url: str) -> None:
    async with Outlive(url, worker=False, name="office") as client:
        run = (await waiting(client, 3, "q"))[2]
        await client.pause_queue("q")
        assert re.fullmatch(
            r"run 'q-2' waits for its turn in queue 'q' since \d+ s ago, behind 2 runs: the queue is paused by office; "
            r"no worker is alive → resume_queue\('q'\); start one that serves workflow 'why_listens'",
            said := await run.why(),
        ), said
        await client.resume_queue("q")
        assert "behind 2 runs: no worker is alive → start one" in await run.why()
        other = await client.start("why_listens", queue="q", key="ada")
        assert "by turns with 3 of other keys: no worker" in await other.why()


async def test_concurrency_and_what_the_first_run_waits_for(url: str) -> None:
    app = make_app(url, concurrency=2)
    async with app:
        runs = await waiting(app, 4, "q")
        for run in runs[:2]:
            await admitted(run)
        said = await runs[3].why()
        assert (
            "behind 1 run: 2 of 2 runs are admitted, first of all 'q-0', which is in the hands of worker 'shop'" in said
        )
        assert said.endswith(
            "and waits for a message 'go' → send('go', …), or put_queue('q', concurrency=…) admits more"
        )
        await app.send("q-0", "go", 1)
        assert "first of all 'q-1', which" in await until(runs[3], "'q-1'")
        await app.put_queue("q", concurrency=9)
        await admitted(runs[3])


async def test_per_key(url: str) -> None:
    app = make_app(url, per_key=1)
    async with app:
        first, second = await waiting(app, 2, "q", key="ada")
        await admitted(first)
        said = await second.why()
        assert "1 of 1 run of its key 'ada' is admitted, first of all 'q-0', which is" in said
        assert said.endswith("→ send('go', …), or put_queue('q', per_key=…) admits more")


@pytest.mark.parametrize("name", ["rate", "rate_per_key"])
async def test_a_rate_says_when_the_next_one_is_admitted(url: str, name: str) -> None:
    app = make_app(url, **{name: (1, 3 * HOUR_S)})
    async with app:
        first, second = await waiting(app, 2, "q", key="ada")
        await admitted(first)
        whose = "" if name == "rate" else " of its key 'ada'"
        said = await second.why()
        assert f"1 run{whose} in 10800 s is admitted, the next one at " in said
        assert said.endswith(f"(in 3 h) → put_queue('q', {name}=…) admits more")


async def test_per_worker(url: str) -> None:
    app = make_app(url, per_worker=1)
    async with app:
        first, second = await waiting(app, 2, "q")
        await admitted(first)
        said = await second.why()
        assert "the one worker alive has 1 of its runs → start another worker, or put_queue('q', per_worker=…)" in said
        async with Outlive(url, include=[why_other]):  # serves nothing of it, and nobody has written that
            assert "if that lasts, none of the 2 workers alive serves workflow" in await second.why()


async def test_nobody_serves_it(url: str) -> None:
    async with Outlive(url, include=[why_other]), Outlive(url, worker=False) as client:
        for queue in (None, "q"):
            said = await (await client.start("why_listens", queue=queue)).why()
            assert (
                "if that lasts, the one worker that is alive does not serve workflow 'why_listens', or has no room"
                in said
            )
            assert said.endswith("→ start another one")


async def test_who_is_replaced(url: str) -> None:
    async with Outlive(url, include=[why_clears_up], name="shop") as app:
        old = await app.start(why_clears_up, id="old", key="k", singleton="replace")
        await admitted(old)
        new = await app.start(why_clears_up, id="new", key="k", singleton="replace")
        said = await until(new, "'cleared'")
        assert "run 'new' waits to be claimed since" in said
        assert "it replaces 'old', which is in the hands of worker 'shop'" in said
        assert said.endswith("and waits for a message 'cleared' → send('cleared', …)")
        later = await app.start(why_clears_up, id="later", key="k", singleton="replace", delay=HOUR_S)
        assert "and then until the end of 'old', which it replaces → reschedule(0)" in await later.why()
        await app.send("old", "cleared", 1)
        await until(new, "was cancelled")


async def test_a_promise_says_when_it_expires(url: str) -> None:
    app = make_app(url)
    async with app:
        run = await app.start(why_promises)
        said = await until(run, "waits for the promise")
        assert "waits for the promise made at promise#1, which expires at" in said and "(in 3 h)" in said
        assert said.endswith("→ settle(its token, …)")


async def test_a_run_that_is_to_be_called(url: str) -> None:
    app = make_app(url)
    async with app:
        run = await app.start(why_is_called, deadline=5 * HOUR_S)
        said = await until(run, "'end'")
        assert "waits for a call 'approve'" in said and "; its deadline is at" in said and "(in 5 h) → " in said
        assert "call('approve', …)" in said and "send('end', …)" in said
