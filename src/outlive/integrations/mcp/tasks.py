"""A run as a task of the MCP extension `io.modelcontextprotocol/tasks` (SEP-2663, version 2026-07-28).

The task's id is the run's, its state is that of the run now. Invariant: nothing of a task is kept here, so
a process that has never seen it tells the same as the one that started it.
"""

from __future__ import annotations

from typing import Any

from mcp_types import ElicitResult, RequestParams

from outlive import Outlive, Run, RunInfo, Status
from outlive.integrations.mcp.caller import Caller
from outlive.integrations.mcp.forms import list_forms
from outlive.integrations.mcp.outcome import outcome_of, progress_of
from outlive.integrations.mcp.tool import WorkflowTool
from outlive.limits import POLL_IDLE_S

FINAL = ("completed", "cancelled")  # `failed` is for errors of the protocol: a run that fails completes with an error
_READ_S = 5.0  # an end that was seen is read at once, unless somebody has retried the run since
_HELD = "It is held, and goes on when a person has looked at it."


class TaskParams(RequestParams):
    """Which task is meant."""

    task_id: str


class UpdateTaskParams(TaskParams):
    """The answers to what a task asked, by the keys of its requests."""

    input_responses: dict[str, ElicitResult]


def new_task(run: Run, info: RunInfo) -> dict[str, Any]:
    """Give what answers the call of a tool whose run has just been started, or has been there."""
    return {"resultType": "task", **_describe(run, info), "status": "working"}


async def read_task(app: Outlive, run: Run, info: RunInfo, tool: WorkflowTool, caller: Caller) -> dict[str, Any]:
    """Give the state of a task, with its result or with what it asks of this caller."""
    task = _describe(run, info)
    result = await outcome_of(run, tool, _READ_S) if info.status.final else None
    if result is not None and info.status is Status.CANCELLED:
        return task | {"status": "cancelled", "statusMessage": result.content[0].text}  # type: ignore[union-attr]
    if result is not None:
        return task | {
            "status": "completed",
            "result": result.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
    held = info.status in (Status.PAUSED, Status.QUARANTINED)
    message = _HELD if held else str(await progress_of(run))
    state: dict[str, Any] = {"status": "working", **({"statusMessage": message} if message else {})}
    forms = await list_forms(app, run.id, caller) if caller.answers_forms else {}
    if forms:
        asked = {
            key: one.request.model_dump(mode="json", by_alias=True, exclude_none=True) for key, one in forms.items()
        }
        state |= {"status": "input_required", "inputRequests": asked}
    return task | state


def _describe(run: Run, info: RunInfo) -> dict[str, Any]:
    changed = info.finished_at or info.started_at or info.created_at
    return {
        "taskId": run.id,
        "createdAt": info.created_at.isoformat(),
        "lastUpdatedAt": changed.isoformat(),
        "ttlMs": None,  # how long a run is kept is the operator's decision
        "pollIntervalMs": int(POLL_IDLE_S * 1000),
    }
