"""The plugin as a user has it: in a pytest of its own, with its options, failure texts and costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.source import SRC

SHOP = """
import outlive, random
from outlive import step, workflow
from outlive.testing import VirtualApp

done = []

@step
async def charge(order: str) -> str:
    done.append(order)
    return order

@workflow
async def order(name: str) -> str:
    await charge(name)
    await outlive.sleep(days=3)
    return await charge(name + "!")

@workflow
async def loose(name: str) -> str:
    if len(done) % 2:
        return await charge(name)
    await outlive.sleep(1)
    await charge(name)
    return await charge(name)
"""


def run_pytest(folder: Path, test: str, *options: str) -> tuple[int, str]:
    """Run a test file in a process of its own; give its exit code and what it printed."""
    (folder / "shop.py").write_text(SHOP)
    (folder / "test_shop.py").write_text(test)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_outlive", "-p", "no:cacheprovider", "-W", "error", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SRC), "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_an_async_test_needs_no_other_plugin(tmp_path):
    code, text = run_pytest(
        tmp_path,
        """
import shop

async def test_order(outlive_app):
    async with outlive_app() as app:
        app.crash_at(shop.charge, "after")
        run = await app.start(shop.order, "7")
        await app.advance("3 days")
        assert await run.result() == "7!"
    assert shop.done == ["7", "7", "7!"]
""",
    )
    assert code == 0, text
    assert "1 passed" in text


def test_it_works_under_anyio(tmp_path):
    code, text = run_pytest(
        tmp_path,
        """
import anyio, pytest, shop

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def app(outlive_app, anyio_backend):
    async with outlive_app() as app:
        yield app

@pytest.mark.anyio
async def test_order(app):
    run = await app.start(shop.order, "7")
    await app.advance("3 days")
    assert await run.result() == "7!"
""",
        "-p",
        "anyio.pytest_plugin",
    )
    assert code == 0, text
    assert "1 passed" in text


def test_sync_tests_bring_their_loop(tmp_path):
    code, text = run_pytest(
        tmp_path,
        """
import asyncio, shop

def test_order(outlive_app):
    async def play():
        async with outlive_app() as app:
            return await (await app.start(shop.order, "7")).result("1 week")
    assert asyncio.run(play()) == "7!"
""",
    )
    assert code == 0, text


def test_the_option_forces_replay(tmp_path):
    test = """
import shop

async def test_loose(outlive_app):
    async with outlive_app() as app:
        await (await app.start(shop.loose, "7", id="loose")).result("1 day")
"""
    code, text = run_pytest(tmp_path, test)
    assert code == 0, text
    code, text = run_pytest(tmp_path, test, "--outlive-replay")
    assert code == 1, text
    assert "JournalMismatch: run 'loose' diverged at sleep#1" in text, text


def test_an_app_left_open_and_tasks_left_behind_are_told(tmp_path):
    code, text = run_pytest(
        tmp_path,
        """
import asyncio, shop

async def test_open(outlive_app):
    app = outlive_app()
    await app.open()
    await app.close()

async def test_tasks(outlive_app):
    kept.append(asyncio.create_task(asyncio.sleep(100)))

kept = []
""",
    )
    assert code == 1, text
    assert "1 failed, 1 passed" in text
    assert "tasks left behind" in text


SIMULATED = """
import shop
from outlive import Status

async def drive(app, world):
    await (await app.start(shop.order, "7", id="order-7")).result()

def check(world, simulation):
    assert simulation.runs["order-7"].status == Status.SUCCEEDED
    played.append(simulation.seed)
    {more}

played = []

def test_order(outlive_simulate):
    outlive_simulate(drive, include=[shop.order], check=check)
    print("played", played)
"""


@pytest.mark.parametrize(
    ("options", "played"), [([], range(20)), (["--outlive-seeds=3"], range(3)), (["--outlive-seed=71"], [71])]
)
def test_seeds_are_played(tmp_path, options, played):
    code, text = run_pytest(tmp_path, SIMULATED.format(more=""), "-s", *options)
    assert code == 0, text
    assert f"played {list(played)}" in text


def test_a_failing_seed_is_told_with_its_faults_and_repeated(tmp_path):
    test = SIMULATED.format(more="assert not any(' kill ' in line for line in simulation.trace), 'charged twice'")
    code, text = run_pytest(tmp_path, test)
    assert code == 1, text
    assert "faults that are enough:" in text
    assert "kill_" in text
    seed = text.partition("--outlive-seed=")[2].split()[0]
    assert f"repeat it: pytest 'test_shop.py::test_order' --outlive-seed={seed}" in text
    code, again = run_pytest(tmp_path, test, f"--outlive-seed={seed}")
    assert code == 1
    assert f"seed {seed}: charged twice" in again


def test_it_costs_nothing_unused(tmp_path):
    code, text = run_pytest(
        tmp_path,
        """
import sys

def test_nothing():
    assert not [name for name in sys.modules if name.split(".")[0] in ("outlive", "msgspec")]
""",
    )
    assert code == 0, text
