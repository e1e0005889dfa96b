"""Notifications of tasks: a client that listens hears of each change without asking.

Invariant: what it hears is what `tasks/get` would tell at that moment, by whatever process the change was made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import (
    INVALID_PARAMS,
    Notification,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenResult,
)

from outlive.integrations.mcp.call import Context
from outlive.integrations.mcp.tasks import FINAL
from outlive.limits import MCP_TASKS_MAX, POLL_BUSY_S, POLL_IDLE_S

Read = Callable[[str], Awaitable[dict[str, Any]]]


class TaskNotification(Notification[dict[str, Any], Literal["notifications/tasks"]]):
    """A task has changed; the parameters are the task."""

    method: Literal["notifications/tasks"] = "notifications/tasks"


async def tell_tasks(ctx: Context, wanted: Iterable[str], read: Read) -> SubscriptionsListenResult:
    """Tell each state of these tasks, the first one at once, until all have ended or the client has gone.

    Those that are not there for this caller are left out of what is acknowledged.
    """
    meta = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
    left = [one for one in dict.fromkeys(wanted) if await _try(read, one) is not None][:MCP_TASKS_MAX]
    agreed = SubscriptionFilter.model_validate({"taskIds": left} if left else {})
    acknowledged = SubscriptionsAcknowledgedNotificationParams(notifications=agreed, _meta=meta)
    await ctx.session.send_notification(
        SubscriptionsAcknowledgedNotification(params=acknowledged), related_request_id=ctx.request_id
    )
    told: dict[str, dict[str, Any]] = {}
    pause_s = POLL_BUSY_S
    while left:
        for one in list(left):
            task = await _try(read, one)
            if task is not None and task != told.get(one):
                told[one] = task
                pause_s = POLL_BUSY_S
                changed = TaskNotification(params={**task, "_meta": meta})
                await ctx.session.send_notification(changed, related_request_id=ctx.request_id)  # type: ignore[arg-type]
            if task is None or task["status"] in FINAL:
                left.remove(one)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, POLL_IDLE_S)
    return SubscriptionsListenResult(_meta=meta)


async def _try(read: Read, id: str) -> dict[str, Any] | None:
    try:
        return await read(id)
    except MCPError as error:
        if error.code != INVALID_PARAMS:
            raise
        return None  # it was never there, or has been deleted
