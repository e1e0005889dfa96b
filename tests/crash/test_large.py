"""A process dies around each commit of a run with large payloads: it is finished, and no payload is left over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.crash import databases
from tests.crash.children import Child
from tests.crash.conftest import LEASE_S, make_url
from tests.crash.points import STORES
from tests.crash.program import BULK
from tests.crash.records import Moment, check_ledger, read_ledger, read_settled
from tests.support.faults import PointFault

COMMITS = 8  # of which the small ones may come together
STEPS = {("bulky", "grow#1"), ("bulky", "label#1"), ("bulky/bulky#1", "grow#1"), ("bulky/bulky#1", "label#1")}


@pytest.mark.parametrize("edge", ["before", "after"])
@pytest.mark.parametrize("passage", range(1, COMMITS + 1))
@pytest.mark.parametrize("store", STORES)
def test_a_kill_leaves_nothing_over(store: str, passage: int, edge: str, tmp_path: Path) -> None:
    url = make_url(store, tmp_path)
    fault = PointFault(f"commit.{edge}", "kill", passage)
    with Child("bulk", url, tmp_path, lease_s=LEASE_S, faults=[fault]) as child:
        child.wait_dead()
    moment = Moment(len(read_ledger(tmp_path)), read_settled(url))
    with Child("bulk", url, tmp_path, lease_s=LEASE_S) as child:
        child.wait_done()
    ledger = read_ledger(tmp_path)
    assert set(ledger) == STEPS
    check_ledger(ledger, [moment], dict.fromkeys(STEPS, 1))  # type: ignore[arg-type]
    ((output,),) = databases.read(url, "select output from outlive_runs where id = 'bulky'")
    assert json.loads(output) == f"<{2 * len(BULK)}><{2 * len(BULK[1:])}>{BULK[1:] * 2}"
    prefix = "outlive." if store == "postgres" else "ol_"
    kept = (
        "select row, input from {0}runs union select row, output from {0}runs union select row, value from {0}entries"
    )
    refer = {(row, text) for row, text in databases.read(url, kept.format(prefix)) if text and text[0] == "@"}
    assert len(refer) == 7  # arguments, step and result of two runs, and the result as the parent's outcome
    assert refer == set(databases.read(url, f"select row, name from {prefix}blobs"))
