"""Every error of Outlive, in one tree ordered by who must act.

    OutliveError
    ├── UsageError          the calling code is wrong; never retried
    │   └── CassetteMiss
    ├── RunError            what a handle reports about a run
    │   ├── RunFailed  RunCancelled  RunTimedOut  RunOnHold
    │   ├── RunNotFound  RunExists  DuplicateRun  RunRefused  LeaseLost
    │   └── RunEnded
    │       └── CallUnanswered
    ├── ScheduleNotFound    no schedule has this name
    ├── StepFailed          a recorded error whose class cannot be rebuilt here
    ├── DeadlineExceeded    a run had not ended when its deadline passed
    ├── OutcomeUnknown      nobody knows whether a step that a crash interrupted took effect
    ├── PromiseError        a promise cannot be settled, or will not be
    │   └── PromiseExpired  PromiseNotFound  AlreadySettled
    ├── ReplayError         code and journal no longer fit: an operator decides
    │   └── JournalMismatch  VersionMissing  JournalCorrupt
    ├── StoreError          the database is the problem; only the first is worth another try
    │   └── StoreUnavailable  SchemaMismatch  StoreReadOnly
    ├── PayloadError        a value cannot be stored or read
    │   └── EncodeFailed  DecodeFailed  PayloadTooLarge
    ├── LimitError          a limit was reached
    │   └── QueueFull  BudgetExceeded  UnknownPrice  RepeatedAction
    ├── NotAccepted         a guard stopped an agent's work, and no person let it pass
    │   └── GuardRefused  ValidationExhausted
    ├── Permanent           raised by users: do not retry this step
    └── RetryAfter          raised by users: retry this step, but not before `delay`

Constructors take facts and build the sentence: what happened, to which run and
step, what to do next. Each error also inherits the built-in that fits it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

__all__ = ["OutliveError", "UsageError", "CassetteMiss", "StepFailed", "OutcomeUnknown", "Permanent", "RetryAfter"]
__all__ += ["LimitError", "QueueFull", "BudgetExceeded", "UnknownPrice", "RepeatedAction"]
__all__ += ["NotAccepted", "GuardRefused", "ValidationExhausted", "DeadlineExceeded", "ScheduleNotFound"]
__all__ += ["RunError", "RunFailed", "RunCancelled", "RunTimedOut", "RunOnHold"]
__all__ += ["RunNotFound", "RunExists", "DuplicateRun", "RunRefused", "RunEnded", "CallUnanswered", "LeaseLost"]
__all__ += ["PromiseError", "PromiseExpired", "PromiseNotFound", "AlreadySettled"]
__all__ += ["ReplayError", "JournalMismatch", "VersionMissing", "JournalCorrupt"]
__all__ += ["StoreError", "StoreUnavailable", "SchemaMismatch", "StoreReadOnly"]
__all__ += ["PayloadError", "EncodeFailed", "DecodeFailed", "PayloadTooLarge"]


class OutliveError(Exception):
    """Root of every error that Outlive raises."""


class UsageError(OutliveError, RuntimeError):
    """The calling code uses Outlive wrongly; the message says what to write instead."""


class CassetteMiss(UsageError):
    """A ReplayModel was asked for what its cassette has no answer to; the message shows what is different."""


class RunError(OutliveError):
    """What a handle reports about a run. Never raised inside a workflow's own body."""

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunNotFound(RunError, LookupError):
    """No run has this id in this store."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            run_id,
            f"no run {run_id!r} in this store: it was never started, or has been deleted or pruned; check the id and "
            "the URL, or start it again",
        )


class RunExists(RunError, ValueError):
    """The id is taken by a run of another workflow, or that of an awaited child by a run that somebody else started."""

    def __init__(self, run_id: str, existing: str, wanted: str) -> None:
        text = (
            f"run {run_id!r} already exists for workflow {existing!r}, so it cannot be started for {wanted!r}; "
            "choose an id that names the workflow too"
        )
        if existing == wanted:
            text = f"run {run_id!r} was started by somebody else, so it is not the child that this call has to await"
        super().__init__(run_id, text)


class DuplicateRun(RunError, ValueError):
    """An unfinished run of the same queue has this `dedupe` already; `run_id` is its id."""

    def __init__(self, run_id: str, queue: str, dedupe: str) -> None:
        where = f"in queue {queue!r}" if queue else "in no queue"
        super().__init__(
            run_id,
            f"run {run_id!r} {where} has dedupe {dedupe!r} and has not ended; wait for it, or start with "
            "on_duplicate='attach' to get its handle",
        )
        self.dedupe = dedupe


class RunEnded(RunError):
    """The run has ended: it receives no messages and answers no calls any more."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id, f"run {run_id!r} has ended: it receives nothing and answers nothing any more")


