"""The inbox of approvals, for programs: which calls of tools wait for a person, and his one decision on each.

Knows the promises that `approvals` makes. Needs no agent and no worker at hand.
Invariant: a decision is checked against what the run waits for now, and is one
settlement of its promise: of two decisions one is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from outlive.agents.approvals import TOPIC
from outlive.app import Outlive
from outlive.errors import AlreadySettled, PromiseExpired, RunRefused, UsageError
from outlive.promises import OpenPromise


@dataclass(frozen=True)
class Approval:
    """A call of a tool that waits for a person: of `quorum` people of `role`, those in `votes` have approved it."""

    id: str
    run_id: str
    agent: str
    tool: str
    call_id: str
    arguments: Mapping[str, Any]
    digest: str
    role: str | None
    quorum: int
    votes: list[str]
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True)
class ApprovalPage:
    """Some open approvals; `next` is the `after` of the following page, None at the end."""

    items: list[Approval]
    next: str | None


class Approvals:
    """See `approvals`."""

    def __init__(self, app: Outlive) -> None:
        self._app = app

    async def list(self, *, run_id: str | None = None, limit: int = 100, after: str | None = None) -> ApprovalPage:
        """List the calls that wait for a person, the oldest first; of one run, or of all."""
        page = await self._app.promises(TOPIC, run_id=run_id, limit=limit, after=after)
        return ApprovalPage([_approval(one) for one in page.items], page.next)

    async def decide(
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

        `edit` replaces the arguments, which the tool validates again. With `digest`, the one of the approval that the
        person has seen, a call that has other arguments by now is refused.
        *Durable*: the decision, with who and why, before this returns. *Again*: a second decision is refused.
        *Raises* RunRefused, with the reason, where the decision does not count: nothing is changed then.
        """
        run_id, _, key = id.rpartition(" ")
        if not run_id:
            raise UsageError(f"an approval's id is that of its run, a space and its key, not {id!r}")
        if not isinstance(by, str) or not by:
            raise UsageError("decide(…, by=…) says who decides")
        if edit is not None and not approve:
            raise UsageError("a call that is denied has no arguments to edit")
        waiting = await self._find(run_id, key)
        about = waiting.about
        if about["role"] is not None and about["role"] not in roles:
            raise RunRefused(run_id, f"{by} has not the role {about['role']!r} that may approve {about['tool']}")
        if approve and by in about["votes"]:
            raise RunRefused(run_id, f"{by} has approved this call of {about['tool']} already, and another one has to")
        if digest is not None and digest != about["digest"]:
            raise RunRefused(run_id, f"the arguments of this call of {about['tool']} are others by now: look again")
        decision = {
            "approve": approve, "by": by, "why": why, "edit": None if edit is None else dict(edit),
            "digest": about["digest"], "version": about["version"],
        }  # fmt: skip
        try:
            await self._app.settle(waiting.token, decision, by=by, reason=why)
        except AlreadySettled:
            raise RunRefused(run_id, f"this call of {about['tool']} has been decided already") from None
        except PromiseExpired:
            raise RunRefused(run_id, f"nobody decided on this call of {about['tool']} in time") from None

    async def _find(self, run_id: str, key: str) -> OpenPromise:
        after: str | None = None
        while True:
            page = await self._app.promises(TOPIC, run_id=run_id, after=after)
            for one in page.items:
                if one.key == key:
                    return one
            if page.next is None:
                raise RunRefused(run_id, f"no approval {key!r} waits there: it was decided, has expired, or never was")
            after = page.next


def approvals(app: Outlive) -> Approvals:
    """Give the inbox of approvals of an app, a client or a worker."""
    return Approvals(app)


def _approval(one: OpenPromise) -> Approval:
    about = one.about
    facts = {
        name: about[name] for name in ("agent", "tool", "call_id", "arguments", "digest", "role", "quorum", "votes")
    }
    return Approval(
        f"{one.run_id} {one.key}", one.run_id, **facts, created_at=one.created_at, expires_at=one.expires_at
    )
