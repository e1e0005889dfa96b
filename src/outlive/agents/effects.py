"""Effect classes: what a crash in the middle of a tool call may do to the outside world, declared with the tool.

A class is put into the tool's metadata, where Pydantic AI carries it to whoever
executes the tool. It must not know how units are executed.
Invariant: what has no class is treated as `at_most_once`: never executed a
second time without a person, a `verify` function or the model having decided so.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from outlive.clock import Duration, seconds
from outlive.engine.transactions import SyncTransaction
from outlive.errors import UsageError
from outlive.model.definition import ONCE, Retry

EFFECT_KEY = "outlive"  # of the metadata of tools
ALL_OTHERS = "*"  # of effects

EffectClass = Literal["pure", "idempotent", "transactional", "at_most_once"]
current_tx: contextvars.ContextVar[Any] = contextvars.ContextVar("outlive_tool_tx", default=None)


@dataclass(frozen=True)
class Effect:
    """How a unit of an agent's work is executed, and what becomes of one that a crash interrupted."""

    name: EffectClass
    retry: Retry = ONCE
    timeout_s: float | None = None
    verify: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.retry, Retry):
            raise UsageError(f"{self.name}(retry=…) takes a Retry, such as Retry(attempts=3), not {self.retry!r}")


PURE = Effect("pure")
AT_MOST_ONCE = Effect("at_most_once")


def pure(*, retry: Retry = ONCE, timeout: Duration | None = None) -> dict[str, Any]:
    """Metadata of a tool that changes nothing: `@agent.tool(metadata=pure())`.

    *Again*: a call that a crash interrupted is executed again; after `retry`, so is one that failed.
    """
    return _metadata(Effect("pure", retry, _seconds(timeout)))


def idempotent(*, retry: Retry = ONCE, timeout: Duration | None = None) -> dict[str, Any]:
    """Metadata of a tool whose effect recognises a repetition by a key: `outlive.info().idempotency_key`, in the tool.

    *Again*: a call that a crash interrupted is executed again, with the same key in every attempt and process.
    """
    return _metadata(Effect("idempotent", retry, _seconds(timeout)))


def transactional(*, retry: Retry = ONCE, timeout: Duration | None = None) -> dict[str, Any]:
    """Metadata of a tool that writes to the app's own database, through `outlive.agents.tx()`.

    *Durable*: its rows and its result in one commit, exactly once. *Again*: a crash before the commit leaves nothing
    of it; neither does a tool that raises, `ModelRetry` included. It is open for as long as the tool takes, so
    nothing slow belongs into it.
    """
    return _metadata(Effect("transactional", retry, _seconds(timeout)))


def at_most_once(
    verify: Callable[..., Any] | None = None, *, retry: Retry = ONCE, timeout: Duration | None = None
) -> dict[str, Any]:
    """Metadata of a tool that must not be executed twice; also what a tool without any class is.

    *Durable*: that a call begins, before it does. *Again*: a call that a crash interrupted is not executed again.
    `verify`, called with the tool's arguments, is asked whether it took effect: it returns the result, or raises
    LookupError if it did not, and then the tool is executed. Without it the model is told that the outcome is unknown.
    """
    if verify is not None and not callable(verify):
        raise UsageError(f"verify=… takes a function of the tool's arguments, not {verify!r}")
    return _metadata(Effect("at_most_once", retry, _seconds(timeout), verify))


def inline() -> dict[str, Any]:
    """Metadata of a tool that is part of the workflow: it awaits steps, messages or other durable agents.

    *Again*: its code executes again on replay, so all that touches the outside world belongs into steps.
    """
    return {EFFECT_KEY: False}


def annotated(*, retry: Retry = ONCE, timeout: Duration | None = None) -> dict[str, Any]:
    """For `durable(…, effects={…})`: a tool of an MCP server is what the server says that it is.

    `pure` if it says `readOnlyHint`, `idempotent` if `idempotentHint`, else `at_most_once`. For servers that you trust:
    one that lies about itself has its calls executed twice.
    """
    return _metadata(Annotated(retry, _seconds(timeout)))


