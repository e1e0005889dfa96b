"""Generated from the classes of inboxes and budgets by `python -m tools.sync_face`: change that, and run it again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from outlive import approvals as _approvals
from outlive import budgets as _budgets
from outlive import questions as _questions
from outlive import reviews as _reviews
from outlive.approvals import Approval
from outlive.budgets import BudgetInfo, Expense, Share
from outlive.clock import Duration
from outlive.errors import UsageError
from outlive.model.line import KEPT
from outlive.paging import Page
from outlive.questions import Question
from outlive.reviews import Review, Verdict
from outlive.sync.app import Outlive
from outlive.sync.face import Face


class Approvals(Face):
    """See `approvals`."""

    def __init__(self, app: Outlive) -> None:
        super().__init__(app._portal)
        self._real = _approvals.Approvals(app._real)

    def decide(
        self,
        id: str,
        *,
        approve: bool,
        by: str,
        why: str | None = None,
        roles: Collection[str] = (),
        edit: Mapping[str, Any] | None = None,
        digest: str | None = None,
    ) -> None:
        """Approve or deny a call, as a person who has these `roles`; once.

        `edit` replaces the arguments: they have to fit the tool's schema, and the tool validates them again. `digest`
        is the one of the approval that the person has seen: a call that has other arguments by now is refused, and one
        that others have voted on since is found.
        *Durable*: the decision, with who and why, before this returns. *Again*: a second decision is refused.
        *Raises* RunRefused, with the reason, where the decision does not count: nothing is changed then.
        """
        self._wait(self._real.decide(id, approve=approve, by=by, why=why, roles=roles, edit=edit, digest=digest))

    def find(self, id: str, *, digest: str | None = None) -> Approval | None:
        """Find what waits, by its id; None if it was decided, has expired, or never was.

        With the `digest` that was seen also if others have voted since then.
        """
        return self._wait(self._real.find(id, digest=digest))

    def list(self, *, run_id: str | None = None, limit: int = 100, after: str | None = None) -> Page[Approval, str]:
        """List what waits, the oldest first; of one run, or of all."""
        return self._wait(self._real.list(run_id=run_id, limit=limit, after=after))


def approvals(app: Outlive) -> Approvals:
    """Give the inbox of approvals of an app, a client or a worker."""
    return Approvals(_checked("approvals", app))


class Budgets(Face):
    """See `budgets`."""

    def __init__(self, app: Outlive) -> None:
        super().__init__(app._portal)
        self._real = _budgets.Budgets(app._real)

    def list(self, *, limit: int = 100, after: str | None = None) -> Page[BudgetInfo, str]:
        """List the budgets that were used or changed, by name; those per day as of today."""
        return self._wait(self._real.list(limit=limit, after=after))

    def find(self, account: str, *, day: date | None = None) -> BudgetInfo | None:
        """Give a budget, as of today or a past day if it is one per day; None if nobody has used or changed it."""
        return self._wait(self._real.find(account, day=day))

    def shares(self, account: str) -> Sequence[Share]:
        """List what each run has used of a budget on each model, and on tools (no model), as long as it is kept."""
        return self._wait(self._real.shares(account))

    def ledger(self, account: str, *, limit: int = 100, before: int | None = None) -> Page[Expense, int]:
        """List what an account was charged for, the latest first, as long as the runs are kept."""
        return self._wait(self._real.ledger(account, limit=limit, before=before))

    def put(
        self,
        account: str,
        *,
        usd: Decimal | str | float | None = KEPT,
        tokens: int | None = KEPT,
        requests: int | None = KEPT,
        tools: int | None = KEPT,
        wall: Duration | None = KEPT,
        reason: str | None = None,
        by: str | None = None,
    ) -> None:
        """Change limits of a budget for all processes, at once; None lifts one, those not named stay.

        A run that failed for want of it goes on with `retry`. Calls of tools are counted only where code limits them,
        or the time.
        *Durable*: what is changed here wins over what code declares.
        """
        self._wait(
            self._real.put(
                account, usd=usd, tokens=tokens, requests=requests, tools=tools, wall=wall, reason=reason, by=by
            )
        )

    def stop(self, account: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Refuse all that is new; what is under way goes on, and is settled."""
        self._wait(self._real.stop(account, reason, by=by))

    def resume(self, account: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Allow again what the limits allow."""
        self._wait(self._real.resume(account, reason, by=by))


def budgets(app: Outlive) -> Budgets:
    """Give the budgets of an app, a client or a worker."""
    return Budgets(_checked("budgets", app))


class Questions(Face):
    """See `questions`."""

    def __init__(self, app: Outlive) -> None:
        super().__init__(app._portal)
        self._real = _questions.Questions(app._real)

    def answer(self, id: str, value: Any, *, by: str, why: str | None = None) -> None:
        """Answer a question, once, with a value that is JSON of its schema.

        *Durable*: the answer, with who and why in the audit, before this returns. *Again*: a second one is refused.
        *Raises* RunRefused, with the reason, for what is no answer, and where nobody waits for one: nothing is changed.
        """
        self._wait(self._real.answer(id, value, by=by, why=why))

    def decline(self, id: str, *, by: str, why: str | None = None) -> None:
        """Decline to answer, once: who has asked gets a StepFailed that says who and why; a model reads it.

        *Durable*, *Again*, *Raises*: as `answer`.
        """
        self._wait(self._real.decline(id, by=by, why=why))

    def list(self, *, run_id: str | None = None, limit: int = 100, after: str | None = None) -> Page[Question, str]:
        """List what waits, the oldest first; of one run, or of all."""
        return self._wait(self._real.list(run_id=run_id, limit=limit, after=after))

    def find(self, id: str) -> Question | None:
        """Find what waits, by its id; None if it was answered, has expired, or never was."""
        return self._wait(self._real.find(id))


def questions(app: Outlive) -> Questions:
    """Give the questions of an app, a client or a worker; answers are checked with the extra `agents`."""
    return Questions(_checked("questions", app))


class Reviews(Face):
    """See `reviews`."""

    def __init__(self, app: Outlive) -> None:
        super().__init__(app._portal)
        self._real = _reviews.Reviews(app._real)

    def decide(self, id: str, verdict: Verdict, *, by: str, why: str | None = None, value: Any = None) -> None:
        """Accept, reject, or let the agent try again, once.

        `why` is noted; with "again" the agent reads it. `value` is accepted in place of the agent's output.
        *Durable*: the decision, with who and why, before this returns. *Again*: a second decision is refused.
        *Raises* RunRefused, with the reason, where the decision does not count: nothing is changed then.
        """
        self._wait(self._real.decide(id, verdict, by=by, why=why, value=value))

    def list(self, *, run_id: str | None = None, limit: int = 100, after: str | None = None) -> Page[Review, str]:
        """List what waits, the oldest first; of one run, or of all."""
        return self._wait(self._real.list(run_id=run_id, limit=limit, after=after))

    def find(self, id: str) -> Review | None:
        """Find what waits, by its id; None if it was answered, has expired, or never was."""
        return self._wait(self._real.find(id))


def reviews(app: Outlive) -> Reviews:
    """Give the inbox of reviews of an app, a client or a worker."""
    return Reviews(_checked("reviews", app))


def _checked(what: str, app: Outlive) -> Outlive:
    if not isinstance(app, Outlive):
        raise UsageError(f"{what}(app) takes an outlive.sync.Outlive here, not {app!r}")
    return app
