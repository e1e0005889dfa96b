"""Two ways to see where CPU goes: cProfile in every thread, and samples of the main thread.

Both give self time by function, in seconds of CPU of the thread it ran on, so
neither waiting nor what other programs do counts.
"""

from __future__ import annotations

import cProfile
import pstats
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

_Stats = dict[tuple[str, int, str], tuple[int, int, float, float, Any]]

SAMPLE_S = 0.0005  # kernels round it up to their tick


@dataclass(frozen=True)
class Place:
    """A function: its file ("" for C code), line and name."""

    file: str
    line: int
    name: str


@dataclass
class Found:
    """Self time and calls by function."""

    self_s: Counter[Place] = field(default_factory=Counter)
    calls: Counter[Place] = field(default_factory=Counter)


@contextmanager
def traced() -> Iterator[Found]:
    """Profile this thread, and those that begin within the block, with cProfile."""
    found = Found()
    profiles = [cProfile.Profile(time.thread_time)]

    def begin_in_thread(*_: Any) -> None:
        profile = cProfile.Profile(time.thread_time)
        try:
            profile.enable()
        except ValueError:  # Python 3.12 and later profile all threads by the first one
            threading.setprofile(None)
        else:
            profiles.append(profile)

    threading.setprofile(begin_in_thread)
    profiles[0].enable()
    try:
        yield found
    finally:
        profiles[0].disable()
        threading.setprofile(None)
    for profile in profiles:
        stats: _Stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
        for (file, line, name), (_, calls, self_s, _, _) in stats.items():
            place = Place("" if file == "~" else file, line, name)
            found.self_s[place] += self_s  # type: ignore[assignment]
            found.calls[place] += calls


@contextmanager
def sampled() -> Iterator[Found]:
    """Look at the main thread at each tick of the process's CPU; a look counts for the CPU since the one before."""
    found = Found()
    last_s = time.thread_time()

    def look(_signal: int, frame: FrameType | None) -> None:
        nonlocal last_s
        now_s = time.thread_time()
        if frame is not None:
            code = frame.f_code
            found.self_s[Place(code.co_filename, code.co_firstlineno, code.co_name)] += now_s - last_s  # type: ignore[assignment]
        last_s = now_s

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)
    try:
        yield found
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
