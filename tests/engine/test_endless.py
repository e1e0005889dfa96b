"""A process that works without end stays as it is: nothing of a finished run remains in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.house.source import ROOT, SRC
from tests.support.evidence import Evidence
from tests.support.size import FULL, pick

RUNS = pick(small=3_000, full=200_000)
BLOCKS_PER_RUN = 0.02  # a run takes some hundreds; caches of Python and of the drivers still grow a little
BLOCKS_OF_CACHES = 2_000
RSS_KB = 10_000  # over the second half, when SQLite's page caches are full


@pytest.mark.timeout(pick(small=120, full=3_600))
def test_memory_is_flat(url: str, evidence: Evidence) -> None:
    measured = run_endless(url)
    begin, half, end = measured[0], measured[len(measured) // 2], measured[-1]
    assert [each["runs"] for each in measured] == [number * RUNS // 10 for number in range(11)]
    assert end["waits"] == 0
    assert end["tasks"] == begin["tasks"]
    blocks = end["blocks"] - half["blocks"]
    assert blocks < BLOCKS_OF_CACHES + BLOCKS_PER_RUN * RUNS / 2, measured
    if FULL:
        assert end["rss_kb"] - half["rss_kb"] < RSS_KB, measured
    evidence(
        "memory over many runs",
        "sqlite" if url.startswith("sqlite") else "postgres",
        runs=RUNS,
        rss_mb=" → ".join(f"{each['rss_kb'] / 1000:.0f}" for each in measured),
        blocks_left_by_a_run=f"{blocks / (RUNS / 2):.4f}",
    )


def run_endless(url: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.endless", url, str(RUNS)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
