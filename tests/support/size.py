"""One setting for two tiers: `make test` runs small sizes, `make soak` full ones.

OUTLIVE_TEST_SIZE is `small`, `full`, or the share of the full sizes that there
is time for, such as 0.2.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest

SIZE = os.environ.get("OUTLIVE_TEST_SIZE", "small")
ENVIRONMENT = {"OUTLIVE_TEST_SIZE": SIZE}  # for processes that have not the one of the tests
SHARE = float({"small": "0", "full": "1"}.get(SIZE, SIZE))
FULL = SHARE == 1.0
SOAK = SHARE > 0.0


def pick(*, small: int, full: int) -> int:
    """Give the size of this tier."""
    return max(small, round(full * SHARE))


STORES = ("sqlite", "postgres")
CALM_LEASE_S = 20.0  # a death is told by a lock at once; a machine that stands still for some seconds is none


def by_turns(names: str, cases: Sequence[Any], ids: Sequence[str] | None = None) -> pytest.MarkDecorator:
    """Play each case of a test that takes `url` on both stores at full size, else on one and the other by turns."""
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    named = ids or ["-".join(map(str, value)) for value in values]
    played = [
        pytest.param(store, *value, id=f"{store}-{name}")
        for number, (value, name) in enumerate(zip(values, named, strict=True))
        for store in (STORES if SOAK else STORES[number % 2 :][:1])
    ]
    return pytest.mark.parametrize(("url", *names.replace(",", " ").split()), played, indirect=["url"])
