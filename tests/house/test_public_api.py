"""What `import outlive` offers exists, is documented, and costs nothing that was not asked for."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import outlive
from outlive import errors
from tests.house.source import SRC

# The frozen words: removing one is a breaking change.
PROMISED = {
    "Outlive",
    "Retry",
    "Run",
    "Status",
    "gather",
    "group",
    "info",
    "map",
    "now",
    "race",
    "random",
    "sleep",
    "sleep_until",
    "start",
    "step",
    "transaction",
    "uuid",
    "workflow",
}
ERRORS = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.OutliveError) and not name.startswith("_")
}
# Loaded on first use, or not at all.
LAZY = ["apsw", "asyncpg", "attrs", "click", "cronsim", "hypothesis", "psycopg", "pydantic", "pytest", "sqlalchemy"]
LAZY += ["asgiref", "django", "fastapi", "flask", "pydantic_ai", "starlette"]


def test_all_is_complete():
    assert len(outlive.__all__) == len(set(outlive.__all__))
    missing = [name for name in outlive.__all__ if not hasattr(outlive, name)]
    assert not missing
    assert not (PROMISED | ERRORS) - set(outlive.__all__)


@pytest.mark.parametrize("name", sorted(outlive.__all__))
def test_public_name_is_documented(name):
    value = getattr(outlive, name)
    if not callable(value) or not hasattr(value, "__module__"):
        return
    assert (inspect.getdoc(value) or "").strip(), f"outlive.{name} has no docstring"
    if inspect.isclass(value):
        bare = [
            member
            for member, function in vars(value).items()
            if inspect.isfunction(function) and not member.startswith("_") and not inspect.getdoc(function)
        ]
        assert not bare, f"methods of outlive.{name} without docstring: {bare}"


def test_version_is_that_of_the_distribution():
    pyproject = (SRC.parent / "pyproject.toml").read_text()
    assert f'version = "{outlive.__version__}"' in pyproject


def test_import_loads_no_extra():
    code = f"import sys, outlive; print(*[name for name in {LAZY!r} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SRC, env={"PYTHONPATH": str(SRC)}
    )
    assert loaded.stdout.split() == []
