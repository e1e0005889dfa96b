"""Recorded journals, replayed by the code at hand: a test of whether runs survive its deployment.

A thin door to the engine's rehearsals: reads files, binds definitions, brings the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from outlive.codec.jsontext import JsonCodec
from outlive.codec.payload import Codec
from outlive.engine.rehearsal import Report, rehearse
from outlive.model.frozen import FrozenJournal, read_lines
from outlive.registry import Registry


def replay(
    journals: str | Path | Iterable[FrozenJournal], *, include: Iterable[Any] | None = None, codec: Codec | None = None
) -> list[Report]:
    """Replay journals, a file or values, with these definitions; give what became of each.

    The file is one of `outlive runs export`, or an archive of pruned runs.

    Nothing has an effect: no step begins, nothing is written, no database is needed.
    `include` and `codec` are those of the app. In a coroutine: `await asyncio.to_thread(replay, …)`.
    """

    async def replay_all() -> list[Report]:
        definitions, own = Registry(include), codec if codec is not None else JsonCodec()
        return [await rehearse(journal, definitions, own) for journal in given]

    if isinstance(journals, str | Path):
        with Path(journals).open("rb") as lines:
            given: list[FrozenJournal] = list(read_lines(lines, str(journals)))
    else:
        given = list(journals)
    return asyncio.run(replay_all())
