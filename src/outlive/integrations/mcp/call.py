"""A call that waits for its run: progress and questions on the way, the result at the end.

For clients that know no tasks. Invariant: the run does not depend on the call: a client that leaves, or a
server that dies, ends the wait and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, InputRequests, InputRequiredResult

from outlive import Outlive, Run
from outlive.errors import StoreUnavailable
from outlive.integrations.mcp.caller import Caller
from outlive.integrations.mcp.forms import Form, answer, list_forms
from outlive.integrations.mcp.outcome import outcome_of, progress_of
from outlive.integrations.mcp.tool import WorkflowTool
from outlive.limits import MCP_FORM_TRIES, POLL_BUSY_S, POLL_IDLE_S

log = logging.getLogger("outlive.mcp")

Context = ServerRequestContext[Any, Any]


async def wait_for_run(
    ctx: Context, app: Outlive, run: Run, tool: WorkflowTool, caller: Caller, dismissed: Collection[str] = ()
) -> CallToolResult | InputRequiredResult:
    """Wait until the run has ended, or asks a client of MCP 2026-07-28 something that is not `dismissed`.

    That client calls again with its answers. Older ones are asked while the call waits.
    """
    told, asked = ProgressTold(ctx, run), set(dismissed)  # who has closed a form without an answer is not asked again
    asking: list[asyncio.Task[None]] = []
    pause_s = POLL_BUSY_S
    try:
        while (result := await outcome_of(run, tool, pause_s)) is None:
            pause_s = min(2 * pause_s, POLL_IDLE_S)
            try:
                await told.tell()
                open_now = await list_forms(app, run.id, caller) if caller.answers_forms else {}
            except StoreUnavailable:
                continue  # to end the call would end what is being answered, too
            new = {key: form for key, form in open_now.items() if key not in asked}
            if new and caller.is_modern:
                requests: InputRequests = {key: form.request for key, form in new.items()}
                return InputRequiredResult(input_requests=requests, request_state=run.id)
            asked.update(new)
            asking += [asyncio.create_task(_ask(ctx, app, form, caller)) for form in new.values()]
        return result
    finally:
        for one in asking:  # somebody else may have answered
            one.cancel()


async def _ask(ctx: Context, app: Outlive, form: Form, caller: Caller) -> None:
    """Put a form to the client until an answer fits it; one that does not comes back with the reason."""
    message = form.message
    for _ in range(MCP_FORM_TRIES):
        try:
            response = await ctx.session.elicit_form(message, dict(form.schema), ctx.request_id)
        except MCPError as error:
            log.warning("%r was not answered by the client: %s; it stays open", form.message, error)
            break
        except ValueError:  # pydantic's, in many lines that help no person
            refused = "this is no response to a form"
        else:
            try:
                await answer(app, form, response, caller)
                break
            except MCPError as error:
                refused = str(error)
        log.warning("%r was answered by the client with what is no answer: %s", form.message, refused)
        message = f"{refused}\n{form.message}"


class ProgressTold:
    """The progress that a call has told its client, which hears of it if it asked for that: each time more."""

    def __init__(self, ctx: Context, run: Run) -> None:
        self._ctx = ctx
        self._run = run
        self._last = ""
        self._number = -1.0

    async def tell(self) -> None:
        """Tell what the run has published since."""
        progress = await progress_of(self._run)
        number = max(self._number, 0) + 1 if progress.done is None else progress.done
        if str(progress) == self._last or number <= self._number:
            return
        self._last, self._number = str(progress), number
        await self._ctx.session.report_progress(number, progress.total, progress.message)
