"""What a run in memory has been sent: unread messages, and the calls that wait for one.

It owns the order in which the messages of a topic go to the calls that receive
them: as they were numbered, first come first served. A call is given its message
when that is delivered, so one that is cancelled before leaves it to the next. What
was given to a call is received when the call's outcome is on disk; until then the
store still shows it as unread. Invariant: no message is given twice by one
incarnation of the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from outlive.engine.roles import LiveRun
from outlive.model.mail import Message


class Receiver(Protocol):
    """A call that takes one message of a topic."""

    def take(self, message: Message) -> bool:
        """Take the message as the outcome, for good; False if it is none for this call or anybody else."""


class Mailbox:
    """The mailbox of one run."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._topics: dict[str, _Topic] = {}

    def wait(self, topic: str, receiver: Receiver) -> None:
        """Give the receiver the oldest unread message of a topic, in turn."""
        place = self._topics.get(topic)
        if place is None:
            place = self._topics[topic] = _Topic(partial(self._arrived, topic))
        place.waiting.append(receiver)
        self._offer(topic, place)

    def forget(self, topic: str, receiver: Receiver) -> None:
        """Give this receiver nothing."""
        place = self._topics[topic]
        if receiver in place.waiting:
            place.waiting.remove(receiver)
        self._offer(topic, place)

    def received(self, topic: str, message: int, _: object) -> None:
        """Take note that the receipt of a message is on disk."""
        self._topics[topic].seen[message] = self._run.engine.watcher.turns

    def _arrived(self, topic: str, messages: Sequence[Message]) -> None:
        place = self._topics[topic]
        place.add(messages, self._run.engine.watcher.turns)
        self._offer(topic, place)

    def _offer(self, topic: str, place: _Topic) -> None:
        """Let the first message have its turn, and watch while there are too few for all who wait."""
        if place.unread and place.waiting and not place.has_turn:
            place.has_turn = True
            self._run.in_turn(partial(self._give, topic, place))
        lacks = len(place.waiting) > len(place.unread)
        if lacks == place.is_watched:
            return
        place.is_watched = lacks
        watcher, key = self._run.engine.watcher, (self._run.row, topic)
        if lacks:
            self._run.looking += 1  # a run that has not looked yet does not rest: the message may be there
            watcher.watch("mail", key, place.on_news, self._run.looked)
        else:
            watcher.forget("mail", key, place.on_news)

    def _give(self, topic: str, place: _Topic) -> bool:
        place.has_turn = False
        given = bool(place.unread and place.waiting and place.give())
        self._offer(topic, place)
        return given


class _Topic:
    """Messages of one topic, and who waits for one."""

    def __init__(self, on_news: Any) -> None:
        self.on_news = on_news
        self.unread: deque[Message] = deque()
        self.waiting: deque[Receiver] = deque()
        self.is_watched = False
        self.has_turn = False
        self.seen: dict[int, int | None] = {}  # messages, and the turn of the watcher in which the receipt was on disk

    def add(self, messages: Sequence[Message], turn: int) -> None:
        """Add those that are new in the answer to a question that was asked in this turn of the watcher."""
        for message in messages:
            if message.message not in self.seen:
                self.seen[message.message] = None
                self.unread.append(message)
        # What was asked later than a receipt was on disk cannot show that message as unread any more.
        for message_id in [one for one, received in self.seen.items() if received is not None and received < turn]:
            del self.seen[message_id]

    def give(self) -> bool:
        """Give the first message to who has waited longest; False if it is none for anybody."""
        receiver = self.waiting[0]
        taken = receiver.take(self.unread.popleft())
        if taken:
            self.waiting.remove(receiver)
        return taken
