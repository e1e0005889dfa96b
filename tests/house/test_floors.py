"""Imports go down the floors only, and never in a circle; lazy and TYPE_CHECKING imports count."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

import pytest

from tests.house.source import MODULES, imports_of, is_stdlib

T = TypeVar("T")

# The longest entry that is the module or a package around it gives the floor.
FLOORS = {
    "outlive.errors": 0,
    "outlive.clock": 0,
    "outlive.ids": 0,
    "outlive.limits": 0,
    "outlive.hooks": 0,
    "outlive.model": 1,
    "outlive.codec": 1,
    "outlive.store": 2,
    "outlive.engine": 3,
    "outlive": 4,  # what users import, and what it is made of
    "outlive.agents": 5,
    "outlive.sandbox": 5,
    "outlive.actors": 5,
    "outlive.cells": 5,
    "outlive.views": 5,
    "outlive.tales": 5,
    "outlive.cli": 6,
    "outlive.__main__": 6,
    "outlive.web": 6,
    "outlive.telemetry": 6,
    "outlive.integrations": 6,
    "outlive.demo": 6,
}

# What a part may load besides the standard library and Outlive itself.
FOREIGN = {
    "outlive": {"cronsim", "msgspec", "psycopg", "sqlalchemy"},
    "outlive.errors": set(),
    "outlive.clock": set(),
    "outlive.ids": set(),
    "outlive.limits": set(),
    "outlive.hooks": set(),
    "outlive.model": {"msgspec"},
    "outlive.model.ticks": {"cronsim", "msgspec"},
    "outlive.codec": {"attrs", "msgspec", "pydantic"},
    "outlive.store": {"apsw", "asyncpg", "msgspec", "psycopg", "sqlalchemy"},
    "outlive.engine": set(),
    "outlive.questions": {"jsonschema", "msgspec", "referencing"},
    "outlive.agents": {"genai_prices", "msgspec", "pydantic", "pydantic_ai"},
    "outlive.agents.guards.probe": {"pytest"},  # in a process of its own
    "outlive.agents.guards.validation": {"pydantic", "pydantic_ai", "pydantic_core"},
    "outlive.testing": {"hypothesis", "pytest"},
    "outlive.cli": {"click", "apsw", "asyncpg"},
    "outlive.cli.chatting": {"pydantic_ai"},
    "outlive.cli.screen": {"click", "pydantic_ai"},
    "outlive.demo": set(),
    "outlive.integrations": set(),
    "outlive.integrations.starlette": {"msgspec", "starlette"},
    "outlive.integrations.fastapi": {"fastapi"},
    "outlive.integrations.flask": {"click", "flask", "werkzeug"},
    "outlive.integrations.django": {"asgiref", "django"},
    "outlive.integrations.mcp": {"jsonschema", "mcp", "mcp_types", "msgspec"},
}


def _lookup(table: Mapping[str, T], module: str) -> T:
    while module not in table:
        module = module.rpartition(".")[0]
    return table[module]


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.name)
def test_imports_go_down(module):
    floor = _lookup(FLOORS, module.name)
    up = [
        f"{module.place}:{line}: floor {floor} imports {name} of floor {_lookup(FLOORS, name)}"
        for name, line in imports_of(module)
        if name.split(".")[0] == "outlive" and _lookup(FLOORS, name) > floor
    ]
    assert not up, "\n".join(up)


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.name)
def test_foreign_imports_are_listed(module):
    allowed = _lookup(FOREIGN, module.name)
    foreign = [
        f"{module.place}:{line}: {name}"
        for name, line in imports_of(module)
        if name.split(".")[0] not in {"outlive", *allowed} and not is_stdlib(name)
    ]
    assert not foreign, "\n".join(foreign)


def test_engine_knows_only_the_interface_of_a_store():
    wrong = [
        f"{module.place}:{line}: {name}"
        for module in MODULES.values()
        if module.name.startswith("outlive.engine")
        for name, line in imports_of(module)
        if name.startswith("outlive.store") and name not in ("outlive.store.interface", "outlive.store.refusals")
    ]
    assert not wrong, "\n".join(wrong)


def test_stores_know_nothing_of_each_other():
    pair = {"outlive.store.sqlite": "outlive.store.postgres", "outlive.store.postgres": "outlive.store.sqlite"}
    wrong = [
        f"{module.place}:{line}: {name}"
        for module in MODULES.values()
        for own, other in pair.items()
        if module.name.startswith(own)
        for name, line in imports_of(module)
        if name.startswith(other)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_cycle():
    graph = {
        module.name: {name for name, _ in imports_of(module) if name in MODULES and name != module.name}
        for module in MODULES.values()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " <- ".join(error.args[1]))


def test_every_import_of_the_package_exists():
    missing = [
        f"{module.place}:{line}: {name}"
        for module in MODULES.values()
        for name, line in imports_of(module)
        if name.split(".")[0] == "outlive" and name not in MODULES
    ]
    assert not missing, "\n".join(missing)
