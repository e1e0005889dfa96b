"""One setting for two tiers: `make test` runs small sizes, `make soak` full ones.

OUTLIVE_TEST_SIZE is `small`, `full`, or the share of the full sizes that there
is time for, such as 0.2.
"""

from __future__ import annotations

import os

SIZE = os.environ.get("OUTLIVE_TEST_SIZE", "small")
ENVIRONMENT = {"OUTLIVE_TEST_SIZE": SIZE}  # for processes that have not the one of the tests
SHARE = float({"small": "0", "full": "1"}.get(SIZE, SIZE))
FULL = SHARE == 1.0
SOAK = SHARE > 0.0


def pick(*, small: int, full: int) -> int:
    """Give the size of this tier."""
    return max(small, round(full * SHARE)) if SOAK else small
