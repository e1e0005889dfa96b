"""Outlive in a FastAPI application: what `outlive.integrations.starlette` has, and the app as a dependency.

`Handle` is for signatures: `async def order(app: Handle) -> …`.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from outlive import Outlive
from outlive.integrations.starlette import event_stream, exception_handlers, handle, lifespan

__all__ = ["Handle", "event_stream", "exception_handlers", "handle", "lifespan"]

Handle = Annotated[Outlive, Depends(handle)]
