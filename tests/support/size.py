"""One setting for two tiers: `make test` runs small sizes, `make soak` full ones."""

from __future__ import annotations

import os

FULL = os.environ.get("OUTLIVE_TEST_SIZE", "small") == "full"


def pick(*, small: int, full: int) -> int:
    """Give the size of this tier."""
    return full if FULL else small
