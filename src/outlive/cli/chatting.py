"""One person at a terminal in one conversation: shows what comes, takes lines, decides and answers what waits.

Knows a screen and a keyboard; what is said and decided goes through the public API. Invariants: a line is
sent once, and is the answer to what was asked when it was typed; leaving loses nothing, at any moment.
"""

from __future__ import annotations

import asyncio
import json
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
from outlive.approvals import Approval, approvals, visible
from outlive.cli.keyboard import read_lines
from outlive.cli.output import as_json
from outlive.cli.screen import PERSON, Screen
from outlive.errors import OutliveError, RunEnded, RunRefused, UsageError
from outlive.model.status import Status
from outlive.questions import Question, questions

_LOOK_S = 0.2  # how soon a person sees that he is asked
_QUIET_S = 0.4  # after which what came so far is shown, though the conversation has not said that it is all
_HELP = "/end ends the conversation, /quit leaves it, //text says a text that begins with /"
_YES_NO = {"y": True, "yes": True, "n": False, "no": False}


@dataclass(frozen=True)
class _Gone:
    """What the run waited for was decided, here or elsewhere."""

    id: str


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
        self._roles = roles
        self._by = by
        self._screen = Screen()
        self._news: asyncio.Queue[Any] = asyncio.Queue()
        self._asked: Approval | Question | None = None  # what the next line answers
        self._edits = False  # the next line is the arguments of the approval
        self._listens = False  # the next line is said
        self._lines: deque[str] = deque()  # typed, and not taken yet
        self._no_more = False
        self._is_typed = sys.stdin.isatty()
        self._awaited = ""  # until the conversation has told this token, what comes is the past
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
        read_lines(self._news.put_nowait)
        try:
            while True:
                await self._take(await self._next())
        except Leave as leaving:
            self._screen.unfold()
            self._screen.line("")
            return leaving
        finally:
            for one in work:
                one.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _next(self) -> Any:
        while True:
            try:
                return await asyncio.wait_for(self._news.get(), _QUIET_S)
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
        known: set[str] = set()
        await self._is_read.wait()
        try:
            while True:
                asked = (await approvals(self._app).list(run_id=self._run.id)).items
                questioned = (await questions(self._app).list(run_id=self._run.id)).items
                waiting: dict[str, Approval | Question] = {one.id: one for one in asked}
                waiting |= {one.id: one for one in questioned}
                for gone in known - waiting.keys():
                    self._news.put_nowait(_Gone(gone))
                for one in waiting.keys() - known:
                    self._news.put_nowait(waiting[one])
                known = set(waiting)
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
            case str():
                await self._type(news)
            case AgentEvent():
                self._show(news)
            case Approval() | Question():
                self._ask(news)
            case _Gone(id=id):
                if self._asked is not None and self._asked.id == id:
                    self._forget_question()
        await self._go_on()

    async def _type(self, line: str) -> None:
        """Keep a line; one that was typed before anything was asked answers no question and approves nothing."""
        if self._is_typed:
            self._screen.typed()
        if self._is_typed and self._asked is not None:
            await self._reply(self._asked, line)
        else:
            self._lines.append(line)

    def _show(self, shown: AgentEvent) -> None:
        event = shown.event
        if self._asked is not None and _decides(event, self._asked):
            self._forget_question()
        self._screen.show(shown)
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
        while self._lines and self._asked is not None and not self._is_typed:
            await self._reply(self._asked, self._lines.popleft())
        while self._lines and self._listens and self._asked is None:
            await self._say(self._lines.popleft())
        if self._no_more and not self._lines and (self._listens or self._asked is not None):
            raise Leave("left")

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

    def _forget_question(self) -> None:
        """Let the next line answer nothing: somebody else has decided."""
        self._screen.line("  (decided)")
        self._asked, self._edits = None, False

    # -- what is asked --------------------------------------------------------------
    def _ask(self, one: Approval | Question) -> None:
        if isinstance(one, Question):
            self._screen.line(f"  ? {visible(one.question)}" + (f" ({one.problem})" if one.problem else ""))
            self._asked = one
            self._prompt(f"  answer, {as_json(one.schema)}, or /decline> ")
            return
        self._screen.line(f"  ? {visible(one.tool)} {as_json(one.arguments, max_chars=None)} waits for approval")
        if one.role is None or one.role in self._roles:
            self._asked = one
            self._prompt("  [y]es, [n]o and why, [e]dit> ")
        else:
            self._screen.line(
                f"    by {one.role}: outlive approvals decide '{visible(one.id)}' --approve --role {one.role}"
            )

    def _prompt(self, text: str) -> None:
        if self._is_typed:
            self._screen.prompt(text)

    async def _reply(self, asked: Approval | Question, line: str) -> None:
        try:
            if isinstance(asked, Question):
                await self._answer(asked, line.strip())
            else:
                await self._decide(asked, line.strip())
        except (RunRefused, UsageError) as error:
            self._screen.line(f"  ! {error}")
            self._edits = False
            if self._asked is not None:
                self._ask(asked)

    async def _answer(self, asked: Question, text: str) -> None:
        inbox = questions(self._app)
        if text.startswith("/decline"):
            await inbox.decline(asked.id, by=self._by, why=text.removeprefix("/decline").strip() or None)
        else:
            await inbox.answer(asked.id, _read_answer(asked.schema, text), by=self._by)
        self._asked = None

    async def _decide(self, asked: Approval, text: str) -> None:
        word, _, rest = text.partition(" ")
        edit: Any = None
        if self._edits or word in ("e", "edit"):
            given = text if self._edits else rest
            if not given:
                self._edits = True
                self._prompt(f"  arguments as JSON, now {as_json(asked.arguments, max_chars=None)}> ")
                return
            edit, word = _read_arguments(given), "y"
        if word not in _YES_NO:
            raise UsageError("y, n or e, not " + repr(visible(word)))
        why = None if edit is not None else rest.strip() or None
        await approvals(self._app).decide(
            asked.id, approve=_YES_NO[word], by=self._by, why=why, roles=self._roles, edit=edit, digest=asked.digest
        )
        self._asked, self._edits = None, False


def _decides(event: Any, asked: Approval | Question) -> bool:
    """Say whether an event tells that what was asked is decided: the result of its call, or the end of the turn."""
    if isinstance(event, FunctionToolResultEvent):
        call_id = asked.call_id if isinstance(asked, Approval) else None
        return event.tool_call_id == call_id or (call_id is None and event.part.tool_name == asked.tool)
    return isinstance(event, Said | Answered | BrokenOff)


def _read_arguments(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise UsageError(f'arguments are a JSON object, {{"cents": 500}}, not {visible(text)}')
    return given


def _read_answer(schema: dict[str, Any], text: str) -> Any:
    """Read what was typed as the schema wants it: a text as it stands, yes and no, else JSON."""
    kind = schema.get("type")
    if kind == "string" or text in schema.get("enum", ()):
        return text
    if kind == "boolean" and text.lower() in _YES_NO:
        return _YES_NO[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        return text
