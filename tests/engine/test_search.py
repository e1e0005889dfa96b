"""Finding runs through the public API, on both stores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import outlive
from outlive import Outlive, UsageError, step, workflow


@step
async def look(order: int) -> int:
    if order % 3 == 0:
        raise ValueError("no such item")
    return order


@workflow
async def findable(order: int) -> int:
    return await look(order)


@workflow
async def findable_family() -> list[int]:
    first = await findable(1)
    await outlive.start(findable, 2, id="started")
    return [first]


async def fill(app: Outlive) -> None:
    for order in range(7):
        run = await app.start(findable, order, id=f"order-{order}", attributes={"tenant": order % 2, "note": "a b"})
        try:
            await run.result(timeout=10)
        except ValueError:
            assert order % 3 == 0


async def found(app: Outlive, query: str, **filters: object) -> list[str]:
    return [info.id async for info in app.runs(query, limit=2, **filters)]  # type: ignore[arg-type]


async def test_queries_and_filters_together(url: str) -> None:
    async with Outlive(url) as app:
        await fill(app)
        assert await found(app, "") == await found(app, "all") == [f"order-{order}" for order in reversed(range(7))]
        assert await found(app, "status:failed tenant:0") == ["order-6", "order-0"]
        assert await found(app, "tenant:0", status="failed") == ["order-6", "order-0"]
        assert await found(app, "status:failed", status="succeeded") == []
        assert await found(app, 'note:"a b" tenant:1', id_prefix="order-1") == ["order-1"]
        assert await found(app, "age:<1h -status:failed", workflow="findable") == [
            "order-5",
            "order-4",
            "order-2",
            "order-1",
        ]
        now = datetime.now(UTC)
        assert await found(app, "status:failed", created_after=now + timedelta(hours=1)) == []
        assert await found(app, "id:order-1,order-2", created_before=now + timedelta(hours=1)) == ["order-2", "order-1"]
        assert (await app.runs("tenant:1", limit=3)).next is None  # the last page is full
        assert len((await app.runs("tenant:1", limit=2**63 - 1)).items) == 3
        page = await app.runs("tenant:1", limit=2)
        assert [info.attributes for info in page.items] == [{"tenant": 1, "note": "a b"}] * 2
        assert [info.id for info in (await app.runs("tenant:1", limit=2, after=page.next)).items] == ["order-1"]
        assert await app.count("tenant:1") == 3
        assert await app.count() == 7
        assert await app.count("all", limit=5) == 5


async def test_runs_are_found_by_their_priority(url: str) -> None:
    async with Outlive(url, worker=False) as app:
        for priority in (0, 5, -5, 10):
            await app.start("findable", 1, id=f"p{priority}", priority=priority)
        assert await found(app, "priority:5") == ["p5"]
        assert await found(app, "priority:-5,0") == ["p-5", "p0"]
        assert await found(app, "-priority:0 workflow:findable") == ["p10", "p-5", "p5"]
        await (await app.get("p5")).reschedule(priority=7)
        assert await found(app, "priority:7 status:queued") == ["p5"]


async def test_text_and_number_are_found_alike(url: str) -> None:
    async with Outlive(url, worker=False) as app:
        for name, value in (("number", 42), ("text", "42"), ("other", "42x")):
            await app.start("findable", 1, id=name, attributes={"tenant": value})
        assert await found(app, "tenant:42") == await found(app, 'tenant:"42"') == ["text", "number"]


async def test_children_are_found_by_their_parent(url: str) -> None:
    async with Outlive(url) as app:
        await app.run(findable_family, id="f")
        children = await found(app, "parent:f")
        assert children[0] == "started" and len(children) == 2
        assert await found(app, "-parent:*") == ["f"]


async def test_a_wrong_query_is_refused_and_nothing_is_read(url: str) -> None:
    async with Outlive(url) as app:
        await fill(app)
        for query, message in (
            ("stauts:failed", "did you mean status"),
            ("status:fail", "is no status"),
            ("age:1", "is no time for age"),
            ("tenant", "is no condition"),
        ):
            with pytest.raises(UsageError, match=message):
                app.runs(query)
            with pytest.raises(UsageError, match=message):
                await app.count(query)
        with pytest.raises(UsageError, match="at least 1"):
            await app.count("all", limit=0)
        with pytest.raises(UsageError, match="is no status"):
            app.runs(status="fail")


async def test_attributes_of_a_start_in_a_transaction(url: str) -> None:
    @outlive.transaction
    async def begin(tx: object) -> str:
        return (await app.start(findable, 1, id="inside", attributes={"tenant": 9}, tx=tx)).id

    @workflow
    async def starts() -> str:
        return await begin()  # type: ignore[no-any-return]

    async with Outlive(url) as app:
        assert await app.run(starts) == "inside"
        assert await found(app, "tenant:9") == ["inside"]
        with pytest.raises(UsageError, match="a mapping"):
            await app.start(findable, 1, attributes=[1])  # type: ignore[arg-type]
        assert await app.count("workflow:findable") == 1
