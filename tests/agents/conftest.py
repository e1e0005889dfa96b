"""Every test of agents runs on both stores; no model outside this process is ever asked; a soak run files them all."""

from __future__ import annotations

import pytest
from pydantic_ai import models

from tests.engine.conftest import url
from tests.support.evidence import Evidence, file_module

__all__ = ["url"]

models.ALLOW_MODEL_REQUESTS = False


@pytest.fixture(autouse=True)
def filed(request: pytest.FixtureRequest, evidence: Evidence) -> None:
    """File each test."""
    file_module(request, evidence, "agents")
