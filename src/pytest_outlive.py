"""The pytest plugin of Outlive: fixtures for tests of durable workflows. See docs/how-to/testing.md.

It stands beside the package, so that a test session that uses none of it does not import Outlive.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from outlive.testing import Simulation, VirtualApp

SEEDS = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("outlive")
    group.addoption(
        "--outlive-replay",
        action="store_true",
        help="replay every run of an outlive_app from its journal after each outcome",
    )
    group.addoption(
        "--outlive-seeds",
        type=int,
        default=SEEDS,
        metavar="N",
        help=f"seeds of each outlive_simulate (default {SEEDS})",
    )
    group.addoption(
        "--outlive-seed",
        type=int,
        metavar="SEED",
        help="play this one seed in each outlive_simulate: to repeat a failure",
    )


@pytest.fixture
def outlive_app(request: pytest.FixtureRequest) -> Iterator[Callable[..., VirtualApp]]:
    """Give what makes an app in memory, on virtual time, from the settings of VirtualApp."""
    from outlive.testing import VirtualApp

    made: list[VirtualApp] = []

    def make(**settings: Any) -> VirtualApp:
        settings.setdefault("replay", request.config.getoption("--outlive-replay"))
        made.append(VirtualApp(**settings))
        return made[-1]

    yield make
    assert not [app for app in made if app.is_open], "an app was left open: use `async with outlive_app() as app:`"


@pytest.fixture
def outlive_simulate(request: pytest.FixtureRequest) -> Callable[..., list[Simulation]]:
    """Play `simulate(drive, include=…, check=…)` for many seeds; takes what it takes but the seed."""
    from outlive.testing import SimulationFailed, simulate

    def play(drive: Any, **settings: Any) -> list[Simulation]:
        settings.setdefault("limit_s", 366 * 86_400.0)  # idle time costs nothing
        one, count = request.config.getoption("--outlive-seed"), request.config.getoption("--outlive-seeds")
        done = []
        for seed in [one] if one is not None else range(count):
            try:
                done.append(simulate(drive, seed=seed, **settings))
            except SimulationFailed as failed:
                failed.add_note(f"repeat it: pytest '{request.node.nodeid}' --outlive-seed={seed}")
                raise
        return done

    return play


@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test that uses `outlive_app` where no other plugin runs async tests."""
    function = pyfuncitem.obj
    if "outlive_app" not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(function):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    with asyncio.Runner() as runner:
        runner.run(_run_alone(functools.partial(function, **{name: pyfuncitem.funcargs[name] for name in names})))
    return True


async def _run_alone(test: Callable[[], Any]) -> None:
    await test()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