@dataclass(frozen=True)
class Annotated:
    """An effect that a server's annotations tell."""

    retry: Retry
    timeout_s: float | None

    def read(self, annotations: Mapping[str, Any]) -> Effect:
        """Give the effect of a tool with these annotations; without any, or at odds, it is the most careful one."""
        if annotations.get("readOnlyHint") is True and annotations.get("destructiveHint") is not True:
            return Effect("pure", self.retry, self.timeout_s)
        if annotations.get("idempotentHint") is True:
            return Effect("idempotent", self.retry, self.timeout_s)
        return Effect("at_most_once", timeout_s=self.timeout_s)


def check_effects(effects: Any) -> Mapping[str, Effect | Annotated | Literal[False]]:
    """Give the effects that an agent declares for tools by name. Raises UsageError for what is none."""
    if not isinstance(effects, Mapping):
        raise UsageError(
            f"effects=… maps names of tools to pure(), idempotent(), … and '*' to that of all others, not {effects!r}"
        )
    found = {}
    for tool, metadata in effects.items():
        declared = metadata.get(EFFECT_KEY) if isinstance(metadata, Mapping) else None
        if declared is not False and not isinstance(declared, Effect | Annotated):
            raise UsageError(f"effects={{{tool!r}: …}} takes what pure(), idempotent(), … give, not {metadata!r}")
        found[tool] = declared
    return found


def check_names(agent: str, effects: Mapping[str, Any], seen: Collection[str], listed: Collection[str]) -> None:
    """Raise UsageError if an agent declares effects for a tool that it does not have.

    `seen` are the names of its tools for the model, `listed` those in their toolsets. What is listed and not seen,
    by its name or with a prefix, is hidden from this run, and may have an effect all the same.
    """
    hidden = [name for name in listed if not any(_is_called(one, name) for one in seen)]
    for name in sorted(set(effects) - {ALL_OTHERS} - set(seen)):
        if not any(_is_called(name, one) for one in hidden):
            raise UsageError(
                f"effects={{{name!r}: …}} of agent {agent!r} is for no tool that it has; they are "
                f"{', '.join(map(repr, sorted({*seen, *hidden}))) or 'none'}"
            )


def _is_called(name: str, tool: str) -> bool:
    return name == tool or name.endswith(f"_{tool}")


def find_effect(
    metadata: Mapping[str, Any] | None,
    tool: str,
    *,
    strict: bool,
    effects: Mapping[str, Effect | Annotated | Literal[False]] = MappingProxyType({}),
) -> Effect | Literal[False]:
    """Give the effect that a tool declares, or else the agent for it, False for an inline one.

    Raises UsageError for what is none.
    """
    declared = (metadata or {}).get(EFFECT_KEY)
    if declared is None:
        declared = effects.get(tool, effects.get(ALL_OTHERS))
    if isinstance(declared, Annotated):
        return declared.read((metadata or {}).get("annotations") or {})
    if declared is False or isinstance(declared, Effect):
        return declared
    if declared is not None:
        raise UsageError(f"tool {tool!r} has metadata {EFFECT_KEY!r} that is no effect class: {declared!r}")
    if strict:
        raise UsageError(
            f"tool {tool!r} declares no effect class, and this agent is strict: give it metadata=pure(), idempotent(), "
            "transactional() or at_most_once(), or durable(…, effects={…}) if it is not yours"
        )
    return AT_MOST_ONCE


def tx() -> Any:
    """Give the transaction of the `transactional` tool that is executing here: its rows commit with the call's entry.

    `execute`, `fetch`, `fetchrow`, `fetchval`, `executemany`; awaited in an async tool, not in a plain one.
    *Raises* UsageError anywhere else.
    """
    found = current_tx.get()
    if found is None:
        raise UsageError("outlive.agents.tx() is for tools with metadata=transactional(), while they execute")
    opened, loop = found
    return opened if asyncio._get_running_loop() is loop else SyncTransaction(opened, loop)


def _metadata(effect: Effect | Annotated) -> dict[str, Any]:
    return {EFFECT_KEY: effect}


def _seconds(timeout: Duration | None) -> float | None:
    return None if timeout is None else seconds(timeout)
