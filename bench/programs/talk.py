"""How a measured process talks with the runner: JSON lines out, words in.

Whatever libraries print goes to stderr instead. Invariant: a process whose
runner has died dies too, because the pipe that it listens to has ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from typing import Any


class Talk:
    """The two pipes. Made on the running loop."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._loop = asyncio.get_running_loop()
        self._words: asyncio.Queue[str] = asyncio.Queue()
        threading.Thread(target=self._listen, name="bench-listen", daemon=True).start()

    def say(self, **facts: Any) -> None:
        """Tell the runner something."""
        self._out.write(json.dumps(facts) + "\n")
        self._out.flush()

    async def hear(self) -> str:
        """Wait for the runner's next word."""
        return await self._words.get()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._loop.call_soon_threadsafe(self._words.put_nowait, line.strip())
        os._exit(3)