class CallUnanswered(RunEnded):
    """The run ended, or went on as new, before it had answered a call that it had accepted."""

    def __init__(self, run_id: str, name: str) -> None:
        text = (
            f"run {run_id!r} ended, or continued as new, before it had answered the call {name!r} that it had accepted"
        )
        RunError.__init__(self, run_id, f"{text}; its journal says how far it came")


class RunFailed(RunError):
    """The run ended with an error whose class cannot be rebuilt in this process."""

    def __init__(self, run_id: str, type: str, text: str, traceback: str = "") -> None:
        super().__init__(run_id, f"run {run_id!r} failed with {type}: {text}")
        self.type, self.text, self.traceback = type, text, traceback


class RunCancelled(RunError):
    """The run was cancelled."""

    def __init__(self, run_id: str, reason: str | None = None) -> None:
        super().__init__(run_id, f"run {run_id!r} was cancelled" + (f": {reason}" if reason else ""))
        self.reason = reason


class RunTimedOut(RunError, TimeoutError):
    """Waiting for the run took too long; the run itself goes on."""

    def __init__(self, run_id: str, timeout_s: float, why: str = "") -> None:
        because = f": {why}" if why else ""
        super().__init__(run_id, f"run {run_id!r} gave nothing within {timeout_s:g} s{because}; it goes on")


class RunOnHold(RunError):
    """The run is paused or quarantined and waits for a person."""

    def __init__(self, run_id: str, status: str, reason: str | None) -> None:
        is_told = reason is not None and ("resume()" in reason or "resolve(" in reason)
        super().__init__(
            run_id,
            f"run {run_id!r} is {status}"
            + (f": {reason}" if reason else "")
            + f"; {'' if is_told else 'resume() '}or cancel() it",
        )
        self.status, self.reason = status, reason


class RunRefused(RunError, ValueError):
    """An operator asked for what this run, as it stands, does not allow. Nothing was changed."""

    def __init__(self, run_id: str, why: str) -> None:
        super().__init__(run_id, f"run {run_id!r}: {why}")
        self.why = why


class LeaseLost(RunError):
    """This process lost its right to execute the run; a peer continues it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            run_id,
            f"this process lost its lease while it executed run {run_id!r}; the run continues on "
            "another worker, wait for it again with result()",
        )


class ScheduleNotFound(OutliveError, LookupError):
    """No schedule has this name in this store."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no schedule {name!r} in this store; app.schedule(…) or app.put_schedule(…) makes one")
        self.name = name


class StepFailed(OutliveError):
    """A recorded error whose class is not imported here or does not rebuild.

    `type` is the qualified name of the original class, `text` its message,
    `traceback` the text of its traceback, `cause` the next recorded error or None.
    """

    def __init__(
        self, type: str, text: str, args: Sequence[Any] = (), traceback: str = "", retryable: bool = True
    ) -> None:
        super().__init__(f"{type}: {text}" if text else type)
        self.type, self.text = type, text
        self.arguments, self.traceback, self.retryable = tuple(args), traceback, retryable

    def matches(self, name: str) -> bool:
        """Say whether the original class was `name` (qualified, or its last part)."""
        return self.type == name or self.type.rsplit(".", 1)[-1] == name


