"""`guarded(…)`: an agent works on a folder until a check passes that it cannot reach; else a person decides.

Owns the order of pinning, attempts, checks and reviews; what a change is worth is
decided by `ratchet`, from files and evidence. It must not know what an agent says.
Invariant: what the journal holds is enough to go on. The tree as it was, and each
attempt's changes, are entries, so a crash loses neither, and replay neither runs
an attempt nor checks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from pydantic_ai.exceptions import AgentRunError

from outlive.agents.budget import Budget, check_budgets
from outlive.agents.guards.evidence import Evidence
from outlive.agents.guards.ratchet import find_cheats, find_faults, find_tampering
from outlive.agents.guards.together import together
from outlive.agents.guards.tree import (
    Changes,
    Tree,
    apply_changes,
    compare_trees,
    digest_tree,
    is_among,
    read_tree,
    restore_tree,
    write_changes,
    write_tree,
)
from outlive.agents.guards.verifier import HIDDEN, Verifier
from outlive.clock import Duration, seconds
from outlive.definitions import in_workflow, step
from outlive.engine.roles import LiveRun
from outlive.errors import GuardRefused, LimitError, UsageError
from outlive.limits import ASK_FOR_S, FAULTS_EXPLAINED_MAX, FAULTS_TOLD_MAX
from outlive.model.options import check_count
from outlive.reviews import ask_for_review


@dataclass(frozen=True)
class Attempt:
    """One attempt, as it is recorded: what it changed, and what keeps it from passing.

    `refused` are the reasons why a person has to look at it; `error` says how the agent's run ended, if not well;
    `digest` stands for all of its changes.
    """

    number: int
    verdict: Literal["passed", "failed", "refused"]
    digest: str
    changed: list[str]
    faults: dict[str, str]
    refused: list[str]
    error: str | None = None


@dataclass(frozen=True)
class Guarded:
    """What a guarded loop has come to: its attempts, and what the accepted one made of the folder.

    `changes` are the files as they were checked, None for one that is gone; `accepted_by` is who accepted them
    although the check did not.
    """

    attempts: list[Attempt]
    changes: Changes
    accepted_by: str | None = None

    def apply(self, folder: str | PathLike[str]) -> None:
        """Make the accepted changes in a folder, such as a clean checkout. *Again*: it is the same; for steps."""
        write_changes(self.changes, Path(folder))


@dataclass(frozen=True)
class _Pinned:
    tree: Tree
    hidden: Tree
    baseline: Evidence


@dataclass(frozen=True)
class _Checked:
    attempt: Attempt
    changes: Changes = field(default_factory=dict)


async def guarded(
    attempt: Callable[[str], Awaitable[object]],
    *,
    check: Verifier,
    workspace: str | PathLike[str],
    attempts: int = 5,
    patience: int = 2,
    expires: Duration = ASK_FOR_S,
    budget: Budget | Sequence[Budget] | None = None,
) -> Guarded:
    """Let an agent work on a folder, in a workflow, until the check passes.

    `attempt(feedback)` runs a durable agent that edits the `workspace`; the feedback, empty at first, says what is
    wrong. What it returns is ignored. After `attempts`, after `patience` of them without fewer faults, after the same
    change twice, at a limit, and at once where a change is refused, a person decides within `expires`, see `reviews`.
    `budget` limits what all attempts together may use, see `Budget`; it is a limit, too.
    *Durable*: the tree before the first attempt, then of each attempt its changes, their digest, what fails and why.
    *Again*: replay runs no attempt and no check. A check that a crash interrupted is executed again; an attempt goes
    on as the agent's effect classes say. Where the workspace is gone, it is written anew before the next attempt.
    *Raises* GuardRefused if a person rejects, or nobody decides in time; UsageError for a folder that is no tree.
    """
    run = in_workflow("agents.guarded")
    for name, number in (("attempts", attempts), ("patience", patience)):
        check_count(f"guarded({name}=…)", number)
    seconds(expires)
    budgets = check_budgets(budget)
    async with together(run, "guarded", budgets):
        return await _loop(run, attempt, check, Path(workspace), attempts, patience, expires)


async def _loop(
    run: LiveRun,
    attempt: Callable[[str], Awaitable[object]],
    check: Verifier,
    workspace: Path,
    attempts: int,
    patience: int,
    expires: Duration,
) -> Guarded:
    pinned = await _pin(check, workspace)
    history: list[Attempt] = []
    since, feedback, changes = 0, "", Changes()
    while True:
        await _prepare(check, pinned, changes, workspace)
        error = await _try(attempt, feedback)
        checked = await _check(check, pinned, workspace, len(history) + 1, error)
        one, changes = checked.attempt, checked.changes
        history.append(one)
        feedback = _describe(one)
        if one.verdict == "passed":
            return Guarded(history, changes)
        reason = _why_stop(history[since:], attempts, patience, error)
        if reason is None:
            continue
        facts = {"workspace": str(workspace), "attempts": [asdict(each) for each in history]}
        decision = await ask_for_review("guarded loop", reason, facts, expires)
        if decision.verdict == "accept":
            return Guarded(history, changes, accepted_by=decision.by)
        if decision.verdict == "reject":
            raise GuardRefused(run.id, "guarded loop", reason, decision.by, decision.why)
        since, feedback = len(history), "\n\n".join(filter(None, [decision.why, feedback]))


async def _try(attempt: Callable[[str], Awaitable[object]], feedback: str) -> Exception | None:
    """Make one attempt; give the error with which the agent's run ended, since its files may be right all the same."""
    try:
        await attempt(feedback)
    except (AgentRunError, LimitError) as error:
        return error
    return None


