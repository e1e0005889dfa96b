"""Which definitions an app serves, by name. Clashes are found per app, on entry or first use, and name both places.

Without `include` an app serves every workflow declared in the process; a name
that two of them share belongs to the one that this app starts, else to nobody.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from outlive.definitions import Step, Workflow, declared
from outlive.errors import UsageError
from outlive.model.definition import StepSpec, WorkflowSpec

log = logging.getLogger("outlive.app")


class Registry:
    """The workflows of one app."""

    def __init__(self, include: Iterable[Any] | None) -> None:
        self._open = include is None
        self._workflows: dict[str, WorkflowSpec] = {}
        self._steps: dict[str, StepSpec] = {}
        self._used: set[str] = set()  # names bound by a start or by include: later declarations do not matter
        self._clashing: set[str] = set()
        self._seen = -1
        for definition in _definitions_in(include or ()):
            self.use(definition.spec)

    def use(self, spec: WorkflowSpec | StepSpec) -> None:
        """Bind a definition's name in this app; UsageError if another one has it."""
        if isinstance(spec, StepSpec):
            known = self._steps.setdefault(spec.name, spec)
            if known is not spec and known.site != spec.site:
                raise UsageError(_clash("steps", spec.name, known.site, spec.site))
        else:
            self._use_workflow(spec)

    def _use_workflow(self, spec: WorkflowSpec) -> None:
        known = self._workflows.get(spec.name)
        if known is None or known.site == spec.site or spec.name not in self._used:
            self._workflows[spec.name] = spec
            self._used.add(spec.name)
            self._clashing.discard(spec.name)
        else:
            raise UsageError(_clash("workflows", spec.name, known.site, spec.site))

    def find(self, name: str) -> WorkflowSpec | None:
        """Give the workflow of a name, None if this app does not serve it."""
        self._refresh()
        return self._workflows.get(name) if name not in self._clashing else None

    def names(self) -> list[str]:
        """Give the names of all workflows that this app serves."""
        self._refresh()
        return [name for name in self._workflows if name not in self._clashing]

    def _refresh(self) -> None:
        if not self._open or self._seen == declared.newest:
            return
        for definition in declared.after(self._seen):
            if isinstance(definition, Workflow):
                self._adopt(definition.spec)
        self._seen = declared.newest

    def _adopt(self, spec: WorkflowSpec) -> None:
        known = self._workflows.get(spec.name)
        if known is None or known.site == spec.site:
            if spec.name not in self._used:
                self._workflows[spec.name] = spec
        elif spec.name not in self._used:
            self._clashing.add(spec.name)
            log.warning("%s", _clash("workflows", spec.name, known.site, spec.site))


def _clash(kind: str, name: str, first: str, second: str) -> str:
    return f"two {kind} are called {name!r}: at {first} and at {second}; give one of them another name=…"


def _definitions_in(include: Iterable[Any]) -> Iterator[Workflow[..., Any] | Step[..., Any]]:
    for item in include:
        if isinstance(item, Workflow | Step):
            yield item
        elif isinstance(item, ModuleType):
            yield from _definitions_of(item)
        elif isinstance(item, str):
            package = importlib.import_module(item)
            yield from _definitions_of(package)
            for found in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{item}."):
                yield from _definitions_of(importlib.import_module(found.name))
        else:
            raise UsageError(f"include=… takes modules, package names and definitions, not {item!r}")


def _definitions_of(module: ModuleType) -> Iterator[Workflow[..., Any] | Step[..., Any]]:
    for _, value in inspect.getmembers(module, lambda value: isinstance(value, Workflow | Step)):
        yield value
