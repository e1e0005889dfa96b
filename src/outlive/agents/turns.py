"""Events of a conversation, beside those of the agent: what the person said, how the turn ended, that it listens.

Plain data, in the agent's stream: whoever follows a conversation has one order of all that happens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Said:
    """A turn begins: the person's words, and the key under which they were sent. Turns count from 1."""

    turn: int
    text: str
    key: str
    event_kind: Literal["said"] = "said"


@dataclass(frozen=True)
class Answered:
    """A turn has ended with the agent's output, as text; `output` is the same as plain data."""

    turn: int
    text: str
    output: Any
    event_kind: Literal["answered"] = "answered"


@dataclass(frozen=True)
class BrokenOff:
    """A turn has ended without an answer; what its tools have done stays done, and the agent knows it."""

    turn: int
    error: str
    event_kind: Literal["broken_off"] = "broken_off"


@dataclass(frozen=True)
class Listening:
    """All that was sent before `token` was has been heard and answered."""

    turn: int
    token: str
    event_kind: Literal["listening"] = "listening"


TurnEvent = Said | Answered | BrokenOff | Listening
