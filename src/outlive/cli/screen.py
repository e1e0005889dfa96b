"""How a conversation looks on a terminal: events of its stream become text, as they come.

Knows events, no run and no keyboard. What came before a person looked is folded first: of an answer that was
interrupted and given anew, only what counts is shown. Afterwards nothing can be taken back, so an interruption is told.
"""

from __future__ import annotations

from typing import Any

import click
from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)

from outlive.agents.events import AgentEvent
from outlive.agents.streams import StreamReset
from outlive.agents.turns import Answered, BrokenOff, Listening, Said
from outlive.cli.output import as_json, cut
from outlive.inbox import visible
from outlive.views.agent_journal import agent_of

_RESULT_MAX_CHARS = 200
PERSON = "you"


class Screen:
    """What is shown of one conversation. `own`: keys of what was typed here, which the terminal has shown already."""

    def __init__(self) -> None:
        self.own: set[str] = set()
        self._folded: list[tuple[str, str]] | None = []  # lines by the step that they are of, until `unfold`
        self._at: tuple[str, int] | None = None  # the text that ends without a line's end: step and part
        self._prompt = ""  # what is to be typed behind
        self._is_asking = False  # the cursor stands behind it
        self._has_text: set[str] = set()  # steps of which a text is shown
        self._says = False  # a text of this turn was shown

    def unfold(self) -> None:
        """Show what came so far, and all that comes as it comes."""
        if self._folded is None:
            return
        folded, self._folded = self._folded, None
        for place, (step, text) in enumerate(folded):
            is_open = place == len(folded) - 1 and self._at is not None and step == self._at[0]
            click.echo(text, nl=not is_open)

    def line(self, text: str, step: str = "") -> None:
        """Show a line of its own."""
        self._break()
        self._put(step, text)
        self._ask()

    def prompt(self, text: str) -> None:
        """Show what an answer is to be typed behind, and again behind whatever is shown until then."""
        self._break()
        self._prompt = text
        self._ask()

    def unprompt(self) -> None:
        """Ask no more."""
        self._prompt = ""

    def typed(self) -> None:
        """Take note that a person has typed a line, behind which the terminal is at the beginning of the next one."""
        self._prompt, self._is_asking = "", False

    def show(self, shown: AgentEvent) -> None:
        """Show an event."""
        self._show(shown)
        self._ask()

    def _show(self, shown: AgentEvent) -> None:
        step = shown.step
        match shown.event:
            case Said(text=text, key=key):
                self._says = False
                if key not in self.own:
                    self.line(f"{PERSON}> {visible(text)}")
            case Answered(text=text):
                if not self._says:  # a model that does not stream, or output that is no text
                    self.line(f"agent> {visible(text)}")
                self._break()
            case BrokenOff(error=error):
                self.line(f"  ! no answer: {cut(error)}")
            case Listening():
                self._break()
            case StreamReset():
                self._void(step)
            case PartStartEvent(index=index, part=TextPart(content=content)):
                self._break()
                self._put(step, f"{_name(step)}> {visible(content)}", nl=False)
                self._at = (step, index)
                self._has_text.add(step)
                self._says = True
            case PartDeltaEvent(index=index, delta=TextPartDelta(content_delta=more)):
                self._add(step, index, visible(more))
            case PartEndEvent(index=index) if self._at == (step, index):
                self._break()
            case FunctionToolCallEvent(part=part):
                self.line(f"  . {visible(part.tool_name)} {as_json(part.args_as_dict(), _RESULT_MAX_CHARS)}", step)
            case FunctionToolResultEvent(part=part):
                self.line(f"  = {visible(part.tool_name)}: {cut(_plain(part.content), _RESULT_MAX_CHARS)}", step)
            case _:
                pass

    def _put(self, step: str, text: str, *, nl: bool = True) -> None:
        if self._folded is None:
            click.echo(text, nl=nl)
        else:
            self._folded.append((step, text))

    def _add(self, step: str, index: int, more: str) -> None:
        if self._at != (step, index):  # somebody else has said something meanwhile
            self._break()
            self._put(step, f"{_name(step)}> …", nl=False)
            self._at = (step, index)
        if self._folded is None:
            click.echo(more, nl=False)
        else:
            self._folded[-1] = (step, self._folded[-1][1] + more)

    def _break(self) -> None:
        if (self._at is not None and self._folded is None) or self._is_asking:
            click.echo()
        self._at, self._is_asking = None, False

    def _ask(self) -> None:
        if self._prompt and not self._is_asking and self._at is None:
            click.echo(self._prompt, nl=False)
            self._is_asking = True

    def _void(self, step: str) -> None:
        """Take back what a step has shown, or say that it comes anew."""
        if self._folded is not None:
            self._folded = [one for one in self._folded if one[0] != step]
            self._at = None if self._at is None or self._at[0] == step else self._at
        elif step in self._has_text:
            self.line("  (interrupted; the answer comes anew)")
        self._has_text.discard(step)


def _name(step: str) -> str:
    return visible(agent_of(step.rpartition("/")[0])) or "agent"


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else as_json(content, max_chars=None)
