"""The app: a store, the definitions it serves, and the worker that drives them, inside the user's own program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from outlive.clock import Duration, to_instant
from outlive.codec.payload import encode_arguments
from outlive.control import Audited
from outlive.definitions import spec_of
from outlive.engine.engine import Engine
from outlive.errors import RunExists, RunNotFound, UsageError
from outlive.ids import check_id
from outlive.messages import Messages, make_message
from outlive.model.definition import WorkflowSpec
from outlive.model.options import (
    check_deadline,
    check_key,
    check_name,
    check_priority,
    check_queue,
    check_statuses,
    check_wait,
)
from outlive.model.reads import RunQuery
from outlive.model.writes import NewRun
from outlive.run import Run, RunInfo, make_info
from outlive.schedules import Schedules
from outlive.versions import Versions


class Outlive(Audited, Messages, Schedules, Versions):
    """Durable workflows in one database. Use it as `async with Outlive(url) as app:`.

    `include`: modules, package names or definitions to serve; None serves every
    workflow declared in the process. `worker=False`: a client that only starts
    and reads. `lease`: seconds after which peers take over from a process that
    no longer renews. `grace`: seconds that steps in flight get on exit.
    `max_running`: runs active at a time, waiting ones not counted.
    `migrate=False`: refuse a database whose schema is not the one of this version.
    """

    # -- runs ---------------------------------------------------------------
    async def start(
        self,
        workflow: Any,
        *args: Any,
        id: str | None = None,
        queue: str | None = None,
        delay: Duration | None = None,
        priority: int = 0,
        key: str | None = None,
        deadline: Duration | None = None,
        attributes: Mapping[str, Any] | None = None,
        send: Iterable[tuple[Any, ...]] = (),
        tx: Any = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a run of a workflow, given as definition or name; return when the run is on disk.

        *Again*: a used `id` gives the existing run (`run.created` is False, the
        arguments are not compared), RunExists if it is of another workflow.
        With `tx` (a connection inside a transaction of the same database) the
        run is written by that transaction: it exists if that commits.
        `send`: messages, each (topic, value) or (topic, value, key), written in the same transaction as the run; to
        the run that has the id already, as well.
        *Raises* EncodeFailed for arguments that cannot be stored, StoreUnavailable
        (it carries the run id: starting with the same id again is safe).
        """
        engine = self._engine(joining=tx is not None)
        spec = spec_of(workflow) if not isinstance(workflow, str) else self._find(engine, workflow)
        name = spec.name if spec is not None else workflow
        shape = spec.shape if spec is not None else None
        arguments = _check_mapping(kwargs, "kwargs=…")
        now = engine.clock.now()
        run = NewRun(
            row=engine.ids.row_id(now),
            id=check_id(id) if id is not None else engine.ids.run_id(now),
            workflow=name,
            input=encode_arguments(engine.codec, shape, args, arguments, where=f"arguments of workflow {name}"),
            version=spec.version if spec is not None else None,
            pinned=spec is not None and spec.pinned,
            queue=check_queue(queue),
            priority=check_priority(priority),
            key=check_key(key),
            codec=engine.codec.id,
            delay_s=check_wait(delay, "delay=…"),
            deadline_s=check_deadline(deadline),
        )
        if attributes is not None:
            shown = _check_mapping(attributes, "attributes=…")
            run.attributes = engine.codec.encode(shown, where=f"attributes of run {run.id}")
        if spec is not None:
            engine.definitions.use(spec)
        messages = [make_message(engine, run.id, *message) for message in send]
        if messages and tx is not None:
            raise UsageError("send=… does not go with tx=…: send the messages when the transaction has committed")
        existing = await (engine.start(run, messages) if tx is None else engine.store.start_in(tx, run))
        if existing is not None and existing.workflow != name:
            raise RunExists(run.id, existing.workflow, name)
        row = existing.row if existing is not None else run.row
        return Run(self._engine, run.id, row, _result_of(spec), created=existing is None)

    def _find(self, engine: Engine, name: str) -> WorkflowSpec | None:
        """Give the workflow of a name; a client may start one that only workers know."""
        spec = engine.definitions.find(check_name(name))
        if spec is None and engine.is_worker:
            raise UsageError(
                f"no workflow {name!r} is declared in this process; import its module, pass the definition "
                "itself, or use a client: Outlive(…, worker=False)"
            )
        return spec

    async def run(self, workflow: Any, *args: Any, **options: Any) -> Any:
        """Start a run and wait for its result; takes the options of `start`."""
        return await (await self.start(workflow, *args, **options)).result()

    async def get(self, id: str) -> Run:
        """Give the handle of an existing run, or raise RunNotFound."""
        engine = self._engine()
        row = await engine.store.find_run(check_id(id))
        if row is None:
            raise RunNotFound(id)
        spec = engine.definitions.find(row.workflow)
        return Run(self._engine, row.id, row.row, _result_of(spec), created=False)

    def runs(
        self,
        *,
        status: str | Iterable[str] | None = None,
        workflow: str | None = None,
        queue: str | None = None,
        id_prefix: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> Page:
        """List runs, newest first: await it for one page, or iterate over all with `async for`."""
        if limit < 1 or not isinstance(after, int | None):
            raise UsageError("limit=… is at least 1, and after=… is the `next` of a page")
        query = RunQuery(
            statuses=check_statuses(status),
            workflow=workflow,
            queue=queue,
            id_prefix=id_prefix,
            created_after=to_instant(created_after) if created_after is not None else None,
            created_before=to_instant(created_before) if created_before is not None else None,
            limit=limit,
            after=after,
        )
        return Page(self._engine(), query)


@dataclass(frozen=True)
class RunPage:
    """One page of runs; `next` is the cursor of the following page, None at the end."""

    items: list[RunInfo]
    next: int | None


class Page:
    """A list of runs that is read when it is awaited or iterated over."""

    def __init__(self, engine: Engine, query: RunQuery) -> None:
        self._engine = engine
        self._query = query

    def __await__(self) -> Generator[Any, None, RunPage]:
        return self._read(self._query).__await__()

    async def _read(self, query: RunQuery) -> RunPage:
        rows = await self._engine.store.list_runs(query)
        items = [make_info(row, self._engine.codec) for row in rows]
        return RunPage(items, rows[-1].row if len(rows) == query.limit else None)

    async def __aiter__(self) -> AsyncIterator[RunInfo]:
        query = self._query
        while True:
            page = await self._read(query)
            for item in page.items:
                yield item
            if page.next is None:
                return
            query = replace(query, after=page.next)


def _result_of(spec: WorkflowSpec | None) -> Any:
    """Give the declared result of a workflow, if it is known here."""
    return spec.shape.result if spec is not None else Any


def _check_mapping(value: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping | None):
        raise UsageError(f"{what} is a mapping, not {value!r}")
    return dict(value or {})
