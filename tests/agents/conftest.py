"""Every test of agents runs on both stores; no model outside this process is ever asked; a soak run files them all."""

from __future__ import annotations

import pytest
from pydantic_ai import models

from tests.engine.conftest import url
from tests.support.evidence import Evidence

__all__ = ["url"]

models.ALLOW_MODEL_REQUESTS = False


@pytest.fixture(autouse=True)
def filed(request: pytest.FixtureRequest, evidence: Evidence) -> None:
    """File each test, by its module and store."""
    store = request.node.callspec.params.get("url", "none") if hasattr(request.node, "callspec") else "none"
    evidence(f"agents: {request.path.stem.removeprefix('test_').replace('_', ' ')}", store)
