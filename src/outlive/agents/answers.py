"""Answers of models that runs share: of equal requests at one time one is sent, and its answer is kept for a while.

Equal is what has the same content and goes to the same model. Knows the memos of
the store, which all processes read. Invariant: only a complete answer is kept;
who fails, is cancelled or dies leaves the request to the next who wants it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic_ai.models import Model

from outlive.agents.content import content_of
from outlive.codec.plain import storable
from outlive.engine.bodies import describe, executing_step, patiently
from outlive.errors import StoreUnavailable
from outlive.limits import ANSWER_MAKING_MAX_S, POLL_BUSY_S, POLL_IDLE_S

_NOT_SENT = ("metadata", "timeout", "toolset_id", "capability_id")  # of tools
GIVEN_BEFORE = "outlive_given_before"  # of the metadata of an answer that cost nothing


def name_answer(model: str, sent_to: Model | None, details: tuple[Any, ...]) -> str:
    """Give the name under which all find the answer to a request: a digest, for it covers credentials, too."""
    _, messages, settings, parameters, _ = details
    headers = (settings or {}).get("extra_headers")
    asked = [model, _settings_of(sent_to), content_of(messages, settings, parameters), parameters, headers]
    try:
        text = json.dumps(asked, sort_keys=True, default=_plain)
    except (TypeError, ValueError):  # keys of several types, or a circle: it is shared where it looks the same
        text = repr(asked)
    return f"answer {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}"


def _settings_of(model: Any) -> list[Any]:
    """Give what a model adds to requests by itself, and those that it chooses from, or wraps, as well."""
    if not isinstance(model, Model):
        return []
    below: Any = getattr(model, "models", None) or [getattr(model, "wrapped", None)]
    return [model.system, model.model_name, model.base_url, model.settings, [_settings_of(one) for one in below]]


def _plain(value: Any) -> Any:
    """Give the parameters of a request as JSON data; what is none is equal to nothing that another process has."""
    if is_dataclass(value):
        return {one.name: getattr(value, one.name) for one in fields(value) if one.name not in _NOT_SENT}
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else repr(value)


async def share(name: str, keep_s: float, ask: Callable[[], Awaitable[Any]]) -> Any:
    """Give the answer of this name, or ask for it, alone among all processes, and keep it for so long."""
    step = executing_step()
    engine, codec = step.execution.engine, step.execution.codec
    store, maker, name = engine.store, describe(step).idempotency_key, f"{name} {codec.id}"
    look_s = POLL_BUSY_S
    while True:
        memo = await patiently(step, lambda: store.read_memo(name))
        if memo is not None and memo.value is not None:
            return _given_before(codec.decode(memo.value, Any, where="an answer given before"))
        if await patiently(step, lambda: store.take_memo(name, maker, engine.fence(), ANSWER_MAKING_MAX_S)):
            break
        engine.roster.waits_for_others(step.execution)
        await engine.bodies.rest(look_s)
        look_s = min(look_s * 1.5, POLL_IDLE_S)
    try:
        answer = storable(await ask())
        kept = codec.encode(answer, where="an answer to keep") if answer["state"] == "complete" else None
    except asyncio.CancelledError:
        with suppress(StoreUnavailable):  # nobody waits for the store now; others take it when this process has ended
            await store.put_memo(name, maker, None, 0.0)
        raise
    except BaseException:
        await patiently(step, lambda: store.put_memo(name, maker, None, 0.0))
        raise
    await patiently(step, lambda: store.put_memo(name, maker, kept, keep_s if kept is not None else 0.0))
    return answer


def _given_before(answer: dict[str, Any]) -> dict[str, Any]:
    """Give an answer as one that was paid for by somebody else."""
    return answer | {"usage": {}, "metadata": {**(answer.get("metadata") or {}), GIVEN_BEFORE: True}}
