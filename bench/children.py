"""Starts measured processes and talks with them.

Each system runs in its own virtual environment and process. Invariant: no
measured process outlives the block that started it.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[1]
ANSWER_TIMEOUT_S = 60.0
END_TIMEOUT_S = 40.0  # closing lets steps finish within a grace of 10 s


class MeasurementFailed(Exception):
    """A measured process did not do what it should; the text ends with what it said."""


class Interpreters:
    """Which Python runs which system."""

    def __init__(self, dbos: Path) -> None:
        self._dbos = dbos

    def start(self, system: str, scenario: str, arguments: dict[str, Any]) -> Child:
        """Start one process of a system."""
        environment = dict(os.environ)
        paths = [str(ROOT)]
        if system == "outlive":
            program = sys.executable
            paths += filter(None, [environment.get("PYTHONPATH")])
        else:
            program = str(self._dbos)
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        command = [program, "-m", "bench.programs", system, scenario, json.dumps(arguments)]
        return Child(f"{system} {scenario}", command, environment)


class Child:
    """One measured process: hears JSON lines from it, says words to it."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self._name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.versions: dict[str, str] = {}

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def hear(self, fact: str, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Wait until the process tells this fact, and give it."""
        while True:
            try:
                line = self._lines.get(timeout=timeout_s)
            except queue.Empty:
                raise MeasurementFailed(f"{self._name}: no {fact} within {timeout_s:g} s{self._said()}") from None
            if line is None:
                code = self._process.wait(END_TIMEOUT_S)
                raise MeasurementFailed(f"{self._name}: ended with {code} before {fact}{self._said()}")
            facts = json.loads(line)
            self.versions.update(facts.get("versions", {}))
            if fact in facts:
                return facts[fact]

    def say(self, word: str) -> None:
        """Say a word to the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """Kill the process as a power loss of its machine would, and wait for its end."""
        self._process.kill()
        self._process.wait(END_TIMEOUT_S)

    def end(self) -> None:
        """Wait for an end in good order."""
        try:
            code = self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise MeasurementFailed(f"{self._name}: did not end within {END_TIMEOUT_S:g} s{self._said()}") from None
        if code:
            raise MeasurementFailed(f"{self._name}: ended with {code}{self._said()}")

    def _said(self) -> str:
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return f", saying\n{text[-3000:]}" if text else ""

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()
        for pipe in (self._process.stdin, self._errors):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass  # a word that a killed process did not hear
