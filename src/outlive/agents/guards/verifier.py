"""The check of a guarded loop: the project's tests, executed in a process of their own on a copy that nobody else has.

Owns the copy, the tests that cannot pass among the others, and the process; what
its report shows is read by `evidence`, what may have changed is judged by `ratchet`.
Invariant: a check sees the files it was given and no others. The workspace may go
on changing meanwhile, and nothing in it is executed.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from outlive.agents.guards.evidence import GONE, Ended, Evidence, Shown, read_evidence
from outlive.agents.guards.tree import File, Tree, find_changed, is_among, read_tree, remove_folder, write_tree
from outlive.clock import Duration, seconds
from outlive.errors import UsageError
from outlive.limits import (
    CHECK_FILE_MAX_BYTES,
    CHECK_MEMORY_MAX_BYTES,
    CHECK_OUTPUT_MAX_BYTES,
    CHECK_REPORT_MAX_BYTES,
)

# What steers pytest, Python or its imports: protected in every project, wherever it lies.
CONFIGURATION = ["**/conftest.py", "**/pytest.ini", "**/.pytest.ini", "**/pytest.toml", "**/.pytest.toml"]
CONFIGURATION += ["**/tox.ini", "**/setup.cfg", "**/setup.py", "**/pyproject.toml", "**/*.pth", "**/sitecustomize.py"]
CONFIGURATION += ["**/usercustomize.py", "**/*.dist-info", "**/*.egg-info"]
PROBE, SUPERVISE = (str(Path(__file__).with_name(name)) for name in ("probe.py", "supervise.py"))  # programs
HIDDEN = "<hidden>"  # what stands before the names of hidden tests

_CONTROL = """
import unittest
import pytest

def test_{0}():
    assert len({0!r}) == 0

def test_{1}():
    raise LookupError({1!r})

def test_{2}():
    with pytest.raises(LookupError):
        str({2!r})

class Test{3}(unittest.TestCase):
    def test_{3}(self):
        self.assertEqual({3!r}, len({3!r}))
