"""Child processes of the crash suite: started, stopped, killed and always collected, by their pid."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.faults import VARIABLE, PointFault

PATIENCE_S = 50.0


class Child:
    """One process of `tests.crash.program`; a context that kills it at the end, however the test went."""

    def __init__(
        self,
        role: str,
        url: str,
        folder: Path,
        *,
        lease_s: float,
        faults: Sequence[PointFault] = (),
        linger_s: float = 0.0,
    ) -> None:
        self.fault = faults[-1] if faults else None
        self._said = folder / f"{role}-{len(list(folder.glob('*.txt')))}.txt"
        environment = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", "PYTHONUNBUFFERED": "1"}
        environment.pop(VARIABLE, None)
        if faults:
            environment[VARIABLE] = ",".join(map(str, faults))
        with self._said.open("wb") as out:
            self._process = nursery.spawn(
                ["-m", "tests.crash.program", role, url, str(folder / "ledger"), f"{lease_s}", f"{linger_s}"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        print(f"{self._said.stem} said:\n{self.said}")  # seen if the test fails

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        """All that it has written so far."""
        return self._said.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def told(self) -> str:
        """Make it write down where its threads and tasks are, and give what it has written lately."""
        for question in (signal.SIGUSR1, signal.SIGUSR2):  # the second one kills it if its loop is closed
            if self.alive:
                os.kill(self.pid, question)
                time.sleep(0.5)
        return self.said[-20_000:]

    def kill(self) -> None:
        """End it at once, if it has not ended, and collect it."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def end(self) -> None:
        """Let it leave in good order: its stdin ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._wait(PATIENCE_S) == 0, self.told()

    def wait_done(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until it has ended by itself, all work done."""
        assert self._wait(patience_s) == 0, self.told()
        assert "done" in self.said.splitlines(), self.said

    def wait_dead(self) -> None:
        """Wait until it has died of its fault."""
        assert self.fault is not None
        code = self._wait(PATIENCE_S)
        assert self.fault.notice in self.said.splitlines(), f"{self.fault} was never reached:\n{self.told()}"
        assert code == -signal.SIGKILL, (code, self.said)

    def wait_stopped(self) -> None:
        """Wait until it has stopped at its fault."""
        process = psutil.Process(self.pid)
        until = time.monotonic() + PATIENCE_S
        while process.status() != psutil.STATUS_STOPPED:
            assert self.alive and time.monotonic() < until, f"{self.fault} was never reached:\n{self.said}"
            time.sleep(0.005)

    def go_on(self) -> None:
        """Continue it after a stop."""
        os.kill(self.pid, signal.SIGCONT)

    def wait_for(self, word: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until it has said something."""
        until = time.monotonic() + timeout_s
        while word not in self.said:
            assert self.alive and time.monotonic() < until, f"{word!r} was never said:\n{self.said}"
            time.sleep(0.005)

    def _wait(self, timeout_s: float) -> int | None:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
