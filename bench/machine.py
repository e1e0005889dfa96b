"""Facts about the machine and what else it is doing. Never its name."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

PROBE_S = 0.25


def facts() -> dict[str, str]:
    """Describe the machine and the code that was measured."""
    return {
        "processor": _first_value("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "Python": platform.python_version(),
        "commit": _commit(),
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def cores_in_use() -> float:
    """Tell how many cores are busy right now; ask while nothing of ours runs, to see what others do."""
    busy, total = _ticks()
    time.sleep(PROBE_S)
    busy_after, total_after = _ticks()
    share = (busy_after - busy) / max(total_after - total, 1)
    return share * (os.cpu_count() or 1)


def _ticks() -> tuple[int, int]:
    try:
        numbers = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:  # no Linux: nothing is known
        return 0, 1
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)  # all but idle and waiting for a disk


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError):
        return "unknown"


def _first_value(path: str, name: str) -> str | None:
    try:
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return None


def _commit() -> str:
    root = Path(__file__).parents[1]
    asked = (["git", "rev-parse", "--short", "HEAD"], ["git", "status", "--porcelain", "--", "src"])
    try:
        head, changed = (
            subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for command in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with uncommitted changes in src" if changed else head
