"""The demo as a process: its verdict, its figures, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import psutil
import pytest

from outlive.demo.audit import Audit, Recorded, executed_again
from outlive.demo.orders import load_orders
from outlive.demo.service import Ledger


def test_demo_passes_its_audit(run_cli):
    report = run_cli.json("demo", "--orders", "40", "--kills", "3", "--seed", "7")
    assert report["passed"] is True
    assert report["deaths"] == 3
    assert report["finished"] == report["charges"] == report["bookings"] == report["receipts"] == 40
    assert report["ordered_cents"] == report["charged_cents"] == report["booked_cents"] > 0
    assert report["steps_replayed"] > 0
    assert report["executed_again"] == report["doubled"] == []


def test_demo_prints_plain_lines_without_a_terminal(run_cli):
    text = run_cli("demo", "--orders", "12", "--kills", "1").stdout
    assert "SIGKILL" in text
    assert "12/12 orders finished" in text
    assert "outlived" in text
    assert "\x1b" not in text
    assert "\r" not in text


def test_all_kills_take_place_though_the_work_is_done_before(run_cli):
    report = run_cli.json("demo", "--orders", "1", "--kills", "4", "--seed", "7")
    assert report["passed"] is True
    assert report["deaths"] == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_stays_behind(run_cli, number):
    demo = run_cli.start("demo", "--orders", "50", "--kills", "0")
    try:
        child = _await_child(demo.pid)
    finally:
        os.kill(demo.pid, number)
        demo.communicate(timeout=30)
    assert demo.returncode == (130 if number != signal.SIGKILL else -signal.SIGKILL)
    child.wait(timeout=10)


def _await_child(pid: int) -> psutil.Process:
    while not (children := psutil.Process(pid).children()):
        time.sleep(0.02)
    return children[0]


def test_orders_come_again_under_new_ids():
    orders = load_orders(450)
    assert len({order.id for order in orders}) == 450
    assert orders[200].cents == orders[0].cents
    assert sum(order.cents for order in load_orders(3)) == sum(order.cents for order in orders[:3])


@pytest.mark.parametrize(
    "wrong",
    [
        {"finished": 1},
        {"bookings": 3},
        {"receipts": 1},
        {"charged_cents": 400},
        {"booked_cents": 299},
        {"wrong_amounts": ["A1"]},
        {"doubled": ["booking of A1"]},
        {"executed_again": ["charge of A1"]},
    ],
    ids=str,
)
def test_audit_notices(wrong):
    good = Audit(
        orders=2,
        finished=2,
        ordered_cents=300,
        charged_cents=300,
        booked_cents=300,
        charges=2,
        bookings=2,
        receipts=2,
        wrong_amounts=[],
        doubled=[],
        executed_again=[],
        deaths=1,
        resumed=0,
        steps_replayed=1,
        provider_errors=0,
        provider_late=0,
        repeated_requests=0,
    )
    assert good.passed
    bad = replace(good, **wrong)
    assert not bad.passed
    assert "FAIL" in bad.report()
    assert bad.to_json()["passed"] is False


def test_recorded_step_that_asks_again_is_noticed():
    ledger = Ledger()
    ledger.requests.update({("/charges", "A1"): 1, ("/receipts", "A2"): 1})
    recorded: Recorded = {("A1", "charge"): 1, ("A2", "mail_receipt"): 1, ("A2", "book"): 0}
    assert executed_again(recorded, ledger) == []
    ledger.requests["/charges", "A1"] += 1
    assert executed_again(recorded, ledger) == ["charge of A1"]


def test_provider_charges_a_key_once():
    ledger = Ledger()
    first = ledger.perform("/charges", "A1", {"cents": 100})
    assert ledger.perform("/charges", "A1", {"cents": 100}) == first
    assert ledger.charged == [("A1", 100)]
