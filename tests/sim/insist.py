"""How a simulated program asks a database that fails now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from outlive.errors import StoreError


async def insist(ask: Callable[[], Awaitable[Any]], pause_s: float = 0.2) -> Any:
    """Ask until the database answers."""
    while True:
        try:
            return await ask()
        except StoreError:
            await asyncio.sleep(pause_s)
