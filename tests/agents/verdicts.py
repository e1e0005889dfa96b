"""What a guarded loop says of one attempt, without a run: one check before all, one after, and what follows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic_ai.messages import ToolCallPart

from outlive.agents import File, Verifier
from outlive.agents.guards.evidence import Evidence
from outlive.agents.guards.ratchet import find_cheats, find_faults, find_tampering
from outlive.agents.guards.tree import read_tree
from tests.agents.fixer import BARE, FILES, HIDDEN, lay_out

CHECK = Verifier(environment=BARE)
BEFORE = {path: File(text.encode()) for path, text in FILES.items()}
HIDES = {"test_more.py": File(HIDDEN.encode())}
NOWHERE = Path("/nowhere")
_first: list[Evidence] = []


async def judge(folder: Path, play: Sequence[ToolCallPart]) -> tuple[list[str], list[str]]:
    """Make the changes of a play in a new project; give why they are refused, and what fails."""
    if not _first:
        _first.append(await CHECK.check(BEFORE, HIDES, NOWHERE))
    after, refused = read_tree(_play(lay_out(folder), play))
    refused += find_cheats(CHECK, BEFORE, after)
    if refused:
        return refused, []
    shown = await CHECK.check(after, HIDES, NOWHERE)
    return find_tampering(CHECK, _first[0], shown), list(find_faults(CHECK, BEFORE, after, _first[0], shown))


def _play(folder: Path, play: Sequence[ToolCallPart]) -> Path:
    for part in play:
        arguments = part.args_as_dict()
        target = folder / arguments["path"]
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        if part.tool_name == "write":
            target.write_text(arguments["content"])
        elif part.tool_name == "link":
            target.symlink_to(arguments["to"])
    return folder
