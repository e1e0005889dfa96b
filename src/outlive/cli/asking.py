"""What a conversation asks the person at the terminal: shown one after the other, answered by the lines typed next.

Knows the two inboxes and the screen; when something is asked or decided elsewhere it is told. Invariant: a line answers
what was shown last, and nothing that was decided meanwhile.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from outlive import Outlive
from outlive.approvals import Approval, approvals
from outlive.cli.output import as_json
from outlive.cli.screen import Screen
from outlive.errors import RunRefused, UsageError
from outlive.inbox import visible
from outlive.questions import Question, questions

_YES_NO = {"y": True, "yes": True, "n": False, "no": False}


class Asking:
    """What waits for one person. `roles`: those of the person, for approvals; `by`: who it is."""

    def __init__(self, app: Outlive, screen: Screen, roles: tuple[str, ...], by: str, *, is_typed: bool) -> None:
        self._approvals = approvals(app)
        self._questions = questions(app)
        self._screen = screen
        self._roles = roles
        self._by = by
        self._is_typed = is_typed
        self._waiting: dict[str, Approval | Question] = {}  # by id; the first is on the screen
        self._edits = False  # the next line is the arguments of the approval
        self.of_others: set[str] = set()  # what waits for another role

    @property
    def current(self) -> Approval | Question | None:
        """What the next line answers."""
        return next(iter(self._waiting.values()), None)

    def add(self, one: Approval | Question) -> None:
        """Ask, now or behind what is asked already; what another role decides is only told."""
        if isinstance(one, Approval) and one.role is not None and one.role not in self._roles:
            self.of_others.add(one.id)
            self._tell(one)
            role = shlex.quote(visible(one.role))
            command = f"outlive approvals decide {shlex.quote(visible(one.id))} --approve --role {role}"
            self._screen.line(f"    by {one.role}: {command}")
            return
        self._waiting[one.id] = one
        if self.current is one:
            self._ask(one)

    def drop(self, id: str) -> None:
        """Ask no more: it is decided elsewhere."""
        self.of_others.discard(id)
        current = self.current
        if self._waiting.pop(id, None) is current and current is not None:
            self._screen.unprompt()
            self._screen.line("  (decided)")
            self._go_on()

    def ask_again(self, line: str) -> None:
        """Take no line for an answer that was typed before this was asked."""
        self._screen.line(f"  ! {visible(line)!r} was typed before this was asked, and answers nothing")
        if (current := self.current) is not None:
            self._ask(current)

    async def drop_decided(self) -> None:
        """Look whether what is asked now still waits."""
        current = self.current
        if current is None:
            return
        inbox = self._approvals if isinstance(current, Approval) else self._questions
        if await inbox.find(current.id) is None:
            self.drop(current.id)

    async def reply(self, line: str) -> None:
        """Answer what is asked with a line; ask again if it is no answer."""
        asked = self.current
        assert asked is not None
        try:
            if isinstance(asked, Question):
                await self._answer(asked, line.strip())
            elif not await self._decide(asked, line.strip()):
                return
        except (RunRefused, UsageError) as error:
            self._screen.line(f"  ! {error}")
            self._edits = False
            await self.drop_decided()
            if self.current is asked:
                self._ask(asked)
        else:
            del self._waiting[asked.id]
            self._go_on()

    # -- on the screen --------------------------------------------------------------
    def _go_on(self) -> None:
        self._edits = False
        if (following := self.current) is not None:
            self._ask(following)

    def _ask(self, one: Approval | Question) -> None:
        if isinstance(one, Question):
            self._screen.line(f"  ? {visible(one.question)}" + (f" ({one.problem})" if one.problem else ""))
            self._prompt(f"  answer, {as_json(one.schema)}, or /decline> ")
        else:
            self._tell(one)
            self._prompt("  [y]es, [n]o and why, [e]dit> ")

    def _tell(self, one: Approval) -> None:
        self._screen.line(f"  ? {visible(one.tool)} {as_json(one.arguments, max_chars=None)} waits for approval")

    def _prompt(self, text: str) -> None:
        if self._is_typed:
            self._screen.prompt(text)

    # -- answers --------------------------------------------------------------------
    async def _answer(self, asked: Question, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "/decline":
            await self._questions.decline(asked.id, by=self._by, why=rest.strip() or None)
        elif text.startswith("/") and not text.startswith("//"):
            raise UsageError("/decline and why answers nothing, /quit leaves, //text is a text that begins with /")
        else:
            given = text.removeprefix("/") if text.startswith("//") else text
            await self._questions.answer(asked.id, _read_answer(asked.schema, given), by=self._by)

    async def _decide(self, asked: Approval, text: str) -> bool:
        """Decide, and say that it is done: the line may only begin an edit."""
        word, _, rest = text.partition(" ")
        edit: Any = None
        if self._edits or word in ("e", "edit"):
            given = text if self._edits else rest
            if not given:
                self._edits = True
                self._prompt(f"  arguments as JSON, now {as_json(asked.arguments, max_chars=None)}> ")
                return False
            edit, word = _read_arguments(given), "y"
        if word not in _YES_NO:
            raise UsageError(f"y, n or e, not {visible(word)!r}; /quit leaves")
        why = None if edit is not None else rest.strip() or None
        await self._approvals.decide(
            asked.id, approve=_YES_NO[word], by=self._by, why=why, roles=self._roles, edit=edit, digest=asked.digest
        )
        return True


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
