"""Tests of the testing kit, on a shop as a user writes it."""

from __future__ import annotations

import pytest

from tests.kit import shop


@pytest.fixture(autouse=True)
def no_effects() -> None:
    shop.effects.clear()
    shop.turns = 0
