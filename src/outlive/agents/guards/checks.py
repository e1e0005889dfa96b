"""Checks of a value by functions of the user: each is asked once, as a step, and says what is wrong, or None.

A function may be plain or async and look up facts; a step or transaction is called as such.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from typing import Any

from pydantic_ai.exceptions import ModelRetry

from outlive.definitions import Step, step
from outlive.engine.bodies import executing_step
from outlive.errors import UsageError

Check = Callable[[Any], Any]


async def find_complaints(checks: Sequence[Check], value: Any) -> list[str]:
    """Ask all of these checks, in a workflow; give what they complain of."""
    said = [await _ask(check, value) for check in checks]
    return [complaint for complaint in said if complaint is not None]


async def _ask(check: Check, value: Any) -> str | None:
    if not isinstance(check, Step):
        return await _call(check, value)
    said = await (check(value) if check.spec.is_async else asyncio.to_thread(check, value))
    return _text(check, said)


@step(name="guard.ask", check_arguments=False)
async def _call(check: Check, value: Any) -> str | None:
    own = executing_step()
    try:
        return _text(check, await own.execution.engine.bodies.run(check, (copy.deepcopy(value),), {}))
    except ModelRetry as error:
        return error.message


def _text(check: Check, said: Any) -> str | None:
    if said is not None and not isinstance(said, str):
        name = getattr(check, "__qualname__", repr(check))
        raise UsageError(f"the check {name} gives None, or a text that says what is wrong, not {said!r}")
    return said
