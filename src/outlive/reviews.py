"""Reviews: what a guard has stopped waits until a person accepts it, lets the agent go on, or rejects it.

A promise of the topic `review` tells why, and the facts by which to decide. Invariants:
only what is a decision decides, and once; nobody's in time is a rejection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec

from outlive.app import Outlive
from outlive.clock import Duration
from outlive.errors import PromiseExpired, StepFailed, UsageError
from outlive.inbox import Inbox, check_person
from outlive.messages import await_or_withdraw, promise

TOPIC = "review"
Verdict = Literal["accept", "again", "reject"]


@dataclass(frozen=True)
class Decision:
    """What settles the promise of a review; `value` is accepted in place of what there is."""

    verdict: Verdict
    by: str | None
    why: str | None
    value: Any


# -- in workflow bodies ---------------------------------------------------------
async def ask_for_review(what: str, reason: str, facts: Mapping[str, Any], expires: Duration) -> Decision:
    """Wait, in a workflow, until a person has decided; for days if need be."""
    while True:
        try:
            made = await promise(expires, topic=TOPIC, about={"what": what, "reason": reason, "facts": facts})
            return msgspec.convert(await await_or_withdraw(made), Decision)
        except PromiseExpired:
            return Decision("reject", None, None, None)
        except StepFailed as rejected:
            return Decision("reject", "somebody", str(rejected), None)
        except msgspec.ValidationError:  # whoever has the token may settle the promise with anything
            continue


# -- in programs ----------------------------------------------------------------
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
        decision = Decision(verdict, by, why, value)
        await self._settle(await self._waiting(id), "this review", decision, by, why, {"decided": verdict})


def reviews(app: Outlive) -> Reviews:
    """Give the inbox of reviews of an app, a client or a worker."""
    return Reviews(app)
