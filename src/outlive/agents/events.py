"""What an agent shows while it works, for programs: its events, in order, from any process, and the text they make.

Knows the stream that `streams` fills; needs no agent and no worker at hand.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_ai.messages import AgentStreamEvent, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

from outlive.agents.streams import STREAM, StreamReset, event_type
from outlive.agents.turns import TurnEvent
from outlive.errors import DecodeFailed
from outlive.run import Run


@dataclass(frozen=True)
class AgentEvent:
    """An event of a run's agents: of a model request, whose key `step` is, or of the tools of the agent run `step`.

    Those of a conversation itself (`Said`, `Answered`, `BrokenOff`, `Listening`) have no step.
    """

    seq: int
    step: str
    event: AgentStreamEvent | StreamReset | TurnEvent


@dataclass(frozen=True)
class StepText:
    """The text that a model request has given so far, all of it."""

    step: str
    text: str


async def events(run: Run, after: int = 0) -> AsyncIterator[AgentEvent]:
    """Iterate over what the streaming agents of a run show, past and future, until the run has ended or is gone.

    To go on later or elsewhere, give the `seq` of the last event seen as `after`. At a `StreamReset` drop what you
    have shown of its step: a crash or a failure interrupted it, and it comes anew.
    *Raises* RunNotFound; DecodeFailed for an event that this release of Pydantic AI does not know.
    """
    async for item in run.stream(STREAM, after):
        try:
            event = event_type().validate_python(item.value["event"])
        except ValidationError as error:
            raise DecodeFailed(f"event {item.seq} of run {run.id!r} is of another Pydantic AI: {error}") from error
        yield AgentEvent(item.seq, item.value["step"], event)


async def texts(run: Run) -> AsyncIterator[StepText]:
    """Iterate over the text of a run's model requests as it grows; it is shorter again where one began anew."""
    steps: dict[str, dict[int, str]] = {}
    async for shown in events(run):
        parts = steps.setdefault(shown.step, {})
        match shown.event:
            case StreamReset() if parts:
                parts.clear()
            case PartStartEvent(index=index, part=TextPart(content=content)):
                parts[index] = content
            case PartDeltaEvent(index=index, delta=TextPartDelta(content_delta=more)):
                parts[index] += more
            case _:
                continue
        yield StepText(shown.step, "".join(parts.values()))