# -- steps: each is executed again after a crash, and changes nothing that it has not to --------
@step(name="guard.pin", check_arguments=False)
async def _pin(check: Verifier, workspace: Path) -> _Pinned:
    tree, odd = await asyncio.to_thread(read_tree, workspace)
    if odd:
        raise UsageError(f"guarded(workspace={str(workspace)!r}): {'; '.join(odd)}")
    idle = [pattern for pattern in check.protect if not any(is_among(path, [pattern]) for path in tree)]
    if idle:
        raise UsageError(f"Verifier(protect=…): {', '.join(map(repr, idle))} protects nothing in {str(workspace)!r}")
    hidden = await asyncio.to_thread(check.read_hidden)
    baseline = await check.check(tree, hidden, workspace)
    if baseline.live:
        raise UsageError(
            f"the tests import {baseline.live[0]}, not the copy of it that is checked: the project is installed in "
            f"{check.python}; Verifier(python=…) takes one that has only what the project depends on"
        )
    if baseline.tampering or baseline.trouble or not baseline.tests:
        why = baseline.trouble or "; ".join(baseline.tampering) or "there are none"
        raise UsageError(f"the tests {list(check.tests)} cannot be executed before the first attempt: {why}")
    names = {name: replace(one, text="") for name, one in baseline.tests.items()}
    return _Pinned(tree, hidden, replace(baseline, tests=names))


@step(name="guard.prepare", check_arguments=False)
async def _prepare(check: Verifier, pinned: _Pinned, changes: Changes, workspace: Path) -> None:
    if await asyncio.to_thread(_is_gone, workspace):
        await asyncio.to_thread(write_tree, apply_changes(pinned.tree, changes), workspace)
    await asyncio.to_thread(restore_tree, pinned.tree, workspace, check.patterns)


def _is_gone(workspace: Path) -> bool:
    return not workspace.is_dir() or not any(workspace.iterdir())


@step(name="guard.check", check_arguments=False)
async def _check(check: Verifier, pinned: _Pinned, workspace: Path, number: int, error: Exception | None) -> _Checked:
    said = None if error is None else f"{type(error).__name__}: {error}"
    if await asyncio.to_thread(_is_gone, workspace):
        attempt = Attempt(number, "failed", digest_tree({}), [], {"the workspace": "it is gone"}, [], said)
        return _Checked(attempt)
    tree, refused = await asyncio.to_thread(read_tree, workspace)
    changes, faults = Changes(), dict[str, str]()
    if not refused:  # of a tree that is not read as a whole nobody can say what has changed
        changes = compare_trees(pinned.tree, tree)
        refused = await asyncio.to_thread(find_cheats, check, pinned.tree, tree)
    if not refused:
        shown = await check.check(tree, pinned.hidden, workspace)
        refused = find_tampering(check, pinned.baseline, shown)
        faults = await asyncio.to_thread(find_faults, check, pinned.tree, tree, pinned.baseline, shown)
    faults = {name: text if n < FAULTS_EXPLAINED_MAX else "" for n, (name, text) in enumerate(faults.items())}
    verdict: Any = "refused" if refused else "failed" if faults else "passed"
    return _Checked(Attempt(number, verdict, digest_tree(changes), list(changes), faults, refused, said), changes)


# -- what follows from the record: pure --------------------------------------------------------
def _why_stop(history: list[Attempt], attempts: int, patience: int, error: Exception | None) -> str | None:
    last = history[-1]
    if last.refused:
        return f"attempt {last.number} is refused: {'; '.join(last.refused)}"
    if isinstance(error, LimitError):
        return f"attempt {last.number} came to a limit: {error}"
    for earlier in history[:-1]:
        if earlier.digest == last.digest:
            return f"no progress: attempt {last.number} made the same change as attempt {earlier.number}"
    counts = [len(each.faults) for each in history]
    if len(counts) > patience and min(counts[-patience:]) >= min(counts[:-patience]):
        return (
            f"no progress: in {patience} attempts there are no fewer faults than the {min(counts[:-patience])} before"
        )
    if len(history) >= attempts:
        return f"{attempts} attempts were made, and none has passed"
    return None


def _describe(one: Attempt) -> str:
    """Give what the model reads of an attempt; of the hidden tests no more than that there are some."""
    if one.verdict == "passed":
        return ""
    shown = {name: text for name, text in one.faults.items() if not name.startswith(HIDDEN)}
    lines = [f"Refused: {reason}" for reason in one.refused if HIDDEN not in reason]
    if len(lines) < len(one.refused):
        lines.append("Refused: what it does with tests that you do not know.")
    lines += [f"{name}\n{text}".strip() for name, text in list(shown.items())[:FAULTS_TOLD_MAX]]
    if len(shown) > FAULTS_TOLD_MAX:
        lines.append(f"… and {len(shown) - FAULTS_TOLD_MAX} more")
    if len(shown) < len(one.faults):
        lines.append("The change passes the tests that you know, and not those that you do not know.")
    return "Your change was checked and does not pass.\n\n" + "\n\n".join(lines)
