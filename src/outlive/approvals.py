"""The inbox of approvals, for programs: which calls of tools wait for a person, and his one decision on each.

Knows the promises that `agents.approvals` makes; needs no agent, no worker and no extra.
Invariant: a decision is checked against what the run waits for now, and is one
settlement of its promise: of two decisions one is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from outlive.app import Outlive
from outlive.errors import AlreadySettled, PromiseExpired, PromiseNotFound, RunRefused, UsageError
from outlive.promises import OpenPromise

TOPIC = "approval"


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
class Decision:
    """What settles the promise of an approval: one vote on the call whose arguments and tool these stand for."""

    approve: bool
    by: str
    why: str | None
    edit: dict[str, Any] | None
    digest: str
    version: str


@dataclass(frozen=True)
class ApprovalPage:
    """Some open approvals; `next` is the `after` of the following page, None at the end."""

    items: list[Approval]
    next: str | None


class Approvals:
    """See `approvals`."""

    def __init__(self, app: Outlive) -> None:
        if not isinstance(app, Outlive):
            raise UsageError(f"approvals(app) takes an outlive.Outlive, open in an event loop, not {app!r}")
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
        run_id, key = _place(id)
        _check(approve, by, roles, edit)
        waiting = await self._app.find_promise(run_id, key)
        if waiting is None or waiting.topic != TOPIC:
            raise RunRefused(run_id, f"no approval {key!r} waits there: it was decided, has expired, or never was")
        about = waiting.about
        if about["role"] is not None and about["role"] not in roles:
            raise RunRefused(run_id, f"{by} has not the role {about['role']!r} that may approve {about['tool']}")
        if approve and by in about["votes"]:
            raise RunRefused(run_id, f"{by} has approved this call of {about['tool']} already, and another one has to")
        if digest is not None and digest != about["digest"]:
            raise RunRefused(run_id, f"the arguments of this call of {about['tool']} are others by now: look again")
        edited = None if edit is None else dict(edit)
        decision = Decision(approve, by, why, edited, about["digest"], about["version"])
        try:
            await self._app.settle(waiting.token, decision, by=by, reason=why)
        except AlreadySettled:
            raise RunRefused(run_id, f"this call of {about['tool']} has been decided already") from None
        except PromiseExpired:
            raise RunRefused(run_id, f"nobody decided on this call of {about['tool']} in time") from None
        except PromiseNotFound:
            raise RunRefused(run_id, f"this call of {about['tool']} has been taken back") from None

    async def find(self, id: str) -> Approval | None:
        """Find a call that waits, by its id; None if it was decided, has expired, or never was."""
        waiting = await self._app.find_promise(*_place(id))
        return _approval(waiting) if waiting is not None and waiting.topic == TOPIC else None


def approvals(app: Outlive) -> Approvals:
    """Give the inbox of approvals of an app, a client or a worker."""
    return Approvals(app)


def visible(text: str) -> str:
    """Give a text for the eyes of who decides: what cannot be seen, or turns the text around, as its number."""
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)


def _place(id: str) -> tuple[str, str]:
    run_id, _, key = id.rpartition(" ") if isinstance(id, str) else ("", "", "")
    if not run_id:
        raise UsageError(f"an approval's id is that of its run, a space and its key, not {id!r}")
    return run_id, key


def _check(approve: Any, by: Any, roles: Any, edit: Any) -> None:
    """Refuse what only looks like a decision: each of these would say yes where somebody meant no."""
    if not isinstance(approve, bool):
        raise UsageError(f"decide(…, approve=…) is True or False, not {approve!r}")
    if not isinstance(by, str) or not by:
        raise UsageError("decide(…, by=…) says who decides")
    if isinstance(roles, str) or not isinstance(roles, Collection):
        raise UsageError(f"decide(…, roles=…) is a list of roles, not {roles!r}")
    if not isinstance(edit, Mapping | None):
        raise UsageError(f"edit=… is a mapping of arguments to values, not {edit!r}")
    if edit is not None and not approve:
        raise UsageError("a call that is denied has no arguments to edit")


def _approval(one: OpenPromise) -> Approval:
    about = one.about
    facts = {
        name: about[name] for name in ("agent", "tool", "call_id", "arguments", "digest", "role", "quorum", "votes")
    }
    return Approval(
        f"{one.run_id} {one.key}", one.run_id, **facts, created_at=one.created_at, expires_at=one.expires_at
    )
