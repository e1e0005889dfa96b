"""Runs as a query means them: listed page by page, counted, and asked all together for what a handle asks of one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from outlive.clock import to_instant
from outlive.engine.engine import Engine
from outlive.errors import UsageError
from outlive.limits import COUNT_MAX_RUNS
from outlive.model.options import check_statuses
from outlive.model.query import Condition, Span, compile_query, parse
from outlive.model.reads import Match, RunQuery
from outlive.opened import Opened
from outlive.paging import Page, make_page, one_more
from outlive.run import RunInfo, make_info


class Search(Opened):
    """What an app does with queries."""

    def runs(
        self,
        query: str = "",
        *,
        status: str | Iterable[str] | None = None,
        workflow: str | None = None,
        queue: str | None = None,
        id_prefix: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> RunList:
        """List runs, newest first: await it for one page, or iterate over all with `async for`.

        `query` is text such as `"status:failed tenant:42 age:<1h"`; runs meet it
        and all the other filters. UsageError says where a query is wrong.
        """
        conditions: list[Condition] = list(parse(query))
        if statuses := check_statuses(status):
            conditions.append(Match("status", statuses))
        for field, value in (("workflow", workflow), ("queue", queue)):
            conditions += [Match(field, (value,))] if value is not None else []
        if id_prefix:
            conditions.append(Match("id", prefixes=(id_prefix,)))
        if created_after is not None or created_before is not None:
            low, high = (None if at is None else to_instant(at) for at in (created_after, created_before))
            conditions.append(Span("created", low, high))
        if limit < 1 or not isinstance(after, int | None):
            raise UsageError("limit=… is at least 1, and after=… is the `next` of a page")
        engine = self._engine()
        return RunList(engine, replace(compile_query(conditions, engine.clock.now()), limit=limit, after=after))

    async def count(self, query: str = "", *, limit: int = COUNT_MAX_RUNS) -> int:
        """Count the runs that a query means, up to `limit`: counting goes no further."""
        if limit < 1:
            raise UsageError("limit=… is at least 1")
        engine = self._engine()
        return await engine.store.count_runs(replace(compile_query(parse(query), engine.clock.now()), limit=limit))


class RunList:
    """A list of runs that is read when it is awaited or iterated over."""

    def __init__(self, engine: Engine, query: RunQuery) -> None:
        self._engine = engine
        self._query = query

    def __await__(self) -> Generator[Any, None, Page[RunInfo, int]]:
        return self._read(self._query).__await__()

    async def _read(self, query: RunQuery) -> Page[RunInfo, int]:
        rows = await self._engine.store.list_runs(replace(query, limit=one_more(query.limit)))
        return make_page(rows, query.limit, make_info, lambda row: row.row)

    async def __aiter__(self) -> AsyncIterator[RunInfo]:
        query = self._query
        while True:
            page = await self._read(query)
            for item in page.items:
                yield item
            if page.next is None:
                return
            query = replace(query, after=page.next)
