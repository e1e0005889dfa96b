"""The inbox of reviews: what a guard has stopped, and a person's one decision on it.

Knows the promises that `agents.reviews` makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from outlive.app import Outlive
from outlive.errors import UsageError
from outlive.inbox import Inbox, check_person

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


class Reviews(Inbox[Review]):
    """See `reviews`."""

    topic, item = TOPIC, Review
    answered = "decided"

    async def decide(self, id: str, verdict: Verdict, *, by: str, why: str | None = None, value: Any = None) -> None:
        """Accept, reject, or let the agent try again, once.

        `why` is noted; with "again" the agent reads it. `value` is accepted in place of the agent's output.
        *Durable*: the decision, with who and why, before this returns. *Again*: a second decision is refused.
        *Raises* RunRefused, with the reason, where the decision does not count: nothing is changed then.
        """
        check_person(by, why)
        if verdict not in get_args(Verdict):
            raise UsageError(f"decide(id, verdict, …) takes 'accept', 'again' or 'reject', not {verdict!r}")
        if value is not None and verdict != "accept":
            raise UsageError("decide(…, value=…) is for what is accepted")
        await self._settle(await self._waiting(id), "this review", Decision(verdict, by, why, value), by, why)


def reviews(app: Outlive) -> Reviews:
    """Give the inbox of reviews of an app, a client or a worker."""
    return Reviews(app)
