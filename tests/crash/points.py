"""Which points there are, and how the scenario has to be prepared so that a death there means something.

The sites come from the code: importing every module of the library fills
`hooks.SITES`. Points between the edges of a site are read from the source.
A site that nobody has thought of gets a case too: its points are then met at
their first passage, or the case fails.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import outlive
from outlive import hooks
from tests.house.source import MODULES
from tests.support.faults import PointFault
from tests.support.size import SOAK

STORES = ("sqlite", "postgres")
EDGES = (".before", ".after")

# Passages of a point at which to die, besides the first one, where they mean different things.
PASSAGES = {
    "add_request": (3,),
    "claim": (2,),
    "commit": (3, 8, 13, 21, 27),
    "prune": (2,),
    "register": (2,),
    "session": (2,),
    "start_in": (2,),
    "transaction": (3,),
}
BEATS_AFTER_S = 0.5  # with a lease of 0.9 s
LEASES_S = {"beat": 0.9}

PASSAGES_FULL = {
    "commit": range(2, 27),
    "transaction": range(2, 6),
    "claim": range(2, 8),
    "wake": (2,),
    "unregister": (2,),
}

# What has to have died before, so that the point is passed, or has something to do.
BEFORE = {
    "take_over": PointFault("commit.after", "kill", 4),  # nobody takes over from the living
    "sweep": PointFault("wake.before", "kill", 1),  # a wake-up that was lost
}

# What happens earlier in the same process, for the same reason.
FIRST = {"release_strays": PointFault("claim.after", "lose_reply", 1)}

# Where every process comes, whatever those before it have done, in the order in which the first one comes there, and
# how often at least. Who dies at the early ones has done nothing at all.
EARLY = ("put_queue", "register")
LATER = """
    claim start_alone claim_line put_account add_request write_schedules reschedule commit wake delete_schedule
    delete_runs fork unregister register take_memo put_memo prune
""".split()
AT_LEAST = {"claim": 2, "commit": 8, "prune": 2, "register": 2}
UNDONE = (".before", ".begun", ".entry_written")  # who dies there for the first time has left all of it to the next one
MOST_DEATHS = 4  # in one course


def _load_all() -> None:
    for module in pkgutil.walk_packages(outlive.__path__, "outlive."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


_load_all()

COVERED = frozenset(hooks.SITES)


@dataclass(frozen=True)
class Case:
    """One fault: where, in which store, and what comes before it."""

    store: str
    fault: PointFault

    def __str__(self) -> str:
        return f"{self.store}-{self.fault.point}-{self.fault.passage}"

    @property
    def site(self) -> str:
        return self.fault.point.rpartition(".")[0]

    @property
    def before(self) -> PointFault | None:
        return BEFORE.get(self.site)

    def lease_s(self, usual_s: float) -> float:
        return LEASES_S.get(self.site, usual_s)

    @property
    def is_plain(self) -> bool:
        """Whether nothing has to be prepared for this fault."""
        return self.site not in {*BEFORE, *FIRST, *LEASES_S, "migrate"}

    @property
    def linger_s(self) -> float:
        """How long the process has to live to meet this fault."""
        return BEATS_AFTER_S if self.site == "beat" else 0.0

    @property
    def faults(self) -> list[PointFault]:
        """All faults of the process that is to meet this one."""
        first = FIRST.get(self.site)
        return [self.fault] if first is None else [first, self.fault]


def list_points(store: str) -> list[str]:
    """List all points of a store: the edges of its sites, and those in between."""
    text = "\n".join(module.text for name, module in MODULES.items() if name.startswith(f"outlive.store.{store}"))
    between = {name for name in re.findall(r"""hooks\.point\("([a-z_.]+)"\)""", text) if not name.endswith(EDGES)}
    return sorted({site + edge for site in COVERED for edge in EDGES} | between)


def list_cases(action: str, *, passages: bool) -> list[Case]:
    """List the deaths to die: every point of both stores once, some of them at later passages too."""
    cases = []
    for store in STORES:
        for point in list_points(store):
            site = point.rpartition(".")[0]
            more = {**PASSAGES, **(PASSAGES_FULL if SOAK else {})}.get(site, ()) if passages else ()
            cases += [Case(store, PointFault(point, action, passage)) for passage in (1, *more)]
    return cases


def gather(cases: list[Case], most: int = 6) -> list[tuple[Case, ...]]:
    """Let faults that a process survives come in one course, none at the point of another; at full size each alone."""
    courses: list[tuple[Case, ...]] = []
    for case in cases:
        for at, course in enumerate(courses):
            fits = course[0].store == case.store and case.fault.point not in {other.fault.point for other in course}
            if fits and not SOAK and len(course) < most and all(one.is_plain for one in (case, *course)):
                courses[at] = (*course, case)
                break
        else:
            courses.append((case,))
    return courses


def line_up(cases: list[Case]) -> list[tuple[Case, ...]]:
    """Let processes die one after the other in one course, each where it comes for certain; at full size each alone."""
    courses: list[tuple[Case, ...]] = []
    for case in sorted(cases, key=_rank):
        open_to = [course for course in courses if not SOAK and len(course) < MOST_DEATHS and _may_follow(course, case)]
        if open_to:
            shortest = min(open_to, key=len)
            courses[courses.index(shortest)] = (*shortest, case)
        else:
            courses.append((case,))
    return courses


def _may_follow(course: tuple[Case, ...], case: Case) -> bool:
    last = course[-1]
    if last.store != case.store or case.site == "migrate":
        return False
    again = last.site == case.site and last.fault.passage == 1 and last.fault.point.endswith(UNDONE)
    return _rank(last) < _rank(case) or (_rank(last) == _rank(case) == ONCE and again)


ONCE = len(EARLY)  # the rank of a place where a course comes once or a few times


def _rank(case: Case) -> int:
    """Order the places that have a rank of their own, by when a course comes there first."""
    site, passage = case.site, case.fault.passage
    if site == "migrate":
        return -1
    if site in EARLY and passage == 1:
        return EARLY.index(site)
    if site in LATER and passage <= AT_LEAST.get(site, 1) and case.fault.point in {site + edge for edge in EDGES}:
        return ONCE + 1 + LATER.index(site)
    return ONCE


def name_course(course: Sequence[Case]) -> str:
    """Name the faults of a course."""
    return "+".join([str(course[0]), *(f"{case.fault.point}-{case.fault.passage}" for case in course[1:])])


def share(cases: list[Case]) -> list[Case]:
    """Give all cases at full size; else those of each passage of a point on one of its stores, drawn by its name."""
    if SOAK:
        return cases
    stores: dict[tuple[str, int], list[str]] = {}
    for case in cases:
        stores.setdefault((case.fault.point, case.fault.passage), []).append(case.store)
    drawn = {place: found[crc32(repr(place).encode()) % len(found)] for place, found in stores.items()}
    return [case for case in cases if drawn[case.fault.point, case.fault.passage] == case.store]
