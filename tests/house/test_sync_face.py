"""The sync face says what the async one says: its classes are as generated, its functions are all there."""

from __future__ import annotations

import importlib
import inspect

import pytest

import outlive
from outlive import ambient, messages, questions, sync, versions
from outlive.sync import inboxes
from tools.sync_face import files

# Functions of workflow bodies that a plain body has no use for.
ASYNC_ONLY = {
    "gather": "branches",
    "group": "branches",
    "map": "branches",
    "race": "branches",
}


@pytest.mark.parametrize(("path", "text"), files().items(), ids=lambda value: getattr(value, "name", "text"))
def test_classes_are_as_generated(path, text):
    assert path.read_text(encoding="utf-8") == text, "run `python -m tools.sync_face`"


def test_each_function_of_bodies_has_a_plain_twin():
    offered = [*ambient.__all__, *messages.__all__, *questions.__all__, *versions.__all__]
    functions = {name for name in offered if not inspect.isclass(getattr(outlive, name))}
    plain = {name for name in sync.__all__ if not inspect.isclass(getattr(sync, name))}
    assert plain == functions - set(ASYNC_ONLY)
    for name in plain - {"shielded"}:
        assert inspect.signature(getattr(sync, name)) == inspect.signature(getattr(outlive, name)), name


def test_both_faces_have_the_same_methods():
    for name in ("Outlive", "Run"):
        sync_class, async_class = getattr(sync, name), getattr(outlive, name)
        public = {member for member in dir(async_class) if not member.startswith("_")}
        assert public - {member for member in dir(sync_class) if not member.startswith("_")} == set()


def test_inboxes_have_the_same_methods_on_both_faces():
    for name in ("approvals", "budgets", "questions", "reviews"):
        async_class = inspect.signature(getattr(importlib.import_module(f"outlive.{name}"), name)).return_annotation
        real = getattr(importlib.import_module(f"outlive.{name}"), async_class)
        plain = getattr(inboxes, async_class)
        for member in dir(real):
            if (
                not member.startswith("_")
                and callable(getattr(real, member))
                and not inspect.isclass(getattr(real, member))
            ):
                assert list(inspect.signature(getattr(plain, member)).parameters) == list(
                    inspect.signature(getattr(real, member)).parameters
                ), (name, member)
