"""Definitions as the engine sees them: what a decorated function says about its execution."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from outlive.clock import Duration, seconds
from outlive.codec.payload import CallShape
from outlive.errors import Permanent, UsageError


@dataclass(frozen=True)
class Retry:
    """How often and when a failed step is tried again.

    `attempts` counts the first one. The n-th wait is `first_delay * factor**(n-1)`
    seconds, at most `max_delay`, changed by up to ±`jitter` of itself. Only
    errors that are instances of `on` are retried, `Permanent` never.
    """

    attempts: int = 3
    first_delay: Duration = 1.0
    factor: float = 2.0
    max_delay: Duration = 60.0
    jitter: float = 0.1
    on: tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise UsageError(f"Retry(attempts=…) is a number of at least 1, not {self.attempts!r}")
        if self.factor < 1:
            raise UsageError(f"Retry(factor=…) is at least 1, not {self.factor!r}")
        if not 0 <= self.jitter <= 1:
            raise UsageError(f"Retry(jitter=…) is a share between 0 and 1, not {self.jitter!r}")
        seconds(self.first_delay)
        seconds(self.max_delay)
        if isinstance(self.on, type):
            object.__setattr__(self, "on", (self.on,))

    def again(self, attempt: int, error: BaseException) -> bool:
        """Say whether a step that failed at this attempt is tried again."""
        return attempt < self.attempts and isinstance(error, self.on) and not isinstance(error, Permanent)

    def delay_s(self, attempt: int, chance: random.Random) -> float:
        """Give the wait after the failure of this attempt, in seconds."""
        plain = min(seconds(self.first_delay) * self.factor ** (attempt - 1), seconds(self.max_delay))
        return plain * (1 + self.jitter * (2 * chance.random() - 1))


ONCE = Retry(attempts=1)

OnUnknown = Literal["retry", "park"] | Callable[..., Any]


@dataclass(eq=False)
class StepSpec:
    """A step or transaction. `site` is where it was defined, for messages."""

    function: Callable[..., Any]
    name: str
    is_async: bool
    shape: CallShape
    site: str
    retry: Retry = ONCE
    timeout_s: float | None = None
    on_unknown: OnUnknown = "retry"
    check_arguments: bool = True
    transactional: bool = False
    session: Callable[..., Any] | None = None  # of SQLAlchemy, for a transaction that writes through it
    prepare: Callable[..., Any] | None = None  # awaited before each attempt, outside of its transaction and its timeout
    kind: str = field(init=False)  # of its entries
    arguments: str = field(init=False)  # what errors call them
    result: str = field(init=False)

    def __post_init__(self) -> None:
        self.kind = "transaction" if self.transactional else "step"
        self.arguments = f"arguments of {self.kind} {self.name}"
        self.result = f"result of {self.kind} {self.name}"


@dataclass(eq=False)
class WorkflowSpec:
    """A workflow. `version` is a hash of its code unless it was given; `pinned`: no other one executes its runs.

    `is_only_one`: of those that say so the process has one of each name, for a replay would fit the others as well.
    """

    kind: ClassVar[str] = "workflow"
    function: Callable[..., Any]
    name: str
    is_async: bool
    shape: CallShape
    site: str
    version: str
    pinned: bool = False
    is_only_one: bool = False


@dataclass(frozen=True)
class StepInfo:
    """What `outlive.info()` tells within a step: which run and entry, and which attempt (from 1).

    `idempotency_key` is the same for every attempt of this entry, in every process:
    hand it to outside services so that they recognise a repetition.
    """

    run_id: str
    workflow: str
    name: str
    key: str
    attempt: int
    idempotency_key: str
    fencing_token: int = 0


@dataclass(frozen=True)
class WorkflowInfo:
    """What `outlive.info()` tells within a workflow body."""

    run_id: str
    workflow: str
    version: str | None
    replaying: bool
