"""Repeated actions: an agent that calls its tools as it did before, and hears what it heard before, is stopped.

Decided from the conversation alone, so replay decides the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_ai.capabilities.abstract import AbstractCapability
from pydantic_ai.messages import ModelMessage, RetryPromptPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import AgentDepsT, RunContext

from outlive.errors import RepeatedAction
from outlive.model.options import check_count


@dataclass
class NoRepeats(AbstractCapability[AgentDepsT]):
    """Ends an agent that learns nothing new: `agent.run(…, capabilities=[NoRepeats()])`, or of the agent itself.

    The last `times` calls were made before, with the same arguments, and were answered in the same words. An answer
    that differs, one new call, or another prompt, and counting begins anew. *Raises* RepeatedAction, out of the run of
    the agent.
    """

    times: int = 3

    def __post_init__(self) -> None:
        check_count("NoRepeats(times=…)", self.times)

    async def before_model_request(
        self, ctx: RunContext[AgentDepsT], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        last, times = count_repeats(ctx.messages)
        if times >= self.times:
            raise RepeatedAction(last, times)
        return request_context


def count_repeats(messages: Sequence[ModelMessage]) -> tuple[str, int]:
    """Give the tool called last, and how many calls, up to that one, brought nothing new since somebody last spoke."""
    calls: dict[str, ToolCallPart] = {}
    seen, last, times = set[tuple[str, str, str]](), "", 0
    for message in messages:
        for part in message.parts:
            if isinstance(part, UserPromptPart):
                seen, last, times = set(), "", 0
            elif isinstance(part, ToolCallPart):
                calls[part.tool_call_id] = part
            elif isinstance(part, ToolReturnPart | RetryPromptPart) and part.tool_call_id in calls:
                call = calls[part.tool_call_id]
                said = (call.tool_name, _text(call.args_as_dict()), _text(part.content))
                last, times = call.tool_name, times + 1 if said in seen else 0
                seen.add(said)
    return last, times


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
