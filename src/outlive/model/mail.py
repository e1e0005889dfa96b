"""What runs tell each other and the world, as it is written and read: messages, values, stream items, promises.

Written as side rows of a batch: each belongs to the entry `entry` of the run
`row` in the same batch and is written only with it, or has a key of its own; so
it takes effect once, whoever sends the batch again. Payloads are text already,
made by `codec`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from outlive.model.ledger import Spent


class NewMessage(msgspec.Struct, gc=False):
    """A message to the run of an id. Without `entry` it comes from outside, from nobody's run.

    A run that has a message of this `key` gets no other one, received or not.
    """

    row: int | None
    entry: str | None
    run: str
    topic: str
    key: str
    value: str
    codec: str
    sender: str | None = None


class Receipt(msgspec.Struct, gc=False):
    """A message of the run's own mailbox has been received by an entry; without one it was refused."""

    row: int
    entry: str | None
    message: int


class NewValue(msgspec.Struct, gc=False):
    """What a run shows under a name from now on."""

    row: int
    entry: str
    name: str
    value: str
    codec: str


class NewItem(msgspec.Struct, gc=False):
    """The next item of a run's stream; the store numbers it.

    Without `entry` the owner's fence is enough, and a stream that has an item of this `key` gets no other one.
    """

    row: int
    entry: str | None
    name: str
    value: str
    codec: str
    key: str | None = None


class NewPromise(msgspec.Struct, gc=False):
    """A promise of a run; whoever knows the token may settle it before it expires. Without `entry`: of a call to it.

    With a `topic` it is listed while it is open, with what it is `about`.
    """

    row: int
    entry: str | None
    token: str
    expires_at: float | None = None
    topic: str | None = None
    about: str | None = None
    about_codec: str | None = None


class Settlement(msgspec.Struct, gc=False):
    """The one outcome of a promise; one that is settled stays as it is. Without `entry` the owner's fence is enough."""

    row: int | None
    entry: str | None
    token: str
    outcome: Literal["ok", "error"]
    value: str | None
    error: str | None
    codec: str


SideRow = NewMessage | Receipt | NewValue | NewItem | NewPromise | Settlement | Spent

Problem = Literal["unknown", "ended"]


@dataclass(slots=True, frozen=True)
class Delivery:
    """What became of a message: whose mailbox it is in, or why it is in none."""

    row: int | None
    problem: Problem | None


@dataclass(slots=True)
class Message:
    """An unread message. Numbers grow for the messages of one sender."""

    message: int
    key: str
    value: str
    codec: str


@dataclass(slots=True)
class Shown:
    """What a run shows under a name, or one item of a stream, where `seq` counts from 1."""

    seq: int
    value: str
    codec: str


@dataclass(slots=True)
class StreamPart:
    """The next items of a stream, and whether the run has ended."""

    items: list[Shown]
    is_over: bool


@dataclass(slots=True)
class Settled:
    """The outcome of a promise."""

    token: str
    outcome: Literal["ok", "error"]
    value: str | None
    error: str | None
    codec: str


@dataclass(slots=True)
class OpenPromise:
    """A promise with a topic that is neither settled nor expired, of a run that has not ended."""

    run: str
    key: str
    token: str
    topic: str
    about: str
    about_codec: str
    created_at: float
    expires_at: float | None


Settling = Literal["settled", "already", "expired", "unknown"]
