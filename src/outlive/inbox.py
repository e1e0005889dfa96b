"""What waits for people, in one shape: promises of one topic, listed and found by programs, each decided once.

Approvals, questions and reviews are such inboxes: they add what an item tells and which answers count.
They need no agent and no worker. Invariants: an answer is one settlement of its promise: of two
one is refused, and what is refused has changed nothing. A promise that tells other things than
the items of an inbox is none of them, whatever its topic.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Generic, TypeGuard, TypeVar

from outlive.app import Outlive
from outlive.errors import AlreadySettled, PromiseExpired, PromiseNotFound, RunRefused, UsageError
from outlive.limits import PERSON_MAX_CHARS
from outlive.paging import Page
from outlive.promises import OpenPromise

Item = TypeVar("Item")

_UNSEEN = ("Mn", "Me", "Cf", "Cc", "Cn", "Co", "Cs")
_BLANK = "\u115f\u1160\u2800"  # letters and symbols that show nothing: fillers of Hangul, the empty pattern of Braille


class Inbox(Generic[Item]):
    """The promises of a topic that wait for people."""

    topic: ClassVar[str]  # and the word for one of them
    item: ClassVar[type[Any]]  # what one of them tells, a dataclass with the fields of `_place_of` and those of `about`
    answered: ClassVar[str]  # what becomes of it: "decided"

    def __init__(self, app: Outlive) -> None:
        if not isinstance(app, Outlive):
            raise UsageError(f"{self.topic}s(app) takes an outlive.Outlive, open in an event loop, not {app!r}")
        self._app = app

    async def list(self, *, run_id: str | None = None, limit: int = 100, after: str | None = None) -> Page[Item, str]:
        """List what waits, the oldest first; of one run, or of all."""
        page = await self._app.promises(self.topic, run_id=run_id, limit=limit, after=after)
        return Page([self._read(one) for one in page.items if self._has(one)], page.next)

    async def find(self, id: str) -> Item | None:
        """Find what waits, by its id; None if it was answered, has expired, or never was."""
        found = await self._app.find_promise(*self._place(id))
        return self._read(found) if self._has(found) else None

    def _has(self, one: OpenPromise | None) -> TypeGuard[OpenPromise]:
        if one is None or one.topic != self.topic or not isinstance(one.about, Mapping):
            return False
        return self._facts() <= one.about.keys()

    def _read(self, one: OpenPromise) -> Item:
        item: Item = self.item(**_place_of(one), **{name: one.about[name] for name in self._facts()})
        return item

    def _facts(self) -> set[str]:
        return {field.name for field in fields(self.item)} - {"id", "run_id", "created_at", "expires_at"}

    async def _waiting(self, id: str) -> OpenPromise:
        """Give the promise that waits, or refuse."""
        run_id, key = self._place(id)
        found = await self._app.find_promise(run_id, key)
        if not self._has(found):
            raise RunRefused(run_id, tell_gone(type(self), id))
        return found

    async def _settle(
        self,
        one: OpenPromise,
        what: str,
        value: Any,
        by: str,
        why: str | None,
        facts: Mapping[str, Any],
        *,
        error: str | None = None,
    ) -> None:
        """Answer a promise, once: `what` it is, in the words of a refusal. The audit tells the facts."""
        try:
            await self._app._settle_noting(one.token, value, error, by, why, facts)
        except AlreadySettled:
            raise RunRefused(one.run_id, f"{what} has been {self.answered} already") from None
        except PromiseExpired:
            raise RunRefused(one.run_id, f"{what} has expired") from None
        except PromiseNotFound:
            raise RunRefused(one.run_id, f"{what} has been taken back") from None

    def _place(self, id: str) -> tuple[str, str]:
        run_id, _, key = id.rpartition(" ") if isinstance(id, str) else ("", "", "")
        if not run_id:
            raise UsageError(f"the id of this {self.topic} is that of its run, a space and its key, not {id!r}")
        return run_id, key


def _place_of(one: OpenPromise) -> dict[str, Any]:
    return {
        "id": f"{one.run_id} {one.key}",
        "run_id": one.run_id,
        "created_at": one.created_at,
        "expires_at": one.expires_at,
    }


def tell_gone(inbox: type[Inbox[Any]], id: str) -> str:
    """Say that nothing waits by an id."""
    return f"no {inbox.topic} {id!r} waits: it was {inbox.answered}, has expired, or never was"


def is_person(by: str, others: Collection[str]) -> bool:
    """Say whether somebody is one of these, in whichever way his name is written.

    Case, accents, width, spaces around and between words, and characters that nobody sees make no difference.
    """
    return _plain(by) in {_plain(other) for other in others}


def _plain(name: str) -> str:
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    seen = (one for one in letters if unicodedata.category(one) not in _UNSEEN and one not in _BLANK)
    return " ".join("".join(seen).split())


def visible(text: str) -> str:
    """Give a text for the eyes of who decides: what cannot be seen, or turns the text around, as its number."""
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)


def check_person(by: Any, why: Any) -> None:
    """Refuse what the audit could not tell."""
    if not isinstance(by, str) or not by.strip() or len(by) > PERSON_MAX_CHARS:
        raise UsageError(f"by=… says who it is that answers, in at most {PERSON_MAX_CHARS} characters, not {by!r:.100}")
    if not isinstance(why, str | None):
        raise UsageError(f"why=… is a text, not {why!r}")