class OutcomeUnknown(OutliveError):
    """A crash interrupted a step declared with `on_unknown="park"`: a person decides what became of it."""

    def __init__(self, run_id: str, key: str) -> None:
        super().__init__(
            f"run {run_id!r} was interrupted within {key}, and nobody knows whether it took effect; find out, then "
            f"run.resolve({key!r}, value=…), resolve({key!r}, error=…) or resolve({key!r}, retry=True)"
        )
        self.run_id, self.key = run_id, key


class DeadlineExceeded(OutliveError, TimeoutError):
    """A run had not ended when its deadline passed, and has ended by that."""

    def __init__(self, run_id: str, deadline_at: datetime) -> None:
        super().__init__(f"run {run_id!r} had not ended at its deadline, {deadline_at.isoformat(timespec='seconds')}")
        self.run_id, self.deadline_at = run_id, deadline_at.isoformat()


class PromiseError(OutliveError):
    """A promise cannot be settled, or will not be."""


class PromiseExpired(PromiseError, TimeoutError):
    """Nobody settled the promise in time."""

    def __init__(self, promise: str) -> None:
        super().__init__(f"promise {promise} has expired: nobody settled it in time")
        self.promise = promise


class PromiseNotFound(PromiseError, LookupError):
    """No promise has this token."""

    def __init__(self, token: str) -> None:
        super().__init__(f"no promise has the token {token[:12]!r}… (a wrong token, or its run was pruned)")


class AlreadySettled(PromiseError, ValueError):
    """A promise is settled once."""

    def __init__(self, token: str) -> None:
        super().__init__(f"the promise with the token {token[:12]!r}… is settled already; its outcome stays")


class ReplayError(OutliveError):
    """Code and journal of a run no longer fit; the run is paused, nothing is lost."""


_OF_A_TOOL = re.compile(r"/(policy|approval|tool|validate):")  # the keys of agents


class JournalMismatch(ReplayError):
    """Replay took another path than the first execution."""

    def __init__(
        self, run_id: str, *, expected: str, got: str, where: str, recorded_version: str, code_version: str
    ) -> None:
        cause = "perhaps this tool of the agent was renamed, removed or changed; " if _OF_A_TOOL.search(where) else ""
        super().__init__(
            f"run {run_id!r} diverged at {where}: its journal has {expected}, the code asks for {got} "
            f"(journal of version {recorded_version}, code of version {code_version}); {cause}a run that "
            "diverges is paused: deploy code that takes the recorded path, then resume() it"
        )
        self.run_id, self.expected, self.got = run_id, expected, got
        self.where, self.recorded_version, self.code_version = where, recorded_version, code_version


class VersionMissing(ReplayError):
    """The run is pinned to a version that this process does not have."""

    def __init__(self, run_id: str, workflow: str, pinned_to: str, code_version: str) -> None:
        super().__init__(
            f"run {run_id!r} is pinned to version {pinned_to} of {workflow!r}, and the code here is of version "
            f"{code_version}: only workers of its version go on with it"
        )
        self.run_id, self.pinned_to, self.code_version = run_id, pinned_to, code_version


class JournalCorrupt(ReplayError):
    """The journal of a run contradicts itself or this process's memory of it."""


class StoreError(OutliveError):
    """The database refused or could not be reached."""


class StoreUnavailable(StoreError, ConnectionError):
    """The database does not answer. Retry; a start with the same id is safe to repeat.

    `outcome_unknown` is True if the statement may have been committed.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False, run_id: str | None = None) -> None:
        super().__init__(message)
        self.outcome_unknown, self.run_id = outcome_unknown, run_id


class StoreReadOnly(StoreError, PermissionError):
    """The database cannot be written by this process."""


class SchemaMismatch(StoreError):
    """The schema in the database and this version of Outlive do not fit."""


class PayloadError(OutliveError, ValueError):
    """A value cannot be stored or read back."""


class EncodeFailed(PayloadError):
    """A value cannot be written as a payload; `path` names the offending part."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


class DecodeFailed(PayloadError):
    """A stored payload does not fit the type that the code asks for."""


class PayloadTooLarge(PayloadError):
    """A payload is above the hard cap."""

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"{what} is {size_bytes:,} bytes, the limit is {limit_bytes:,}; store it elsewhere and pass a reference"
        )
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes


class LimitError(OutliveError):
    """A limit was reached."""


