"""One app of `outlive.sync` for each process of a web server, opened where it is first used.

Servers load an application, fork, and tell nobody. Invariant: no process uses an
app that another has opened.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from outlive import sync
from outlive.engine.bodies import thread_scope

T = TypeVar("T")
Scope = Callable[[], AbstractContextManager[object]]


class PerProcess:
    """Opens what `make` gives; the end of the process closes it. Plain steps execute within `scope()`."""

    def __init__(self, make: Callable[[], sync.Outlive], scope: Scope) -> None:
        self._make = make
        self._scope = scope
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._app: sync.Outlive | None = None

    def get(self) -> sync.Outlive:
        """Give the app of this process, open."""
        with self._lock:
            if self._app is None or not self._app._portal.is_open:
                app = self._make()
                enclosed(self._scope, app.open)
                self._app = app
            return self._app


def enclosed(scope: Scope, work: Callable[[], T]) -> T:
    """Do something that opens an app whose plain steps execute within `scope()`."""
    context = contextvars.copy_context()
    context.run(thread_scope.set, scope)
    return context.run(work)
