"""A process dies while it prunes, between the archive and the delete too: every run is in the one or the other."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.crash import databases
from tests.crash.children import Child
from tests.crash.conftest import LEASE_S, make_url
from tests.crash.points import STORES
from tests.crash.program import DOOMED
from tests.support.faults import PointFault

ALL = {f"doomed-{number}" for number in range(DOOMED)}
IDS = "select id from outlive_runs"


def read_archive(folder: Path) -> Counter[str]:
    """Count the runs of the lines that are complete."""
    path = folder / "archive"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return Counter(json.loads(line)["id"] for line in lines)


@pytest.mark.parametrize("edge", ["before", "after"])
@pytest.mark.parametrize("passage", [1, 2, 3])
@pytest.mark.parametrize("store", STORES)
def test_a_kill_loses_no_run(store: str, passage: int, edge: str, tmp_path: Path) -> None:
    url = make_url(store, tmp_path)
    with Child("doom", url, tmp_path, lease_s=LEASE_S) as child:
        child.wait_done()
    with Child("prune", url, tmp_path, lease_s=LEASE_S, faults=[PointFault(f"prune.{edge}", "kill", passage)]) as child:
        child.wait_dead()
    left = {run_id for (run_id,) in databases.read_untouched(url, IDS)}
    archived = read_archive(tmp_path)
    assert left | set(archived) == ALL
    assert len(ALL - left) == min(2 * (passage - (edge == "before")), DOOMED)
    with (tmp_path / "archive").open("a") as file:
        file.write('{"id":"half a li')  # as a death in the middle of a line leaves it
    with Child("prune", url, tmp_path, lease_s=LEASE_S) as child:
        child.wait_done()
    assert not databases.read(url, IDS)
    twice = read_archive(tmp_path) - archived
    assert set(read_archive(tmp_path)) == ALL
    assert set(twice) == left
