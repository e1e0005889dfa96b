"""Which definitions an app serves, by name. Clashes are found per app, on entry or first use, and name both places.

Without `include` an app serves every workflow declared in the process; a name
that two of them share belongs to the one that this app starts, else to nobody.
"""

from __future__ import annotations

import gc
import importlib
import logging
import pkgutil
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from outlive.definitions import Definition, declared
from outlive.errors import UsageError
from outlive.model.definition import StepSpec, WorkflowSpec
from outlive.model.writes import claim_name

log = logging.getLogger("outlive.app")


class Registry:
    """The definitions of one app: those bound by a start, a call or `include`, and without `include` all workflows."""

    def __init__(self, include: Iterable[Any] | None) -> None:
        self._is_open = include is None
        self._steps: dict[str, StepSpec] = {}
        self._workflows: dict[str, WorkflowSpec] = {}
        self._reported: set[str] = set()
        for definition in _definitions_in(include or ()):
            self.use(definition.spec)

    def use(self, spec: WorkflowSpec | StepSpec) -> None:
        """Bind a definition's name in this app; UsageError if another one has it."""
        bound: dict[str, Any] = self._steps if isinstance(spec, StepSpec) else self._workflows
        known = [bound.get(spec.name, spec)]
        if self._is_open and isinstance(spec, WorkflowSpec) and spec.is_only_one:
            if len(_declared_as(spec.name)) > 1:
                gc.collect()  # what nobody holds any more may still be in a circle: cells of notebooks are run again
            known += [other for other in _declared_as(spec.name) if other.is_only_one]
        for other in known:
            if other.site != spec.site:
                raise UsageError(_clash(other, spec))
        bound[spec.name] = spec

    def find(self, name: str) -> WorkflowSpec | None:
        """Give the workflow of a name, None if this app does not serve it."""
        bound = self._workflows.get(name)
        if bound is not None or not self._is_open:
            return bound
        specs = _declared_as(name)
        specs = [one for one in specs if one.is_only_one] or specs
        if len(specs) > 1 and name not in self._reported:
            self._reported.add(name)
            log.warning("%s", _clash(*specs[:2]))
        return specs[0] if len(specs) == 1 else None

    def names(self) -> list[str]:
        """Give what live rows call the workflows that this app serves: each by name, and by name and version."""
        known = dict.fromkeys([*self._workflows, *declared] if self._is_open else self._workflows)
        specs = [spec for name in known if (spec := self.find(name)) is not None]
        return [name for spec in specs for name in (spec.name, claim_name(spec.name, spec.version))]


def _declared_as(name: str) -> list[WorkflowSpec]:
    """Give the workflows of the process that have this name, of each place the latest."""
    return list({one.spec.site: one.spec for one in declared.get(name, {}).values()}.values())


def _clash(first: WorkflowSpec | StepSpec, second: WorkflowSpec | StepSpec) -> str:
    places = f"at {first.site} and at {second.site}"
    return f"two {second.kind}s are called {first.name!r}: {places}; give one of them another name=…"


def check_include(include: Any) -> list[Any] | None:
    """Give what an app is to serve as a list, None for all; it is looked into when the app is opened."""
    if include is None:
        return None
    given = list(include) if isinstance(include, Iterable) and not isinstance(include, str) else [include]
    for item in given:
        if not isinstance(item, str | ModuleType | Definition):
            raise UsageError(f"include=… takes modules, package names and definitions, not {item!r}")
    return given


def _definitions_in(include: Iterable[Any]) -> Iterator[Definition[..., Any]]:
    for item in include:
        if isinstance(item, Definition):
            yield item
            continue
        if isinstance(item, str):
            package = importlib.import_module(item)
            inner = pkgutil.walk_packages(getattr(package, "__path__", ()), f"{item}.")
            modules = [package, *(importlib.import_module(found.name) for found in inner)]
        elif isinstance(item, ModuleType):
            modules = [item]
        else:
            raise UsageError(f"include=… takes modules, package names and definitions, not {item!r}")
        for module in modules:
            yield from (value for value in vars(module).values() if isinstance(value, Definition))
