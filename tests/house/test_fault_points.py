"""The fault points that the source names are those that the crash suite can enumerate."""

from __future__ import annotations

import ast
import importlib
import re

import pytest

from outlive import hooks
from tests.house.source import MODULES

NAME = re.compile(r"[a-z_]+(\.[a-z_]+)*")
STORES = ("outlive.store.sqlite", "outlive.store.postgres")
EDGES = (".before", ".after")


def _calls(function: str, within: str = "outlive") -> list[tuple[str, ast.expr]]:
    """List place and first argument of every call of `hooks.<function>`, outside hooks itself."""
    found = []
    for module in MODULES.values():
        if module.name == "outlive.hooks" or not f"{module.name}.".startswith(f"{within}."):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and _is_hook(node.func, function):
                found.append((f"{module.place}:{node.lineno}", node.args[0]))
    return found


def _is_hook(callee: ast.expr, function: str) -> bool:
    if isinstance(callee, ast.Attribute):
        return callee.attr == function and isinstance(callee.value, ast.Name) and callee.value.id == "hooks"
    return isinstance(callee, ast.Name) and callee.id == function and function != "point"


def _literal(argument: ast.expr, constants: dict[str, str]) -> str | None:
    """Give the text of a literal, of a constant, or of `CONSTANT + ".before"`."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return argument.value
    if isinstance(argument, ast.Name):
        return constants.get(argument.id)
    if isinstance(argument, ast.BinOp):
        left, right = _literal(argument.left, constants), _literal(argument.right, constants)
        return None if left is None or right is None else left + right
    if isinstance(argument, ast.JoinedStr):
        parts = [
            _literal(part.value if isinstance(part, ast.FormattedValue) else part, constants)
            for part in argument.values
        ]
        return None if None in parts else "".join(part for part in parts if part)
    return None


def _site_constants() -> dict[str, str]:
    """Give `NAME = hooks.declare_site("…")` by name."""
    return {
        node.targets[0].id: str(node.value.args[0].value)
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Call)
        and _is_hook(node.value.func, "declare_site")
        and isinstance(node.value.args[0], ast.Constant)
    }


def _names(function: str, within: str = "outlive") -> dict[str, str]:
    constants = _site_constants()
    found = {}
    for place, argument in _calls(function, within):
        name = _literal(argument, constants)
        assert name is not None, f"{place}: the name of a fault point is a literal, so that it can be enumerated"
        found[name] = place
    return found


def test_names_are_words_with_dots():
    for function in ("point", "commit_site", "declare_site"):
        for name, place in _names(function).items():
            assert NAME.fullmatch(name), f"{place}: {name}"


@pytest.mark.parametrize("store", STORES)
def test_a_store_declares_a_site_once(store):
    constants = _site_constants()
    names = [_literal(argument, constants) for f in ("commit_site", "declare_site") for _, argument in _calls(f, store)]
    assert len(names) == len(set(names)), sorted(str(name) for name in names if names.count(name) > 1)


def test_both_stores_have_the_same_sites():
    sqlite, postgres = (_names("commit_site", store) | _names("declare_site", store) for store in STORES)
    assert sqlite.keys() == postgres.keys()


def test_declared_sites_set_both_points():
    points = set(_names("point"))
    for site, place in _names("declare_site").items():
        missing = [site + edge for edge in EDGES if site + edge not in points]
        assert not missing, f"{place}: {missing} are not set"


def test_edges_belong_to_a_site():
    declared = _names("declare_site")
    for name, place in _names("point").items():
        if name.endswith(EDGES):
            assert name.rpartition(".")[0] in declared, f"{place}: {name} belongs to no declared site"


def test_running_code_knows_the_same_sites():
    for name in MODULES:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    assert set(_names("commit_site")) | set(_names("declare_site")) == hooks.SITES
