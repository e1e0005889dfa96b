"""The app: a store, the definitions it serves, and the worker that drives them, inside the user's own program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from outlive.bulk import Bulk
from outlive.clock import Duration
from outlive.codec.jsontext import JsonCodec
from outlive.codec.payload import encode_arguments
from outlive.control import Audited
from outlive.definitions import spec_of
from outlive.engine.engine import Engine
from outlive.errors import DuplicateRun, RunExists, RunNotFound, UsageError
from outlive.ids import check_id
from outlive.messages import Messages, make_message
from outlive.model.attributes import check_attributes
from outlive.model.definition import WorkflowSpec
from outlive.model.options import (
    check_deadline,
    check_dedupe,
    check_key,
    check_mapping,
    check_messages,
    check_name,
    check_priority,
    check_queue,
    check_wait,
)
from outlive.model.writes import ExistingRun, NewRun
from outlive.promises import Promises
from outlive.queues import Debounce, Queues, make_terms
from outlive.retention import Retention
from outlive.run import Run
from outlive.schedules import Schedules
from outlive.search import Search
from outlive.versions import Versions

_PLAIN = JsonCodec()  # of attributes: a database cannot search what it cannot read


class Outlive(Audited, Bulk, Messages, Promises, Queues, Retention, Schedules, Search, Versions):
    """Durable workflows in one database. Use it as `async with Outlive(url) as app:`.

    `include`: modules, package names or definitions to serve; None serves every
    workflow declared in the process. `worker=False`: a client that only starts
    and reads. `lease`: seconds after which peers take over from a process that
    no longer renews. `grace`: seconds that steps in flight get on exit.
    `max_running`: runs active at a time, waiting ones not counted.
    `migrate=False`: refuse a database whose schema is not the one of this version.
    `queues`: serve only these; runs that are in no queue are served by every worker.
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
        dedupe: str | None = None,
        on_duplicate: Literal["reject", "attach"] = "reject",
        debounce: Debounce | None = None,
        singleton: Literal["skip", "replace"] | None = None,
        attributes: Mapping[str, Any] | None = None,
        send: Iterable[tuple[Any, ...]] = (),
        tx: Any = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a run of a workflow, given as definition or name; return when the run is on disk.

        *Again*: a used `id` gives the existing run (`run.created` is False, the
        arguments are not compared), RunExists if it is of another workflow.
        With `tx` (a connection inside a transaction of the same database) the
        run is written by that transaction: it exists if that commits, and may be waited for from then on.
        With `dedupe`, `debounce` or `singleton` the handle may be that of another
        unfinished run (`run.created` is False).
        `send`: messages, each (topic, value) or (topic, value, key), written in the same transaction as the run; to
        the run that has the id already, as well.
        *Raises* QueueFull, DuplicateRun, EncodeFailed for arguments that cannot be stored, StoreUnavailable
        (it carries the run id: starting with the same id again is safe).
        """
        engine = self._engine(joining=tx is not None)
        spec = spec_of(workflow) if not isinstance(workflow, str) else self._find(engine, workflow)
        name = spec.name if spec is not None else workflow
        shape = spec.shape if spec is not None else None
        arguments = check_mapping(kwargs, "kwargs=…")
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
            dedupe=check_dedupe(dedupe, on_duplicate),
        )
        terms = make_terms(run, debounce, singleton, tx)
        if attributes is not None:
            run.attributes = _PLAIN.encode(check_attributes(attributes), where=f"attributes of run {run.id}")
        if spec is not None:
            engine.definitions.use(spec)
        messages = [make_message(engine, run.id, *message) for message in check_messages(send, "topic, value")]
        if messages and tx is not None:
            raise UsageError("send=… does not go with tx=…: send the messages when the transaction has committed")
        if messages and (terms is not None or dedupe is not None):
            raise UsageError(
                "send=… does not go with dedupe=…, debounce=… or singleton=…: send to the handle that you get"
            )
        existing = await (engine.start(run, messages, terms) if tx is None else self._join(engine, tx, run))
        if existing is None:
            return Run(self._engine, run.id, run.row, _result_of(spec), created=True)
        if existing.id != run.id and dedupe is not None and on_duplicate == "reject":
            raise DuplicateRun(existing.id, run.queue, dedupe)
        if existing.workflow != name:
            raise RunExists(existing.id, existing.workflow, name)
        return Run(self._engine, existing.id, existing.row, _result_of(spec), created=False)

    async def _join(self, engine: Engine, tx: Any, run: NewRun) -> ExistingRun | None:
        return await engine.store.start_in(tx, run)

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


def _result_of(spec: WorkflowSpec | None) -> Any:
    """Give the declared result of a workflow, if it is known here."""
    return spec.shape.result if spec is not None else Any
