"""One queue as a list: what a claim from its line has to give, decided by looking at everything, one run at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

from outlive.model.line import QueueLimits


@dataclass
class Waiting:
    """A run that is not admitted."""

    row: int
    key: str
    priority: int
    line_at: float
    joined: bool = False  # it stays in line, should the clock jump back


@dataclass
class LineModel:
    """Time is a number that the test moves; workers are numbers."""

    limits: QueueLimits = field(default_factory=QueueLimits)
    paused: bool = False
    served: str = ""
    waiting: list[Waiting] = field(default_factory=list)
    admitted: dict[int, tuple[str, int | None]] = field(default_factory=dict)  # key and owner by row
    admissions: list[tuple[float, str]] = field(default_factory=list)

    def claim(self, worker: int, most: int, now: float) -> list[int]:
        """Admit runs to a worker."""
        taken: list[int] = []
        while not self.paused and len(taken) < most and self._has_room(worker, now):
            able = [
                run for run in self.waiting if (run.joined or run.line_at <= now) and self._has_key_room(run.key, now)
            ]
            if not able:
                break
            level = min(run.priority for run in able)
            keys = sorted({run.key for run in able if run.priority == level})
            key = next((key for key in keys if key > self.served), keys[0])
            first = min(
                (run for run in able if run.priority == level and run.key == key),
                key=lambda run: (run.line_at, run.row),
            )
            self.waiting.remove(first)
            self.admitted[first.row] = (key, worker)
            self.admissions.append((now, key))
            self.served = key
            taken.append(first.row)
        return taken

    def _has_room(self, worker: int, now: float) -> bool:
        limits = self.limits
        owned = sum(owner == worker for _, owner in self.admitted.values())
        return (
            (limits.concurrency is None or len(self.admitted) < limits.concurrency)
            and (limits.per_worker is None or owned < limits.per_worker)
            and (limits.rate is None or self._count_recent(now, limits.rate[1]) < limits.rate[0])
        )

    def _has_key_room(self, key: str, now: float) -> bool:
        limits = self.limits
        of_key = sum(own == key for own, _ in self.admitted.values())
        return (limits.per_key is None or of_key < limits.per_key) and (
            limits.rate_per_key is None or self._count_recent(now, limits.rate_per_key[1], key) < limits.rate_per_key[0]
        )

    def _count_recent(self, now: float, window_s: float, key: str | None = None) -> int:
        return sum(at > now - window_s and (key is None or own == key) for at, own in self.admissions)
