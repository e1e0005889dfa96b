"""The inbox of reviews, for programs: what a guard has stopped, and a person's one decision on it.

Knows the promises that `agents.reviews` makes; needs no agent, no worker and no extra.
Invariant: a decision is one settlement of its promise: of two decisions one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from outlive.app import Outlive
from outlive.errors import AlreadySettled, PromiseExpired, PromiseNotFound, RunRefused, UsageError
from outlive.promises import OpenPromise

TOPIC = "review"
Verdict = Literal["accept", "again", "reject"]


@dataclass(frozen=True)
class Review:
    """What waits for a person: why it was stopped, and the facts by which to decide."""

    id: str
    run_id: str
    what: str
    reason: str
    facts: Mapping[str, Any]
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True)
class Decision:
    """What settles the promise of a review; `value` is accepted in place of what there is."""

    verdict: Verdict
    by: str | None
    why: str | None
    value: Any


@dataclass(frozen=True)
class ReviewPage:
    """Some open reviews; `next` is the `after` of the following page, None at the end."""

    items: list[Review]
    next: str | None


class Reviews:
    """See `reviews`."""

    def __init__(self, app: Outlive) -> None:
        self._app = app

    async def list(self, *, run_id: str | None = None, limit: int = 100, after: str | None = None) -> ReviewPage:
        """List what waits for a person, the oldest first; of one run, or of all."""
        page = await self._app.promises(TOPIC, run_id=run_id, limit=limit, after=after)
        return ReviewPage([_review(one) for one in page.items], page.next)

    async def decide(self, id: str, verdict: Verdict, *, by: str, why: str | None = None, value: Any = None) -> None:
        """Accept, reject, or let the agent try again, once.

        `why` is noted; with "again" the agent reads it. `value` is accepted in place of the agent's output.
        *Durable*: the decision, with who and why, before this returns. *Again*: a second decision is refused.
        *Raises* RunRefused, with the reason, where the decision does not count: nothing is changed then.
        """
        run_id, key = _place(id)
        if verdict not in get_args(Verdict):
            raise UsageError(f"decide(id, verdict, …) takes 'accept', 'again' or 'reject', not {verdict!r}")
        if not isinstance(by, str) or not by:
            raise UsageError("decide(…, by=…) says who decides")
        if not isinstance(why, str | None):
            raise UsageError(f"decide(…, why=…) is a text, not {why!r}")
        if value is not None and verdict != "accept":
            raise UsageError("decide(…, value=…) is for what is accepted")
        waiting = await self._app.find_promise(run_id, key)
        if waiting is None or waiting.topic != TOPIC:
            raise RunRefused(run_id, f"no review {key!r} waits there: it was decided, has expired, or never was")
        try:
            await self._app.settle(waiting.token, Decision(verdict, by, why, value), by=by, reason=why)
        except AlreadySettled:
            raise RunRefused(run_id, "this review has been decided already") from None
        except PromiseExpired:
            raise RunRefused(run_id, "nobody decided on this review in time") from None
        except PromiseNotFound:
            raise RunRefused(run_id, "this review has been taken back") from None


def reviews(app: Outlive) -> Reviews:
    """Give the inbox of reviews of an app, a client or a worker."""
    return Reviews(app)


def _place(id: str) -> tuple[str, str]:
    run_id, _, key = id.rpartition(" ") if isinstance(id, str) else ("", "", "")
    if not run_id:
        raise UsageError(f"a review's id is that of its run, a space and its key, not {id!r}")
    return run_id, key


def _review(one: OpenPromise) -> Review:
    return Review(
        f"{one.run_id} {one.key}", one.run_id, **one.about, created_at=one.created_at, expires_at=one.expires_at
    )
