"""Changing code under runs that are under way: what a body asks, and what an operator sees of each version.

Replay and divergence are the engine's; which worker may continue a run is the
claim's business. Invariant: what a body is answered here, its replay is answered too.
"""

from __future__ import annotations

from outlive.definitions import current_execution
from outlive.engine.execution import Execution
from outlive.errors import UsageError
from outlive.model.options import check_name

__all__ = ["patched"]


def _in_workflow(name: str) -> Execution:
    execution = current_execution()
    if execution is None:
        raise UsageError(f"outlive.{name} is for workflow bodies; here no run is executing")
    return execution


def patched(name: str, /) -> bool:
    """Say whether this run takes the new path: `if outlive.patched("fee"): … else: …`. A plain call.

    False for a run that went past this point under the code before the change,
    so that it repeats what it did; True for new runs and those that have not come
    here yet. In a loop each pass is a point of its own: ask before the loop to
    decide for all of it.
    *Durable*: the answer, as an entry of kind `patch`.
    *Again*: replay gives the same answer. Once no unfinished run has started
    before the change (`app.versions()`), delete the old path and the call;
    answers that the code no longer asks for are no divergence.
    """
    return _in_workflow("patched").patched(check_name(name))
