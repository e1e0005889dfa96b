"""What operators do: to a run by its handle, and the audit of it all by the app.

Each method is one request or one transaction of the store, with a note of who
asked for it and why. It knows handles and the engine, no journal.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from outlive.clock import Duration, to_datetime, to_instant
from outlive.engine.engine import Engine
from outlive.errors import RunNotFound, UsageError
from outlive.ids import check_id
from outlive.limits import ERROR_TEXT_MAX_CHARS
from outlive.model.options import check_deadline, check_limit, check_priority, check_wait
from outlive.model.writes import Note
from outlive.opened import Opened

Noun = Literal["run", "queue", "schedule", "budget"]


@dataclass(frozen=True)
class AuditEntry:
    """One action of an operator: who did it, when, to what, and why. `facts` says more where there is more to say."""

    number: int
    at: datetime
    by: str
    action: str
    noun: str
    target: str
    reason: str | None
    facts: Any


class Audited(Opened):
    """The part of an app that tells what operators have done."""

    async def audit(self, run_id: str | None = None, *, limit: int = 100, after: int | None = None) -> list[AuditEntry]:
        """List the actions of operators, the latest first; all, or those on one run (or queue, or schedule).

        `after` is the `number` of the last one seen.
        """
        rows = await self._engine().store.list_audit(run_id, check_limit(limit), after)
        return [
            AuditEntry(
                row.audit, to_datetime(row.at), row.who, row.action, row.noun, row.target, row.reason,
                json.loads(row.facts) if row.facts is not None else None,
            )
            for row in rows
        ]  # fmt: skip


class Controlled:
    """The part of a handle through which operators act. `by=` says who does; without it, the app's name."""

    id: str
    _result_hint: Any
    _engine: Callable[[], Engine]

    async def cancel(self, reason: str | None = None, *, by: str | None = None) -> bool:
        """Ask for cancellation; False if the run has ended.

        *Durable*: the request, before this returns. The owner delivers it as
        CancelledError at the run's next durable await outside shielded blocks, and journals that.
        """
        note = self._note("cancel", reason, by)
        return await self._request("cancel", note.reason, note)

    async def pause(self, reason: str | None = None, *, by: str | None = None) -> bool:
        """Ask the owner to take the run out of memory and hold it; False if the run has ended."""
        note = self._note("pause", reason, by)
        return await self._request("pause", note.reason, note)

    async def resume(self, *, reason: str | None = None, by: str | None = None) -> bool:
        """Let a paused or quarantined run go on, or withdraw a pause that its owner has not carried out yet.

        *Durable*: that it goes on, before this returns. *Again*: of a pause and a resume at the same time the last one
        counts. False, with nothing changed, if the run is neither held nor to be paused.
        """
        engine, note = self._engine(), self._note("resume", reason, by)
        resumed = await self._found(engine.store.resume(self.id, note))
        if resumed:
            engine.hint()
        return resumed

    async def reschedule(
        self,
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        *,
        reason: str | None = None,
        by: str | None = None,
    ) -> bool:
        """Change when a run that has not begun may start: `delay` from now, or `at` an instant; and its priority.

        *Durable*: the new time, before this returns. In a queue the run is delayed until then and joins the line behind
        those who wait; one that is due keeps its place. A debounced run starts at its cap at the latest, one that
        replaces another still waits for the end of that, and a deadline stays. *Again*: the last call counts.
        False, with nothing changed, if the run has begun or ended, or is to be cancelled.
        """
        wait_s = None if delay is None else check_wait(delay, "delay=…")
        start_at = None if at is None else self._check_start(at)
        if wait_s is not None and start_at is not None:
            raise UsageError("delay=… and at=… exclude each other: say when once")
        if priority is not None:
            check_priority(priority)
        elif wait_s is None and start_at is None:
            raise UsageError("say delay=…, at=… or priority=…: nothing to change")
        facts = {"delay_s": wait_s, "at": at.isoformat() if at is not None else None, "priority": priority}
        engine = self._engine()
        note = self._note("reschedule", reason, by, {name: fact for name, fact in facts.items() if fact is not None})
        moved = await self._found(
            engine.store.reschedule(self.id, delay_s=wait_s, at=start_at, priority=priority, note=note)
        )
        if moved:
            engine.hint()
        return moved

    def _check_start(self, at: Any) -> float:
        instant = to_instant(at)
        check_wait(max(instant - self._engine().clock.now(), 0.0), "the time until at=…")
        return instant

    async def resolve(
        self,
        key: str,
        *,
        value: Any = ...,
        error: str | None = None,
        retry: bool = False,
        reason: str | None = None,
        by: str | None = None,
    ) -> bool:
        """Decide what became of a step whose outcome a crash left unknown, and let the run go on.

        The step at `key` then has this `value`, fails with this `error`, or is executed again (`retry`): one of them.
        *Durable*: the decision, and that the run may go on, before this returns. False if the run has ended or is not
        held. *Raises* RunRefused, with nothing changed, if it is held for something else than the outcome at `key`.
        """
        engine, chosen = (
            self._engine(),
            {"value": value is not ..., "error": error is not None, "retry": retry is not False},
        )
        if sum(chosen.values()) != 1 or retry not in (False, True) or not isinstance(error, str | None):
            raise UsageError("say one of value=…, error='…' and retry=True: what became of the step")
        decision: dict[str, Any] = {"key": key}
        if error is not None:
            decision["error"] = error
        elif not retry:
            decision["value"] = json.loads(engine.codec.encode(value, where=f"value for {key}"))
        said = next(name for name, is_chosen in chosen.items() if is_chosen)
        note = self._note("resolve", reason, by, {"key": key, "as": said})
        return await engine.control.resolve(self.id, key, json.dumps(decision), note)

    async def retry(self, *, reason: str | None = None, by: str | None = None) -> None:
        """Let a failed or cancelled run go on from where it failed, under the same id.

        *Durable*: the error or the cancellation that it ended by moves to the past, with what came of it. What had
        begun before and has succeeded is kept, and so is what other branches did meanwhile. A child whose failure it
        was is retried too, and so are those that were cancelled with the run, for whose end this waits. A run of a
        queue stands in line again; its `dedupe` is its own again unless another run has it by now.
        *Raises* RunRefused if it has not failed, its compensations have been executed, something that came of its
        failure may have taken effect, a child that was cancelled does not end, or it is a singleton and another one of
        its key has not ended.
        """
        await self._engine().control.retry(self.id, self._note("retry", reason, by))

    async def rewind(self, to: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Execute the run again from the entry at the key `to` on, under the same id.

        *Durable*: entries before it are reused; it and later ones move to the past, with what has cancelled it, and
        children that those had started are cancelled; nobody is asked what took effect. *Again*: a death on the way
        leaves the run paused. *Raises* RunRefused for an unknown key, and as `retry` for a singleton that has ended.
        """
        await self._engine().control.rewind(self.id, to, self._note("rewind", reason, by, {"to": to}))

    async def fork(
        self,
        at: str,
        patch: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        deadline: Duration | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> Self:
        """Start a new run that reuses the entries before the key `at`, with the values of `patch` in their places.

        *Again*: a used `id` gives the fork that has it. *Raises* RunRefused for an unknown key, for a patch of
        what has no value recorded before it, and for a singleton while one of its key has not ended;
        EncodeFailed for a value that cannot be stored.
        """
        engine = self._engine()
        if not isinstance(patch, Mapping | None):
            raise UsageError(f"patch=… is a mapping of keys to values, not {patch!r}")
        new_id = check_id(id) if id is not None else engine.ids.run_id(engine.clock.now())
        note = self._note("fork", reason, by, {"at": at, "patched": sorted(patch or {}), "fork": new_id})
        row, created = await engine.control.fork(self.id, at, patch or {}, new_id, check_deadline(deadline), note)
        return type(self)(self._engine, row.id, row.row, self._result_hint, created=created)  # type: ignore[call-arg]

    async def delete(self, *, children: bool = False, reason: str | None = None, by: str | None = None) -> None:
        """Delete a run that has ended, with all that is its own; `children` takes its finished descendants along.

        *Raises* RunRefused if it has not ended, or a descendant has not, or a parent still waits for its result.
        """
        note = self._note("delete", reason, by, {"children": True} if children else None)
        await self._engine().control.delete(self.id, note, children=children)

    def _note(self, action: str, reason: Any, by: Any, facts: Any = None) -> Note:
        return make_note(self._engine(), action, "run", self.id, reason, by, facts)

    async def _request(self, kind: str, payload: Any, note: Note) -> bool:
        return await self._found(self._engine().request(self.id, kind, payload, note))

    async def _found(self, answer: Awaitable[bool]) -> bool:
        try:
            return await answer
        except KeyError:
            raise RunNotFound(self.id) from None


def make_note(engine: Engine, action: str, noun: Noun, target: str, reason: Any, by: Any, facts: Any = None) -> Note:
    """Make the note of an action; what neither journal nor audit could hold is refused here, at the caller."""
    for what, text in (("reason", reason), ("by", by)):
        if text is not None and not isinstance(text, str):
            raise UsageError(f"{what}=… is text, not {text!r}")
        if text is not None:
            engine.codec.encode(text, where=f"{what} for {noun} {target}")
    return engine.note(action, noun, target, reason and reason[:ERROR_TEXT_MAX_CHARS], by, facts)