class QueueFull(LimitError):
    """As many runs as may wait for a queue do: nothing was started."""

    def __init__(self, queue: str, backlog: int) -> None:
        super().__init__(
            f"queue {queue!r} is full: {backlog} runs wait for it, which is its backlog; start again later, or raise "
            "the backlog"
        )
        self.queue, self.backlog = queue, backlog


class RepeatedAction(LimitError):
    """An agent goes on calling its tools as before, and they answer as before."""

    def __init__(self, tool: str, times: int) -> None:
        super().__init__(
            f"the last {times} calls, of {tool} at last, were made before with the same arguments and got the same "
            "answers: the agent goes round in circles; give it another task, other tools or advice"
        )
        self.tool, self.times = tool, times


class NotAccepted(OutliveError):
    """A guard stopped the work of an agent, and whoever was asked to review it did not let it pass."""

    def __init__(self, run_id: str, what: str, reason: str, by: str | None, why: str | None) -> None:
        said = f"{by} rejected it" if by is not None else "nobody reviewed it in time"
        super().__init__(f"run {run_id!r}: {what}: {reason}; {said}" + (f": {why}" if why else ""))
        self.run_id, self.reason, self.by, self.why = run_id, reason, by, why


class GuardRefused(NotAccepted):
    """A guarded loop ended without a change that passes its check."""


class ValidationExhausted(NotAccepted, ValueError):
    """An agent gave no output that passes its checks, in as many attempts as it had."""


class Permanent(OutliveError):
    """Raise it in a step to fail at once, whatever its retry policy says."""


class RetryAfter(OutliveError):
    """Raise it in a step to be retried, but not before `delay` seconds from now."""

    def __init__(self, delay: float, message: str = "") -> None:
        super().__init__(delay, message)
        self.delay = delay

    def __str__(self) -> str:
        return self.args[1] or f"retry after {self.delay:g} s"


class BudgetExceeded(LimitError, Permanent):
    """A budget has no room for what an agent was about to do, which was not done; or its wall time was over within it.

    `measure` is "usd", "tokens", "requests", "tools", "wall" (seconds), or None: the budget was stopped. The `numbers`
    are its limit, what is spent, reserved, and was asked for.
    """

    def __init__(
        self,
        run_id: str,
        key: str,
        account: str,
        measure: str | None,
        numbers: Sequence[float],
        *,
        within: bool = False,
    ) -> None:
        limit, spent, reserved, asked = (_amount(measure, number) for number in numbers)
        held = f"of {limit} it has spent {spent}, {reserved} are reserved, and this may take {asked}"
        why = f"has no room: {held}; raise it"
        if measure in ("usd", "tokens"):
            why += ", or reserve less for an answer (answer_tokens=…)"
        if numbers[2] > 0 and numbers[1] + numbers[3] <= numbers[0]:
            why += ", or wait, for those who have reserved it may not use it all"
        if measure is None:
            why = "is stopped; resume it"
        elif measure == "wall":
            why = f"allows {limit}, and the agent began {spent} ago; raise it"
        place = "within" if within else "before"
        super().__init__(f"run {run_id!r} stopped {place} {key}: budget {account!r} {why}, then retry the run")
        self.run_id, self.key, self.account, self.measure = run_id, key, account, measure
        self.limit, self.spent, self.reserved, self.asked = numbers


class UnknownPrice(LimitError, Permanent):
    """A budget limits money, and nobody knows what a request to this model costs; it was not sent."""

    def __init__(self, run_id: str, key: str, model: str) -> None:
        super().__init__(
            f"run {run_id!r} stopped before {key}: the price of model {model!r} is unknown, and a budget limits money; "
            f"give it as Budget(prices={{{model!r}: Price(…)}}), or allow it with Budget(unknown_price='allow'), then "
            "retry the run"
        )
        self.run_id, self.key, self.model = run_id, key, model


def _amount(measure: str | None, value: float) -> str:
    if measure == "usd":
        return f"${value:.6f}".rstrip("0").rstrip(".")
    return f"{value:g} s" if measure == "wall" else f"{value:,.0f} {measure}"
