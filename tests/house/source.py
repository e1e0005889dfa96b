"""Reads the source of Outlive as text and syntax trees; the house tests ask it questions."""

from __future__ import annotations

import ast
import gc
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
PACKAGE = SRC / "outlive"


@dataclass(frozen=True)
class Module:
    """One source file of the package."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def tree(self) -> ast.Module:
        return _parse(self.path)

    @property
    def place(self) -> str:
        return str(self.path.relative_to(ROOT))


@cache
def _parse(path: Path) -> ast.Module:
    gc.disable()  # Python 3.11 miscounts the depth of a tree if the collector runs finalisers while it makes one
    try:
        return ast.parse(path.read_text(encoding="utf-8"), str(path))
    finally:
        gc.enable()


def _modules() -> dict[str, Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path)
    return found


MODULES = _modules()


def imports_of(module: Module) -> list[tuple[str, int]]:
    """List what a module imports anywhere in its code, as module names with line numbers.

    `from outlive.store import interface` is an import of the submodule, and
    `import outlive.store.interface` one of the packages around it only as far as
    Python itself needs them: they are left out, as their code is their own.
    """
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.place}:{node.lineno}: relative import"
            origin = node.module or ""
            for alias in node.names:
                submodule = f"{origin}.{alias.name}"
                found.append((submodule if submodule in MODULES else origin, node.lineno))
    return found


_LATER_STDLIB = {"annotationlib"}  # since Python 3.14


def is_stdlib(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in sys.stdlib_module_names | _LATER_STDLIB
