"""What a scenario asks of a system, and what the step bodies of both systems count.

The protocol is the whole difference between the sides: a scenario never knows
which one it drives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

STEPS_OF_LONG_RUN = 10


@dataclass
class Tally:
    """What this process has executed so far; written by step bodies on the main loop."""

    steps: int = 0
    held: int = 0  # second steps of held runs that have begun
    holding: bool = False  # whether those wait for ever
    latencies_ns: list[int] = field(default_factory=list)  # from before the start to the first step's first line


tally = Tally()


class Commits(Protocol):
    """A connection of the system's own driver, for commits that nothing is wrapped around."""

    async def once(self) -> None:
        """Insert one row and commit."""

    async def close(self) -> None: ...


class Client(Protocol):
    """A process that starts runs which another one executes."""

    async def send(self, sent_ns: int, *, lined: bool) -> None:
        """Start a run, `lined` in a queue, whose step notes how long ago `sent_ns` was; return when that is durable."""

    async def enqueue(self) -> None:
        """Start a run of one step that takes 20 ms through the queue; return when the start is durable."""

    async def close(self) -> None: ...


class System(Protocol):
    """One system in this process, opened as a worker."""

    def versions(self) -> dict[str, str]:
        """Name the versions of the system and of what it is built on."""

    async def open(self, url: str, options: dict[str, Any]) -> None: ...

    async def close(self) -> None: ...

    async def run(self, *, long: bool) -> None:
        """Start a run of one step, or of ten, and wait for its result."""

    def agent(self) -> Callable[[], Awaitable[object]]:
        """Make the agent of `agents` durable, before the system is opened; give what runs it in a workflow."""

    async def start_held(self) -> None:
        """Start a run of two steps whose second waits while `tally.holding`; do not wait for it."""

    async def enqueue(self) -> None:
        """Start a run of one step through the queue; return when the start is durable."""

    async def client(self, url: str) -> Client:
        """Connect as a client; the system itself is not open in this process."""

    async def commits(self, url: str) -> Commits:
        """Connect to a PostgreSQL database for bare commits."""
