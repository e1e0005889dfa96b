"""Every test of agents runs on both stores; no model outside this process is ever asked."""

from __future__ import annotations

from pydantic_ai import models

from tests.engine.conftest import url

__all__ = ["url"]

models.ALLOW_MODEL_REQUESTS = False
