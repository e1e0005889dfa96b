"""Generated from outlive.app by `python -m tools.sync_face`: change that, and run it again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from outlive.clock import Duration
from outlive.codec.payload import Codec
from outlive.control import AuditEntry
from outlive.limits import COUNT_MAX_RUNS
from outlive.model.frozen import FrozenJournal
from outlive.model.line import KEPT
from outlive.model.schedule import Overlap
from outlive.paging import Page
from outlive.promises import OpenPromise
from outlive.queues import Debounce, QueueInfo
from outlive.schedules import ScheduleInfo
from outlive.sync.face import Joining, Life, RunList
from outlive.sync.run import Run
from outlive.versions import VersionCount


class Outlive(Life):
    """Durable workflows in one database. Use it as `with outlive.sync.Outlive(url) as app:`.

    For programs without an event loop: the async app, in a thread of its own. Threads share it; a process that
    was forked opens its own. Not for workflow bodies, nor for event loops.

    `include`: modules, package names or definitions to serve; None serves every
    workflow declared in the process. `worker=False`: a client that only starts
    and reads. `lease`: seconds after which peers take over from a process that
    no longer renews. `grace`: seconds that steps in flight get on exit.
    `max_running`: runs active at a time, waiting ones not counted.
    `migrate=False`: refuse a database whose schema is not the one of this version.
    `queues`: serve only these; runs that are in no queue are served by every worker.
    """

    def __init__(
        self,
        url: str,
        *,
        include: Iterable[Any] | None = None,
        worker: bool = True,
        name: str | None = None,
        lease: Duration = 15.0,
        grace: Duration = 10.0,
        pool_size: int = 5,
        max_running: int = 1000,
        migrate: bool = True,
        codec: Codec | None = None,
        queues: Iterable[str] | None = None,
    ) -> None:
        super().__init__(
            Joining(
                url,
                include=include,
                worker=worker,
                name=name,
                lease=lease,
                grace=grace,
                pool_size=pool_size,
                max_running=max_running,
                migrate=migrate,
                codec=codec,
                queues=queues,
            )
        )

    def start(
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
        return Run(
            self._portal,
            self._wait(
                self._real.start(
                    workflow,
                    *args,
                    id=id,
                    queue=queue,
                    delay=delay,
                    priority=priority,
                    key=key,
                    deadline=deadline,
                    dedupe=dedupe,
                    on_duplicate=on_duplicate,
                    debounce=debounce,
                    singleton=singleton,
                    attributes=attributes,
                    send=send,
                    tx=tx,
                    kwargs=kwargs,
                )
            ),
        )

    def run(self, workflow: Any, *args: Any, **options: Any) -> Any:
        """Start a run and wait for its result; takes the options of `start`."""
        return self._wait(self._real.run(workflow, *args, **options))

    def get(self, id: str) -> Run:
        """Give the handle of an existing run, or raise RunNotFound."""
        return Run(self._portal, self._wait(self._real.get(id)))

    def audit(self, run_id: str | None = None, *, limit: int = 100, after: int | None = None) -> list[AuditEntry]:
        """List the actions of operators, the latest first; all, or those on one run (or queue, or schedule).

        `after` is the `number` of the last one seen.
        """
        return self._wait(self._real.audit(run_id, limit=limit, after=after))

    def cancel(self, query: str, *, dry_run: bool = False, reason: str | None = None, by: str | None = None) -> int:
        """Ask every unfinished run that the query means to cancel; give how many."""
        return self._wait(self._real.cancel(query, dry_run=dry_run, reason=reason, by=by))

    def pause(self, query: str, *, dry_run: bool = False, reason: str | None = None, by: str | None = None) -> int:
        """Hold every unfinished run that the query means; give how many."""
        return self._wait(self._real.pause(query, dry_run=dry_run, reason=reason, by=by))

    def resume(self, query: str, *, dry_run: bool = False, reason: str | None = None, by: str | None = None) -> int:
        """Let every paused or quarantined run that the query means go on; give how many.

        A query that names no status means those too that were asked to pause and are not held yet: they go on.
        """
        return self._wait(self._real.resume(query, dry_run=dry_run, reason=reason, by=by))

    def retry(self, query: str, *, dry_run: bool = False, reason: str | None = None, by: str | None = None) -> int:
        """Let every failed or cancelled run that the query means go on from where it failed; give how many.

        The oldest first: a parent takes along the child by whose failure it has failed.
        """
        return self._wait(self._real.retry(query, dry_run=dry_run, reason=reason, by=by))

    def send(self, run_id: str, topic: str, value: Any, key: str | None = None) -> None:
        """Send a message to a run; return when it is in the run's mailbox.

        *Again*: a message with a `key` that the run has had, received or not, is not sent a second time.
        *Raises* RunNotFound, RunEnded, EncodeFailed; StoreUnavailable (with a key, sending again is safe).
        """
        self._wait(self._real.send(run_id, topic, value, key))

    def send_many(self, messages: Iterable[tuple[Any, ...]]) -> None:
        """Send messages, each as (run id, topic, value) or (run id, topic, value, key), in this order.

        The database takes them in few transactions. *Raises* the error of the first one that could not be
        delivered; the others are delivered all the same.
        """
        self._wait(self._real.send_many(messages))

    def promises(
        self, topic: str, *, run_id: str | None = None, limit: int = 100, after: str | None = None
    ) -> Page[OpenPromise, str]:
        """List the promises of a topic that are open, the oldest first; of one run, or of all.

        What was made with a codec that this app does not have is a DecodeFailed.
        """
        return self._wait(self._real.promises(topic, run_id=run_id, limit=limit, after=after))

    def find_promise(self, run_id: str, key: str) -> OpenPromise | None:
        """Find an open promise of a run by the key of its entry; None if it is settled, has expired, or never was.

        It has a topic: others are known to those who have their tokens.
        """
        return self._wait(self._real.find_promise(run_id, key))

    def settle(
        self,
        token: str,
        value: Any = None,
        error: BaseException | str | None = None,
        *,
        by: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Settle a promise: whoever awaits it gets the value, or the error raised.

        With `by` it is a person's action, noted in the audit of the promise's run in the same transaction.
        *Durable*: before this returns. *Raises* AlreadySettled, PromiseExpired, PromiseNotFound.
        """
        self._wait(self._real.settle(token, value, error, by=by, reason=reason))

    def queue(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        per_worker: int | None = None,
        per_key: int | None = None,
        rate: tuple[int, Duration] | None = None,
        rate_per_key: tuple[int, Duration] | None = None,
        backlog: int | None = None,
        on_full: Literal["reject", "drop_oldest"] = "reject",
    ) -> None:
        """Declare a queue, before the app is entered; without a limit there is none.

        `concurrency` bounds the runs that were admitted and have not ended, over
        all workers; `per_worker` and `per_key` those of one worker and of one key.
        `rate=(10, 60)` admits at most 10 in any 60 seconds, `rate_per_key` of one
        key. `backlog` bounds the runs that are not admitted yet: a start beyond it
        raises QueueFull, or drops the oldest of them.
        *Again*: the last declaration counts, but what an operator has changed wins.
        """
        self._real.queue(
            name,
            concurrency=concurrency,
            per_worker=per_worker,
            per_key=per_key,
            rate=rate,
            rate_per_key=rate_per_key,
            backlog=backlog,
            on_full=on_full,
        )

    def put_queue(
        self,
        name: str,
        *,
        concurrency: int | None = KEPT,
        per_worker: int | None = KEPT,
        per_key: int | None = KEPT,
        rate: tuple[int, Duration] | None = KEPT,
        rate_per_key: tuple[int, Duration] | None = KEPT,
        backlog: int | None = KEPT,
        on_full: Literal["reject", "drop_oldest"] = KEPT,
        reason: str | None = None,
        by: str | None = None,
    ) -> None:
        """Change limits of a queue for all processes, at once; None lifts one, those not named stay.

        *Durable*: what is changed here wins over what code declares, until `reset_queue`.
        """
        self._wait(
            self._real.put_queue(
                name,
                concurrency=concurrency,
                per_worker=per_worker,
                per_key=per_key,
                rate=rate,
                rate_per_key=rate_per_key,
                backlog=backlog,
                on_full=on_full,
                reason=reason,
                by=by,
            )
        )

    def reset_queue(self, name: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Go back to the limits that code declares."""
        self._wait(self._real.reset_queue(name, reason=reason, by=by))

    def pause_queue(self, name: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Admit nothing more; what was admitted goes on."""
        self._wait(self._real.pause_queue(name, reason, by=by))

    def resume_queue(self, name: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Admit again."""
        self._wait(self._real.resume_queue(name, reason=reason, by=by))

    def queues(self) -> list[QueueInfo]:
        """List the queues that were declared or have runs, by name."""
        return self._wait(self._real.queues())

    def drain_queue(self, name: str, timeout: Duration | None = None) -> None:
        """Wait until nobody waits in the line of a queue and nothing of it runs; of a paused one, until nothing runs.

        Runs may still be started, and delayed ones are not waited for.
        *Raises* TimeoutError.
        """
        self._wait(self._real.drain_queue(name, timeout))

    def prune(
        self,
        older_than: Duration,
        *,
        status: str | Iterable[str] | None = None,
        limit: int | None = None,
        archive: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
    ) -> int:
        """Delete runs that ended longer ago than `older_than`, with their journals; give how many.

        Only finished runs go, of these statuses if any are given; the oldest
        first, at most `limit`. A run stays while one that it has started does,
        and a child while its parent may still need its end. An id is free
        again then. `archive`: a file that gets each run as a line of JSON, on
        disk before the run is deleted. `dry_run`: only count.
        *Again*: it goes on where it was interrupted; the archive may then have
        some runs twice.
        """
        return self._wait(self._real.prune(older_than, status=status, limit=limit, archive=archive, dry_run=dry_run))

    def schedule(
        self,
        name: str,
        workflow: Any,
        *args: Any,
        cron: str | None = None,
        every: Duration | None = None,
        at: datetime | None = None,
        zone: str = "UTC",
        jitter: Duration = 0,
        overlap: Overlap = "allow",
        catch_up: Duration = 0,
        queue: str | None = None,
        priority: int = 0,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Declare that a workflow starts by a rule: one of `cron`, `every` and `at`. Stored when the app is entered.

        Over all processes each tick starts one run, whose id is `name@tick` with the tick in UTC. `overlap` says
        what a tick does while a run of this schedule is unfinished. Ticks that came while no worker was alive are
        started if they are at most `catch_up` old. Each run starts up to `jitter` after its tick. An `at` may pass
        while code still declares it: no error, and nothing is started.
        *Again*: a declaration that differs from the last one replaces it, unless somebody has changed the schedule at
        run time: that holds until `reset_schedule`.
        """
        self._real.schedule(
            name,
            workflow,
            *args,
            cron=cron,
            every=every,
            at=at,
            zone=zone,
            jitter=jitter,
            overlap=overlap,
            catch_up=catch_up,
            queue=queue,
            priority=priority,
            kwargs=kwargs,
        )

    def put_schedule(
        self,
        name: str,
        workflow: Any,
        *args: Any,
        cron: str | None = None,
        every: Duration | None = None,
        at: datetime | None = None,
        zone: str = "UTC",
        jitter: Duration = 0,
        overlap: Overlap = "allow",
        catch_up: Duration = 0,
        queue: str | None = None,
        priority: int = 0,
        kwargs: Mapping[str, Any] | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> None:
        """Make a schedule, or change it, at run time; takes what `schedule` takes, and wins over it until it is reset.

        A paused schedule stays paused. An interval counts from when the schedule was first made. An `at` that has
        passed, and that `catch_up` does not reach back to, is a UsageError, unless the schedule has had it already.
        """
        self._wait(
            self._real.put_schedule(
                name,
                workflow,
                *args,
                cron=cron,
                every=every,
                at=at,
                zone=zone,
                jitter=jitter,
                overlap=overlap,
                catch_up=catch_up,
                queue=queue,
                priority=priority,
                kwargs=kwargs,
                reason=reason,
                by=by,
            )
        )

    def pause_schedule(self, name: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Let no more ticks start runs; those in a pause count as neither missed nor skipped. Runs go on."""
        self._wait(self._real.pause_schedule(name, reason, by=by))

    def resume_schedule(self, name: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Go on with the first tick from now on."""
        self._wait(self._real.resume_schedule(name, reason=reason, by=by))

    def reset_schedule(self, name: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Go back to what code has declared, and end a pause."""
        self._wait(self._real.reset_schedule(name, reason=reason, by=by))

    def delete_schedule(self, name: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Delete a schedule; its runs stay. Code that still declares it makes it again at its next entry."""
        self._wait(self._real.delete_schedule(name, reason=reason, by=by))

    def trigger_schedule(self, name: str, *, reason: str | None = None, by: str | None = None) -> Run:
        """Start a run now, paused or not and whatever `overlap` says; following ticks see it as the run before them."""
        return Run(self._portal, self._wait(self._real.trigger_schedule(name, reason=reason, by=by)))

    def backfill_schedule(
        self, name: str, start: datetime, end: datetime, *, reason: str | None = None, by: str | None = None
    ) -> list[Run]:
        """Start a run for each tick from `start` until before `end`, all at once; give them, oldest first.

        A tick that has started a run already is that run (`run.created` is False), so asking twice starts nothing
        twice. The past only: what is to come starts by itself.
        """
        return [
            Run(self._portal, run)
            for run in self._wait(self._real.backfill_schedule(name, start, end, reason=reason, by=by))
        ]

    def next_fires(self, name: str, n: int = 10) -> list[datetime]:
        """Give the next `n` ticks from now on, in the schedule's zone; fewer if there are no more, paused or not."""
        return self._wait(self._real.next_fires(name, n))

    def schedules(self) -> list[ScheduleInfo]:
        """List all schedules by name."""
        return self._wait(self._real.schedules())

    def get_schedule(self, name: str) -> ScheduleInfo:
        """Read one schedule, or raise ScheduleNotFound."""
        return self._wait(self._real.get_schedule(name))

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
        """List runs, newest first: `.page()` gives one, iterating goes through all.

        `query` is text such as `"status:failed tenant:42 age:<1h"`; runs meet it
        and all the other filters. UsageError says where a query is wrong.
        """
        return RunList(
            self._portal,
            lambda: self._real.runs(
                query,
                status=status,
                workflow=workflow,
                queue=queue,
                id_prefix=id_prefix,
                created_after=created_after,
                created_before=created_before,
                limit=limit,
                after=after,
            ),
        )

    def count(self, query: str = "", *, limit: int = COUNT_MAX_RUNS) -> int:
        """Count the runs that a query means, up to `limit`: counting goes no further."""
        return self._wait(self._real.count(query, limit=limit))

    def versions(self, workflow: str | None = None) -> list[VersionCount]:
        """Count the unfinished runs of each version of a workflow, or of all; the oldest version first.

        Code may go when no run of its version is left: workers of pinned versions,
        old paths beside `patched`.
        """
        return self._wait(self._real.versions(workflow))

    def journals(self, query: str = "", *, ids: Iterable[str] = ()) -> Iterator[FrozenJournal]:
        """Give what replay needs of the runs that a query means, newest first, or of those with these ids.

        `outlive.testing.replay` tries code on them, now or as `to_line()` in a file, without any effect.
        """
        return self._iterate(lambda: self._real.journals(query, ids=ids))
