"""What clients are told of a run: its result or error, and how far it is.

Invariant: everything is read from the database, so any process of the server tells the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_types import CallToolResult

from outlive import Run
from outlive.errors import LeaseLost, PayloadError, RunTimedOut
from outlive.integrations.mcp.tool import WorkflowTool, failure

PROGRESS = "progress"  # the name under which a workflow publishes how far it is


async def outcome_of(run: Run, tool: WorkflowTool, wait_s: float) -> CallToolResult | None:
    """Give the outcome of a run as that of the tool, None if it has not ended within some seconds.

    Raises RunNotFound if it is deleted.
    """
    try:
        outcome = await run._outcome(wait_s)
        return tool.result(outcome.value) if outcome.error is None else failure(str(outcome.error))
    except (RunTimedOut, LeaseLost):  # which a peer continues
        return None
    except PayloadError as error:
        return failure(str(error))


@dataclass(frozen=True)
class Progress:
    """How far a run is: what it published, as `message`, `done`, or a mapping of `progress`, `total` and `message`."""

    done: float | None = None
    total: float | None = None
    message: str | None = None

    def __str__(self) -> str:
        counted = "" if self.done is None else f"{self.done:g}" + ("" if self.total is None else f" of {self.total:g}")
        return ": ".join(part for part in (counted, self.message) if part)


async def progress_of(run: Run) -> Progress:
    """Give what a run has published of its progress; nothing where that is no progress."""
    value = await run.value(PROGRESS)
    if isinstance(value, str):
        return Progress(message=value)
    facts = value if isinstance(value, Mapping) else {"progress": value}
    message = facts.get("message")
    return Progress(
        _number(facts.get("progress")), _number(facts.get("total")), message if isinstance(message, str) else None
    )


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None
