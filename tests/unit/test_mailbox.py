"""The mailbox of a run: each message to one receiver, in order, whatever the store's answers are late for."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest

from outlive.engine.mailbox import Mailbox
from outlive.model.mail import Message

TOPIC = "letters"


class Post:
    """The store and the process around a mailbox: questions are answered late, receipts are on disk late."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.row, self.looking, self.turns = 7, 0, 0
        self.engine = self.watcher = self
        self.unread: list[int] = []
        self.sent = 0
        self.on_news: Any = None
        self.answer: tuple[list[Message], int] | None = None
        self.receipts: deque[int] = deque()
        self.mailbox = Mailbox(self)  # type: ignore[arg-type]
        self.taken: list[int] = []
        self.waiting: deque[Receiver] = deque()
        self.turn: deque[Any] = deque()

    # -- the watcher --------------------------------------------------------
    def watch(self, kind: str, key: Any, on_news: Any, on_looked: Any) -> None:
        assert (kind, key, self.on_news) == ("mail", (7, TOPIC), None)
        self.on_news = on_news

    def forget(self, kind: str, key: Any, on_news: Any) -> None:
        assert on_news == self.on_news
        self.on_news = None

    def looked(self) -> None: ...

    # -- the run ------------------------------------------------------------
    def in_turn(self, deliver: Any) -> None:
        self.turn.append(deliver)

    def deliver(self) -> None:
        if self.turn:
            self.turn.popleft()()

    # -- what may happen ----------------------------------------------------
    def send(self) -> None:
        self.sent += 1
        self.unread.append(self.sent)

    def receive(self) -> None:
        receiver = Receiver(self)
        self.waiting.append(receiver)
        self.mailbox.wait(TOPIC, receiver)

    def give_up(self) -> None:
        if self.waiting:
            receiver = self.chance.choice(self.waiting)
            self.waiting.remove(receiver)
            self.mailbox.forget(TOPIC, receiver)

    def ask(self) -> None:
        if self.on_news is not None and self.answer is None:
            self.turns += 1
            found = [Message(number, "", "", "") for number in self.unread[: self.chance.randint(1, 4)]]
            self.answer = found, self.turns

    def hear(self) -> None:
        if self.answer is not None:
            (messages, _), self.answer = self.answer, None
            if self.on_news is not None and messages:
                self.on_news(messages)

    def commit(self) -> None:
        if self.receipts:
            number = self.receipts.popleft()
            self.unread.remove(number)
            self.mailbox.received(TOPIC, number, None)


class Receiver:
    """A call that takes one message."""

    def __init__(self, post: Post) -> None:
        self.post = post

    def take(self, message: Message) -> bool:
        self.post.waiting.remove(self)
        self.post.taken.append(message.message)
        self.post.receipts.append(message.message)
        return True


@pytest.mark.parametrize("seed", range(200))
def test_each_message_goes_to_one_receiver_in_order(seed: int) -> None:
    post = Post(random.Random(seed))
    happenings = post.send, post.receive, post.receive, post.ask, post.hear, post.deliver, post.commit, post.give_up
    for _ in range(300):
        post.chance.choice(happenings)()
    for _ in range(10 * post.sent + 10):  # no message is left while somebody waits
        for happens in (post.ask, post.hear, post.deliver, post.commit):
            happens()
        if len(post.taken) < post.sent and not post.waiting:
            post.receive()
    assert post.taken == list(range(1, post.sent + 1))
    assert not post.unread


def test_what_was_refused_goes_to_nobody() -> None:
    post = Post(random.Random(1))
    refused = []

    class Fussy(Receiver):
        def take(self, message: Message) -> bool:
            if message.message % 2:
                refused.append(message.message)
                return False
            return super().take(message)

    for _ in range(4):
        post.send()
    fussy = Fussy(post)
    post.waiting.append(fussy)
    post.mailbox.wait(TOPIC, fussy)
    post.on_news([Message(number, "", "", "") for number in (1, 2, 3, 4)])
    while post.turn:
        post.deliver()
    assert (refused, post.taken) == ([1], [2])
