"""Durable calls that wait for what others write: messages and promises; and what runs write to others.

A wait is a call like any other; once its run has nothing else to do, it is noted
in the journal as `started`, so that the store's sweep knows what the run waits
for when it is out of memory. What comes is a fact in the database: the outcome
is delivered, and written with a side row that uses the fact up.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from typing import Any

from outlive.codec.failure import record_error
from outlive.codec.payload import codec_for
from outlive.engine.calls import CANCELLED, Call
from outlive.engine.roles import LiveRun
from outlive.errors import DecodeFailed, PromiseExpired, RunEnded, RunNotFound, StoreUnavailable
from outlive.limits import STORE_AGAIN_S
from outlive.model.mail import Message, NewMessage, Receipt, Settled, Settlement
from outlive.model.writes import Committed, Outcome


class SendCall(Call):
    """A message to another run: done when it is in that run's mailbox."""

    kind = "send"

    def __init__(self, run: LiveRun, key: str, topic: str, digest: str, to: str, value: str) -> None:
        super().__init__(run, key, topic, digest)
        self._to = to
        self._value = value

    def begin(self) -> None:
        run = self.execution
        recorded = run.journal.started.get(self.key)
        # Drawn, and recorded before it is used: a run that is taken back to before this call sends it anew.
        message_key = json.loads(recorded.value) if recorded is not None else str(run.engine.ids.uuid())
        codec = run.engine.codec.id
        message = NewMessage(run.row, self.key, self._to, self.name, message_key, self._value, codec, sender=run.id)
        run.recorder.start_with(
            self, json.dumps(message_key), (message,), functools.partial(self._on_sent, message_key)
        )

    def _on_sent(self, message_key: str, committed: Committed) -> None:
        problem = committed.deliveries[self._to, message_key].problem
        if problem is None:
            self.succeed("null")
        else:
            error = RunNotFound(self._to) if problem == "unknown" else RunEnded(self._to)
            self.fail(record_error(error, self.execution.codec))

    def decode(self, text: str) -> Any:
        return None


class WaitCall(Call):
    """A call that waits for something that somebody else writes."""

    has_effect = False

    def __init__(self, run: LiveRun, key: str, name: str) -> None:
        super().__init__(run, key, name, None)
        run.timers.waits += 1

    def begin(self) -> None:
        self.execution.waits_begun.append(self)
        self.execution.timers.began_wait()
        self.listen()

    def deliver(self, outcome: Outcome, value: Any, error: str | None) -> None:
        self.execution.timers.waits -= 1
        self.execution.timers.waits_begun -= self.begun
        super().deliver(outcome, value, error)

    def listen(self) -> None:
        """Hear of it when it is there."""
        raise NotImplementedError

    def stop(self) -> None:
        self.forget()
        self.fail(CANCELLED)

    def read(self, text: str, codec: str, what: str) -> Any:
        """Decode a payload; a run that cannot is held: code that reads it may be deployed yet, and nothing is lost."""
        try:
            codec_for(codec, [self.execution.codec], what=what)
            return self.decode(text)
        except DecodeFailed as error:
            engine = self.execution.engine
            engine.main.call_soon(engine.roster.abandon, self.execution, error)
            raise


class ReceiveCall(WaitCall):
    """The next message of a topic."""

    kind = "receive"

    def __init__(self, run: LiveRun, key: str, topic: str, hint: Any) -> None:
        super().__init__(run, key, topic)
        self._hint = hint

    def listen(self) -> None:
        self.execution.mailbox.wait(self.name, self)

    def take(self, message: Message) -> bool:
        """Take a message as the outcome, in its turn: it is received when that is written."""
        run = self.execution
        try:
            value = self.read(message.value, message.codec, f"message {self.name!r} to run {run.id!r}")
        except DecodeFailed:
            return True
        self.sides = (Receipt(run.row, self.key, message.message),)
        self.on_durable = functools.partial(run.mailbox.received, self.name, message.message)
        return run.deliver_now(self, "ok", message.value, value, None)

    def forget(self) -> None:
        self.execution.mailbox.forget(self.name, self)

    def decode(self, text: str) -> Any:
        return self.execution.codec.decode(text, self._hint, where=f"message {self.name!r}")


class PromiseCall(WaitCall):
    """The outcome of a promise, whose own key is the name."""

    kind = "wait"

    def __init__(self, run: LiveRun, key: str, promise: str, token: str, hint: Any) -> None:
        super().__init__(run, key, promise)
        self._token = token
        self._hint = hint

    def listen(self) -> None:
        self.execution.looking += 1
        self.execution.engine.watcher.watch("promise", self._token, self._on_settled, self.execution.looked)

    def forget(self) -> None:
        super().forget()
        self.execution.engine.watcher.forget("promise", self._token, self._on_settled)

    def _on_settled(self, settled: Settled) -> None:
        self.forget()
        if settled.outcome == "error":
            self.fail(settled.error)
            return
        text = settled.value or "null"
        try:
            value = self.read(text, settled.codec, f"promise {self.name} of run {self.execution.id!r}")
        except DecodeFailed:
            return
        self.execution.hand_in(self, "ok", text, value, None)

    def decode(self, text: str) -> Any:
        return self.execution.codec.decode(text, self._hint, where=f"promise {self.name}")


class ExpireCall(PromiseCall):
    """The outcome of a promise that is due: it has expired, unless somebody has settled it before."""

    kind = "expire"
    has_effect = True

    def listen(self) -> None:
        self.execution.looking += 1
        self.work = self.execution.engine.main.create_task(self._expire())

    async def _expire(self) -> None:
        """Let it expire, then look: who looks before, and rests, is woken by nobody, since nothing else is to come."""
        error = record_error(PromiseExpired(self.name), self.execution.codec)
        settlement = Settlement(None, None, self._token, "error", None, error, self.execution.engine.codec.id)
        try:
            while True:
                try:
                    await self.execution.engine.store.settle(settlement, at_expiry=True)
                except StoreUnavailable:
                    await asyncio.sleep(STORE_AGAIN_S)
                else:
                    super().listen()
                    return
        finally:
            self.execution.looked()


class ServeCall(ReceiveCall):
    """The next call that the run is to answer, as stored; one that `accept` refuses leaves no trace in the journal."""

    def __init__(self, run: LiveRun, key: str, name: str, accept: Callable[[str], object]) -> None:
        super().__init__(run, key, call_topic(name), None)
        self._accept = accept

    def take(self, message: Message) -> bool:
        run = self.execution
        try:
            self._accept(message.value)
        except Exception as error:
            record = record_error(error, run.codec)
            refusal = Settlement(run.row, None, message.key, "error", None, record, run.codec.id)
            run.engine.committer.add_sides(run, (Receipt(run.row, None, message.message), refusal))
            return False
        return super().take(message)

    def decode(self, text: str) -> Any:
        return text


def call_topic(name: str) -> str:
    """Give the topic of calls: none that a message can have. The key of each is the token that its answer settles."""
    return f"call/{name}"
