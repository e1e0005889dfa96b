"""The physical floor: how long the disk takes to make 4 KiB durable."""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

APPENDS = 120
WARM_APPENDS = 20


def fdatasync_ms(folder: Path) -> float:
    """Append 4 KiB to a file and fdatasync it, again and again; give the median."""
    path = folder / "fdatasync"
    block = b"\0" * 4096
    took_ms = []
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for _ in range(WARM_APPENDS + APPENDS):
            at = time.perf_counter()
            os.write(file, block)
            os.fdatasync(file)
            took_ms.append((time.perf_counter() - at) * 1000)
    finally:
        os.close(file)
        path.unlink()
    return median(took_ms[WARM_APPENDS:])
