"""The inbox of approvals: which calls of tools wait for a person, and his one decision on each.

Knows the promises that `agents.approvals` makes. Invariant: a decision is checked against what the run waits for now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from outlive.app import Outlive
from outlive.errors import RunRefused, UsageError
from outlive.inbox import Inbox, check_person, is_person

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


class Approvals(Inbox[Approval]):
    """See `approvals`."""

    topic, item = TOPIC, Approval
    answered = "decided"

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
        check_person(by, why)
        _check(approve, roles, edit)
        waiting = await self._waiting(id)
        run_id, about = waiting.run_id, waiting.about
        if about["role"] is not None and about["role"] not in roles:
            raise RunRefused(run_id, f"{by} has not the role {about['role']!r} that may approve {about['tool']}")
        if approve and is_person(by, about["votes"]):
            raise RunRefused(run_id, f"{by} has approved this call of {about['tool']} already, and another one has to")
        if digest is not None and digest != about["digest"]:
            raise RunRefused(run_id, f"the arguments of this call of {about['tool']} are others by now: look again")
        edited = None if edit is None else dict(edit)
        decision = Decision(approve, by, why, edited, about["digest"], about["version"])
        await self._settle(waiting, f"this call of {about['tool']}", decision, by, why)


def approvals(app: Outlive) -> Approvals:
    """Give the inbox of approvals of an app, a client or a worker."""
    return Approvals(app)


def _check(approve: Any, roles: Any, edit: Any) -> None:
    """Refuse what only looks like a decision: each of these would say yes where somebody meant no."""
    if not isinstance(approve, bool):
        raise UsageError(f"decide(…, approve=…) is True or False, not {approve!r}")
    if isinstance(roles, str) or not isinstance(roles, Collection):
        raise UsageError(f"decide(…, roles=…) is a list of roles, not {roles!r}")
    if not isinstance(edit, Mapping | None) or not all(isinstance(name, str) for name in edit or ()):
        raise UsageError(f"edit=… is a mapping of arguments, by name, to values, not {edit!r}")
    if edit is not None and not approve:
        raise UsageError("a call that is denied has no arguments to edit")
