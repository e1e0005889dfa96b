"""Conversations: a durable agent that a person talks to, turn by turn; each conversation is one run.

A workflow that receives what the person says next and lets the agent answer it, with all that was
said before. It knows messages and durable agents; who talks, and by which program, it must not know.
Invariants: what was sent is answered once, in the order of the mailbox; the history is what the
journal tells, so a turn adds its own entries and nothing else; a turn that fails ends no conversation.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

import msgspec
from pydantic import TypeAdapter
from pydantic_ai import capture_run_messages
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter

from outlive.agents.durable import DurableAgent
from outlive.agents.streams import show_once
from outlive.agents.turns import Answered, BrokenOff, Listening, Said, TurnEvent
from outlive.clock import Duration
from outlive.codec.payload import CallShape
from outlive.codec.plain import storable
from outlive.definitions import Workflow, in_workflow
from outlive.errors import PayloadTooLarge, UsageError
from outlive.messages import receive
from outlive.model.agentkeys import CHAT
from outlive.model.definition import WorkflowSpec
from outlive.model.options import check_count, check_wait
from outlive.run import Run
from outlive.version import version_of
from outlive.versions import continue_as_new

log = logging.getLogger("outlive.agents")

TOPIC = CHAT
_OVER: Any = object()
_AS_JSON: TypeAdapter[Any] = TypeAdapter(Any)


class _Heard(msgspec.Struct):
    """A message of the topic: one of these is given."""

    say: str | None = None
    key: str = ""
    hello: str | None = None
    end: bool = False


class Conversation(Workflow[..., int]):
    """A workflow whose runs are conversations with an agent, see `conversation`. Its result is the number of turns."""

    def __init__(self, agent: DurableAgent[Any, Any], name: str, idle: Duration | None, turns_kept: int) -> None:
        self.agent = agent
        self._idle = idle
        self._turns_kept = turns_kept

        async def converse(history: list[Any] | None = None, turns: int = 0) -> int:
            return await self._converse(ModelMessagesTypeAdapter.validate_python(history or []), turns)

        super().__init__(
            WorkflowSpec(
                function=converse,
                name=f"{CHAT}.{name}",
                is_async=True,
                shape=CallShape(converse),
                site=agent.spec.site,
                version=f"{version_of(Conversation._converse)}-{agent.spec.version}",
                is_only_one=agent.spec.is_only_one,
            )
        )

    # -- in programs ----------------------------------------------------------------
    async def say(self, run: Run, text: str, *, key: str | None = None) -> str:
        """Say something in a conversation; return, with its key, when that is in the run's mailbox.

        `events(run)` tells the answer, behind a `Said` with that key. *Durable*: it is answered whatever dies, unless
        the conversation has been told to end before, or ends of silence meanwhile: then there is no such `Said`.
        *Again*: words with a `key` that the conversation has had are not heard a second time. *Raises* RunNotFound;
        RunEnded after the end.
        """
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f"say(run, text) says something, not {text!r}")
        key = key or uuid.uuid4().hex
        await run.send(TOPIC, {"say": storable(text), "key": key}, key)
        return key

    async def ask_whether_it_listens(self, run: Run) -> str:
        """Let the conversation tell when all that was sent before is answered: a `Listening` with the token given here.

        *Raises* RunNotFound; RunEnded after the end.
        """
        token = uuid.uuid4().hex
        await run.send(TOPIC, {"hello": token})
        return token

    async def end(self, run: Run) -> None:
        """End a conversation behind all that was said before. *Raises* RunNotFound; RunEnded after the end."""
        await run.send(TOPIC, {"end": True})

    # -- in the run -----------------------------------------------------------------
    async def _converse(self, messages: list[ModelMessage], turns: int) -> int:
        began_with = turns
        while True:
            given = await receive(TOPIC, self._idle, default=_OVER)
            if given is _OVER:
                return turns
            try:
                heard = msgspec.convert(given, _Heard)
            except msgspec.ValidationError:  # whoever reaches the database may send anything
                continue
            if heard.hello is not None:
                _show(Listening(turns, heard.hello))
            if heard.end:
                return turns
            if heard.say is None:
                continue
            turns += 1
            _show(Said(turns, heard.say, heard.key))
            messages = await self._answer(turns, heard.say, messages)
            if turns - began_with >= self._turns_kept:
                try:
                    await continue_as_new(ModelMessagesTypeAdapter.dump_python(messages, mode="json"), turns)
                except PayloadTooLarge as error:
                    log.warning(
                        "conversation %r keeps its generation: %s", in_workflow("agents.conversation").id, error
                    )
                    began_with = turns

    async def _answer(self, turn: int, text: str, messages: list[ModelMessage]) -> list[ModelMessage]:
        """Let the agent answer; give all messages with those of this turn, of a broken one as far as it came."""
        with capture_run_messages() as told:
            try:
                result = await self.agent.run(text, message_history=messages)
            except UsageError:  # the code has to change: the run fails, and goes on with `retry`
                raise
            except Exception as error:  # noqa: BLE001 - whatever it was, the person may say something else
                _show(BrokenOff(turn, f"{type(error).__name__}: {error}"))
                return list(told) or messages
        output = _AS_JSON.dump_python(result.output, mode="json", fallback=str)
        shown = output if isinstance(output, str) else msgspec.json.encode(output).decode()
        _show(Answered(turn, shown, output))
        return result.all_messages()


def _show(event: TurnEvent) -> None:
    run = in_workflow("agents.conversation")
    show_once(run, run.loop.branch(), event)


def conversation(
    agent: DurableAgent[Any, Any], *, name: str | None = None, idle: Duration | None = None, turns_kept: int = 100
) -> Conversation:
    """Make conversations of a durable agent: a workflow, called `chat.<name>`, of which each run is a conversation.

    `app.start(conversation(durable(agent, stream=True)), id="chat-1")` begins one; `.say(run, text)` says something,
    `events(run)` tells what the agent says and does, `.end(run)` ends it, as does silence for `idle`. `name` is else
    that of the agent.
    *Durable*: each thing said, each answer of the model, each result of a tool, one entry each; the history is made of
    them. After `turns_kept` turns the run continues as new, with the history as its argument, if that is not too large.
    *Again*: a crash loses nothing and says nothing twice; a model request that it interrupted is sent again. What the
    agent's run raises ends the turn, and the next one knows what was done by then; a UsageError fails the run.
    A budget of the agent is that of each turn; one with an `account` is that of all.
    """
    if not isinstance(agent, DurableAgent):
        raise UsageError(f"conversation(agent) takes a durable agent, durable(agent), not {agent!r}")
    check_count("conversation(turns_kept=…)", turns_kept)
    check_wait(idle, "idle=…")
    return Conversation(agent, name or agent.name, idle, turns_kept)