"""


@dataclass(frozen=True)
class Verifier:
    """How a guarded loop checks a project: with pytest, in another process, on a copy, with the tests as they were.

    `tests` are what pytest is given. `protect` are patterns of files that are pinned before the work begins and
    must not be touched, as must not what configures pytest. `hidden` is a folder of more tests, outside of the
    workspace, which the agent never hears of. `python` has the project's dependencies and pytest, but not the
    project; `environment` is added to a clean one. `writable` are folders to which tests may
    write besides their own copy and temporary folder, which is all where the system has Landlock.
    """

    tests: Sequence[str] = ("tests",)
    protect: Sequence[str] = ("tests",)
    hidden: str | os.PathLike[str] | None = None
    timeout: Duration = 120.0
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)
    writable: Sequence[str | os.PathLike[str]] = ()

    def __post_init__(self) -> None:
        for name in ("tests", "protect"):
            if isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UsageError(f"Verifier({name}=…) is a list of paths, not {getattr(self, name)!r}")
            for path in getattr(self, name):
                if not isinstance(path, str) or PurePosixPath(path).is_absolute() or ".." in path.split("/"):
                    raise UsageError(f"Verifier({name}=…) takes paths within the workspace, not {path!r}")
        if isinstance(self.writable, str):
            raise UsageError(f"Verifier(writable=…) is a list of folders, not {self.writable!r}")
        seconds(self.timeout)

    def protects(self, path: str) -> bool:
        """Say whether a file must stay as it is."""
        return is_among(path, self.patterns)

    @property
    def patterns(self) -> list[str]:
        """The patterns of all that must stay as it is."""
        return [*self.protect, *CONFIGURATION]

    def read_hidden(self) -> Tree:
        """Read the hidden tests. Raises UsageError where there are none."""
        if self.hidden is None:
            return {}
        folder = Path(self.hidden)
        tree, odd = read_tree(folder)
        if odd or not tree:
            raise UsageError(f"Verifier(hidden=…): {'; '.join(odd) or f'{str(folder)!r} is empty'}")
        return tree

    async def check(self, tree: Tree, hidden: Tree, live: Path) -> Evidence:
        """Execute the tests on a copy of a tree, and the hidden ones if all others pass. `live`: where it came from.

        *Again*: it changes nothing but its own copy. Whatever it has started ends with it, with its time, and with
        this process.
        """
        shown = await self._execute(tree, Tree(), live)
        if not hidden or not shown.is_clean:
            return shown
        more = await self._execute(tree, hidden, live)
        tests = {**shown.tests, **more.tests}
        if more.trouble or not more.tests:
            tests[HIDDEN] = Shown("failed", more.trouble or "there is no test among the hidden files")
        return replace(
            more,
            tests=tests,
            trouble="",
            live=[*shown.live, *more.live],
            patched=sorted({*shown.patched, *more.patched}),
            meddled=sorted({*shown.meddled, *more.meddled}),
            equal={**shown.equal, **more.equal},
        )

    async def _execute(self, tree: Tree, hidden: Tree, live: Path) -> Evidence:
        pinned = {path: file for path, file in tree.items() if self.protects(path)}
        copy = await asyncio.to_thread(_Copy, tree, hidden)
        try:
            ended = await _supervise(self._orders(copy, pinned, live))
            ended = replace(ended, report=copy.rename(ended.report), output=copy.rename(ended.output))
            shown = read_evidence(ended, copy.nonce, copy.controls, seconds(self.timeout))
            rewritten = [
                f"{path} was rewritten while the tests were executing"
                for path in await asyncio.to_thread(find_changed, pinned, copy.root)
            ]
            return replace(shown, tampering=[*shown.tampering, *rewritten])
        finally:
            await asyncio.to_thread(remove_folder, copy.scratch)

    def _orders(self, copy: _Copy, pinned: Tree, live: Path) -> dict[str, Any]:
        timeout_s = seconds(self.timeout)
        tests = [copy.hidden] if copy.hidden else self.tests
        python = Path(shutil.which(self.python) or self.python).absolute()  # else it is looked for in the copy
        return {
            "scratch": str(copy.scratch),
            "folder": str(copy.root),
            "command": [str(python), "-I", "-B", PROBE],
            "environment": {
                "PATH": os.pathsep.join([str(python.parent), os.defpath]),
                "HOME": str(copy.home),
                "TMPDIR": str(copy.home),
                "LANG": "C.UTF-8",
                **self.environment,
            },
            "writable": [str(copy.scratch), *(str(Path(folder).resolve()) for folder in self.writable)],
            "timeout_s": timeout_s,
            "limits": {
                "RLIMIT_CORE": 0,
                "RLIMIT_CPU": int(timeout_s) + 1,
                "RLIMIT_DATA": CHECK_MEMORY_MAX_BYTES,
                "RLIMIT_FSIZE": CHECK_FILE_MAX_BYTES,
            },
            "report_max_bytes": CHECK_REPORT_MAX_BYTES,
            "output_max_bytes": CHECK_OUTPUT_MAX_BYTES,
            "input": {
                "nonce": copy.nonce,
                "root": str(copy.root),
                "live": str(live.absolute()),
                "hidden": copy.hidden,
                "pinned": [*pinned, *copy.hides, *copy.controls],
                "reads": [
                    *(path for path in pinned if path.endswith(".py") and is_among(path, self.tests)),
                    *copy.hides,
                ],
                "temporary": str(copy.home / "pytest"),
                "arguments": [copy.controls[0], *tests, copy.controls[1]],
            },
        }


class _Copy:
    """Where the tests execute: a copy of a tree, with tests that cannot pass before and behind all others."""

    def __init__(self, tree: Tree, hidden: Tree) -> None:
        self.nonce = secrets.token_hex(16)
        words = [f"t{secrets.token_hex(4)}" for _ in range(11)]
        self.hidden = words[0] if hidden else ""
        self.controls = [f"{folder}/test_{folder}.py" for folder in words[1:3]]
        self.scratch = Path(tempfile.mkdtemp(prefix="outlive-check-")).resolve()
        self.root = self.scratch / "project"
        self.home = self.scratch / "home"
        self.home.mkdir()
        controls = [_CONTROL.format(*words[3:7]), _CONTROL.format(*words[7:])]
        write_tree(tree, self.root)
        write_tree(hidden, self.root / self.hidden)
        write_tree({path: File(text.encode()) for path, text in zip(self.controls, controls, strict=True)}, self.root)
        self.hides = [f"{self.hidden}/{path}" for path in hidden]

    def rename(self, text: str) -> str:
        """Give a text without the names of this copy, which are other ones each time."""
        text = text.replace(f"{self.root}/", "")
        return text.replace(self.hidden, HIDDEN) if self.hidden else text


async def _supervise(orders: dict[str, Any]) -> Ended:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-S", SUPERVISE),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        said = await process.stdout.read()
    finally:
        process.stdin.close()  # it ends all that it has started, and itself
        await process.wait()
    return Ended(**json.loads(said)) if said else Ended(None, False, "", GONE)
