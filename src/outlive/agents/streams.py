"""What an agent shows while it works, in the run: events of its model requests and tools, appended to a stream.

`events` is the other side. Knows who executes what, and when that is shown; must
not know what an event means. A model request shows its events while it
executes, before there is an entry: under the owner's fence, in batches. What
comes after it, calls of tools and their results, is shown by the workflow.
Invariants: an item is in the stream once, by its key; all that a request has
shown is on disk with its entry; what is executed again says so first.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, TypeAdapter
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    TextPartDelta,
    ThinkingPartDelta,
    ToolCallPartDelta,
)
from pydantic_ai.tools import RunContext

from outlive.agents.turns import TurnEvent
from outlive.agents.units import Unit
from outlive.codec.payload import encode
from outlive.codec.plain import storable
from outlive.engine.bodies import executing_step
from outlive.engine.branch import Branch
from outlive.engine.roles import LiveRun
from outlive.limits import STREAM_DELTA_CHARS, STREAM_FLUSH_S
from outlive.model.mail import NewItem

STREAM = "agent.events"
OF_MODEL: tuple[type, ...] = get_args(get_args(ModelResponseStreamEvent)[0])


@dataclass(frozen=True)
class StreamReset:
    """A step is executed again: what readers have shown of it is void, and comes anew."""

    event_kind: Literal["stream_reset"] = "stream_reset"


@functools.cache
def event_type() -> TypeAdapter[AgentStreamEvent | StreamReset | TurnEvent]:
    """Give what reads events; made late, for it knows only those events of applications that are defined by then."""
    return TypeAdapter(Annotated[AgentStreamEvent | StreamReset | TurnEvent, Discriminator("event_kind")])


_type_of: Callable[[type], TypeAdapter[Any]] = functools.cache(TypeAdapter)


async def show_model(_: RunContext[Any], events: AsyncIterable[Any]) -> None:
    """Show what the model of the executing unit says, as it says it."""
    step = executing_step()
    unit: Unit = step.args[0]
    live = LiveStep(step.execution, step.key, again=unit.again or step.attempts > 1)
    try:
        async for event in events:
            live.add(event)
    finally:
        live.flush()


class LiveStep:
    """What one attempt of a model request has said and not shown yet: deltas of one part are joined meanwhile."""

    def __init__(self, run: LiveRun, key: str, *, again: bool) -> None:
        self._run = run
        self._key = key
        self._pending: list[ModelResponseStreamEvent | StreamReset] = []
        self._timer: asyncio.TimerHandle | None = None
        if again:
            self._pending.append(StreamReset())
            self.flush()

    def add(self, event: ModelResponseStreamEvent) -> None:
        """Show an event soon."""
        joined = _join(self._pending[-1], event) if self._pending else None
        if joined is None:
            self._pending.append(event)
        else:
            self._pending[-1] = joined
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(STREAM_FLUSH_S, self.flush)

    def flush(self) -> None:
        """Show what is pending: what a run adds from now on comes to disk later, its entry too."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, []
        new_key = self._run.engine.new_row  # a number that nobody draws twice
        _append(self._run, *(_item(self._run, self._key, str(new_key()), event) for event in pending))


def show_once(run: LiveRun, scope: Branch, event: Any) -> None:
    """Show an event of the workflow, again on replay only where it may be lost: the key then tells that it is there.

    What was added before an entry was written is on disk with it. A transaction writes its own entry, so it says
    nothing of what was added before; nor does what edited code has left unread, and gone beyond.
    """
    key = scope.key(f"{event.event_kind}({getattr(event, 'tool_call_id', '')})")
    later = (entry for entry in run.journal.unread.values() if (entry.seq or 0) > run.journal.read_up_to)
    if run.recorder.outcomes or all(entry.kind == "transaction" for entry in later):
        generation = run.generation if run.recorder.outcomes else run.journal.generation
        _append(run, _item(run, scope.scope.removesuffix("/"), f"{generation}/{key}", event))


def _append(run: LiveRun, *items: NewItem) -> None:
    if items and not run.closed and not run.loop.unwinding:
        run.engine.committer.add_sides(run, items)


def _item(run: LiveRun, step: str, key: str, event: Any) -> NewItem:
    is_delta = isinstance(event, PartDeltaEvent)  # there are many; in any other event a None may mean something
    told = _type_of(type(event)).dump_python(event, mode="json", exclude_none=is_delta, fallback=str)
    shown = {"step": step, "event": storable(told)}
    codec = run.engine.codec
    return NewItem(run.row, None, STREAM, encode(codec, shown, where="an event of an agent"), codec.id, key)


def _join(last: Any, event: Any) -> PartDeltaEvent | None:
    """Give two deltas of one part as one, None if they are no such thing, or too long."""
    if not isinstance(last, PartDeltaEvent) or not isinstance(event, PartDeltaEvent) or last.index != event.index:
        return None
    delta = _join_deltas(last.delta, event.delta)
    return None if delta is None else replace(last, delta=delta)


def _join_deltas(one: Any, two: Any) -> Any:
    name = _TEXT_OF.get(type(one))
    if name is None or type(two) is not type(one):
        return None
    text, more, rest = getattr(one, name), getattr(two, name), _rest(one, name)
    if not isinstance(text, str) or not isinstance(more, str) or len(text) + len(more) > STREAM_DELTA_CHARS:
        return None
    if rest != _rest(two, name) or not rest.keys() <= _NAMES_PART:
        return None
    return replace(one, **{name: text + more})


def _rest(delta: Any, text: str) -> dict[str, Any]:
    """Give what a delta says beside its text."""
    said = {one.name: getattr(delta, one.name) for one in fields(delta) if one.name not in (text, "part_delta_kind")}
    return {name: value for name, value in said.items() if value is not None}


_TEXT_OF: dict[type, str] = {
    TextPartDelta: "content_delta",
    ThinkingPartDelta: "content_delta",
    ToolCallPartDelta: "args_delta",
}
_NAMES_PART = {"tool_call_id", "provider_name"}  # what may be said twice; all else adds to a part, or replaces
