"""The inbox of approvals: which calls of tools wait for a person, and his one decision on each.

Knows the promises that `agents.approvals` makes. Invariant: a decision is checked against what the run waits for now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from outlive.app import Outlive
from outlive.clock import to_datetime
from outlive.errors import RunRefused, UsageError
from outlive.inbox import Inbox, check_person, is_person
from outlive.promises import OpenPromise
from outlive.questions import explain_misfit

TOPIC = "approval"


@dataclass(frozen=True)
class Approval:
    """A call of a tool that waits for a person: of `quorum` people of `role`, those in `votes` have approved it.

    `asked_at` is when the first of them was asked; each vote makes an approval of its own, with its `created_at`.
    """

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
    asked_at: datetime
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

        `edit` replaces the arguments: they have to fit the tool's schema, and the tool validates them again. `digest`
        is the one of the approval that the person has seen: a call that has other arguments by now is refused, and one
        that others have voted on since is found.
        *Durable*: the decision, with who and why, before this returns. *Again*: a second decision is refused.
        *Raises* RunRefused, with the reason, where the decision does not count: nothing is changed then.
        """
        check_person(by, why)
        _check(approve, roles, edit)
        waiting = await self._waiting_now(id, digest)
        run_id, about = waiting.run_id, waiting.about
        if about["role"] is not None and about["role"] not in roles:
            raise RunRefused(run_id, f"{by} has not the role {about['role']!r} that may approve {about['tool']}")
        if approve and is_person(by, about["votes"]):
            raise RunRefused(run_id, f"{by} has approved this call of {about['tool']} already, and another one has to")
        if digest is not None and digest != about["digest"]:
            raise RunRefused(run_id, f"the arguments of this call of {about['tool']} are others by now: look again")
        edited = None if edit is None else dict(edit)
        problem = None if edited is None else explain_misfit(about.get("schema") or {}, edited)
        if problem is not None:
            raise RunRefused(run_id, f"these are no arguments of {about['tool']}: {problem}")
        decision = Decision(approve, by, why, edited, about["digest"], about["version"])
        facts = {"decided": "approve" if approve else "deny"} | ({} if edited is None else {"edit": edited})
        await self._settle(waiting, f"this call of {about['tool']}", decision, by, why, facts)

    def _read(self, one: OpenPromise) -> Approval:
        return replace(super()._read(one), asked_at=to_datetime(one.about["asked_at"]))

    async def find(self, id: str, *, digest: str | None = None) -> Approval | None:
        """Find what waits, by its id; None if it was decided, has expired, or never was.

        With the `digest` that was seen also if others have voted since then.
        """
        found = await super().find(id)
        return found if found is not None or digest is None else await self._find_next(id, digest)

    async def _waiting_now(self, id: str, digest: str | None) -> OpenPromise:
        run_id, key = self._place(id)
        found = await self._app.find_promise(run_id, key)
        if found is None and digest is not None and (following := await self._find_next(id, digest)) is not None:
            return await self._waiting(following.id)
        return await self._waiting(id)

    async def _find_next(self, id: str, digest: str) -> Approval | None:
        """Find what a vote has put in the place of an approval; where votes began anew, the numbers do not fit."""
        call, _, number = id.rpartition("#")
        after: str | None = None
        while True:
            page = await self.list(run_id=self._place(id)[0], after=after)
            for one in page.items:
                same, _, later = one.id.rpartition("#")
                if same == call and one.digest == digest and int(later) == len(one.votes) + 1 > int(number):
                    return one
            if page.next is None:
                return None
            after = page.next


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
