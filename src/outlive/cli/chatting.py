"""One person at a terminal in one conversation: shows what comes, takes lines, for what is asked or to say them.

Knows a screen and a keyboard; what is said goes through the public API. Invariants: a line is sent once, and is
the answer to what was asked when it was typed; leaving loses nothing, at any moment.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

from pydantic_ai.messages import FunctionToolResultEvent

from outlive import Outlive, Run
from outlive.agents.conversation import Conversation
from outlive.agents.events import AgentEvent, events
from outlive.agents.turns import Answered, BrokenOff, Listening, Said
from outlive.approvals import Approval
from outlive.cli.asking import Asking
from outlive.cli.keyboard import read_lines
from outlive.cli.screen import PERSON, Screen
from outlive.errors import OutliveError, RunEnded
from outlive.inbox import visible
from outlive.model.status import Status
from outlive.questions import Question
from outlive.reviews import Review
from outlive.views.agent_runs import read_waiting

_LOOK_S = 0.2  # how soon a person sees that he is asked
_QUIET_S = 0.4  # after which what came so far is shown, though the conversation has not said that it is all
_SILENT_S = 4.0  # the same, while nothing has come
_HELP = "/end ends the conversation, /quit leaves it, //text says a text that begins with /"
_MAY_DECIDE = Said | Answered | BrokenOff | FunctionToolResultEvent  # what was asked before it


@dataclass(frozen=True)
class _Gone:
    """What the run waited for was decided, here or elsewhere."""

    id: str


@dataclass(frozen=True)
class _Typed:
    """A line, and the id of what was asked on the screen when it came."""

    line: str
    asked: str | None


class Leave(Exception):
    """The person, or the conversation, is at its end; `says` is why."""

    def __init__(self, says: str, code: int = 0) -> None:
        super().__init__(says)
        self.says = says
        self.code = code


class Chat:
    """One conversation at one terminal. `roles`: those of the person, for approvals; `by`: who it is."""

    def __init__(self, app: Outlive, talk: Conversation, run: Run, roles: tuple[str, ...], by: str) -> None:
        self._app = app
        self._talk = talk
        self._run = run
        self._is_typed = sys.stdin.isatty()
        self._screen = Screen()
        self._asking = Asking(app, self._screen, roles, by, is_typed=self._is_typed)
        self._news: asyncio.Queue[Any] = asyncio.Queue()
        self._listens = False  # the next line is said
        self._lines: deque[str] = deque()  # typed, and not taken yet
        self._no_more = False
        self._awaited = ""  # until the conversation has told this token, what comes is the past
        self._has_shown = False
        self._is_read = asyncio.Event()  # what came so far is on the screen

    async def talk(self) -> Leave:
        """Talk until somebody leaves; give why."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._news.put_nowait, Leave("left"))
        try:
            self._awaited = await self._talk.ask_whether_it_listens(self._run)
        except RunEnded:
            self._awaited = "none"  # it hears nothing more, so no line is wanted: all that is left is to show it
        work = [asyncio.create_task(one) for one in (self._follow(), self._watch())]
        read_lines(self._hear)
        try:
            while True:
                await self._take(await self._next())
        except Leave as leaving:
            self._screen.unfold()
            self._screen.unprompt()
            for line in self._lines:
                self._screen.line(f"  ! {visible(line)!r} was not said")
            self._screen.line("")
            return leaving
        finally:
            for one in work:
                one.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    def _hear(self, line: str | None) -> None:
        asked = self._asking.current
        self._news.put_nowait(None if line is None else _Typed(line, None if asked is None else asked.id))

    async def _next(self) -> Any:
        while True:
            try:
                return await asyncio.wait_for(self._news.get(), _QUIET_S if self._has_shown else _SILENT_S)
            except TimeoutError:
                self._unfold()

    def _unfold(self) -> None:
        self._screen.unfold()
        self._is_read.set()

    async def _follow(self) -> None:
        """Bring what the conversation shows, and its end."""
        try:
            async for shown in events(self._run):
                self._news.put_nowait(shown)
            self._news.put_nowait(await self._describe_end())
        except OutliveError as error:
            self._news.put_nowait(Leave(str(error), 1))

    async def _describe_end(self) -> Leave:
        status = await self._run.status()
        if status is Status.SUCCEEDED:
            return Leave("the conversation has ended")
        return Leave(f"the conversation has ended: {await self._run.why()}", 1)

    async def _watch(self) -> None:
        """Bring what the run asks people, that it asks no more, and that it is held."""
        known: list[str] = []
        await self._is_read.wait()
        try:
            while True:
                asked = (await read_waiting(self._app, self._run.id)).in_order()
                waiting = {one.id: one for one in asked if not isinstance(one, Review)}
                for gone in [one for one in known if one not in waiting]:
                    self._news.put_nowait(_Gone(gone))
                for new in [one for one in waiting if one not in known]:
                    self._news.put_nowait(waiting[new])
                known = list(waiting)
                if (await self._run.status()).held:
                    self._news.put_nowait(Leave(await self._run.why(), 1))
                    return
                await asyncio.sleep(_LOOK_S)
        except OutliveError as error:
            self._news.put_nowait(Leave(str(error), 1))

    # -- what comes -----------------------------------------------------------------
    async def _take(self, news: Any) -> None:
        match news:
            case Leave():
                raise news
            case None:
                self._no_more = True
            case _Typed():
                await self._type(news)
            case AgentEvent():
                if isinstance(news.event, _MAY_DECIDE):
                    await self._asking.drop_decided()
                self._show(news)
            case Approval() | Question():
                self._asking.add(news)
            case _Gone(id=id):
                self._asking.drop(id)
        await self._go_on()

    async def _type(self, typed: _Typed) -> None:
        """Keep a line, or take it for the answer to what was on the screen as it was typed, and to nothing else."""
        if self._is_typed:
            self._screen.typed()
        asked = self._asking.current
        if not self._is_typed or asked is None or typed.asked is None:
            self._lines.append(typed.line)
        elif typed.asked == asked.id:
            await self._reply(typed.line)
        else:
            self._asking.ask_again(typed.line)

    def _show(self, shown: AgentEvent) -> None:
        event = shown.event
        if isinstance(event, Said) and self._asking.current is None:
            self._screen.unprompt()
        self._screen.show(shown)
        self._has_shown = True
        if isinstance(event, Said):
            self._listens = False
        elif isinstance(event, Listening) and event.token == self._awaited:
            self._unfold()
            self._listen()
        elif isinstance(event, Answered | BrokenOff) and not self._awaited:  # not before all of the past was shown
            self._listen()

    def _listen(self) -> None:
        self._awaited, self._listens = "", True
        if self._is_typed and not self._lines:
            self._screen.prompt(f"{PERSON}> ")

    async def _go_on(self) -> None:
        """Take lines that wait, for what they are wanted for; without any more, leave where one is wanted."""
        while self._lines and self._asking.current is not None and not self._is_typed:
            await self._reply(self._lines.popleft())
        while self._lines and self._listens and self._asking.current is None:
            await self._say(self._lines.popleft())
        if self._no_more and self._asking.of_others and self._asking.current is None:
            raise Leave("left, while a call waits for others")
        if self._no_more and not self._lines and (self._listens or self._asking.current is not None):
            raise Leave("left")

    async def _reply(self, line: str) -> None:
        if line.strip() == "/quit":
            raise Leave("left")
        await self._asking.reply(line)

    async def _say(self, line: str) -> None:
        text = line.strip()
        if text == "/quit":
            raise Leave("left")
        if text == "/end":
            self._listens = False
            await self._talk.end(self._run)
        elif text.startswith("/") and not text.startswith("//"):
            self._screen.line(_HELP)
            self._listen()
        elif not text:
            self._listen()
        else:
            self._listens = False
            key = await self._talk.say(self._run, text.removeprefix("/") if text.startswith("//") else text)
            if self._is_typed:
                self._screen.own.add(key)
