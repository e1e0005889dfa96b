"""Real server processes on loopback: started, killed and ended by their pids."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Self

import httpx2 as httpx

from tests.house.source import ROOT, SRC
from tests.support import nursery

EXAMPLES = ROOT / "examples"
PATIENCE_S = 40.0


class Servers:
    """The processes of one test; all of them have ended when the test has."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._running: list[nursery.Fork] = []
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(SRC), str(EXAMPLES), str(EXAMPLES / "django_shop")]),
            "OUTLIVE_URL": url,
            "SHOP_DATABASE": url,
        }
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.client.close()
        self.kill()

    def run(self, *words: str) -> str:
        """Run a command to its end; give what it printed."""
        done = nursery.run(self._argv(words), cwd=self.folder, env=self._environment, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *words: str) -> nursery.Fork:
        """Start a process that runs until it is killed."""
        with (self.folder / "servers.log").open("ab") as log:
            process = nursery.spawn(self._argv(words), cwd=self.folder, env=self._environment, stdout=log, stderr=log)
        self._running.append(process)
        return process

    def serve(self, *words: str) -> None:
        """Start a web server and wait until it answers."""
        process = self.start(*words)
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.client.get("/")
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < until, self.log()
                time.sleep(0.02)  # there is no event of another process's port
            else:
                return

    def kill(self) -> None:
        """Kill all of them at once, as the power company does."""
        for process in self._running:
            process.kill()
        for process in self._running:
            process.wait(PATIENCE_S)
        self._running.clear()

    def log(self) -> str:
        return (self.folder / "servers.log").read_text()

    @staticmethod
    def _argv(words: tuple[str, ...]) -> list[str]:
        return [*(["-m"] if not words[0].endswith(".py") else []), *words]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
