"""Servers of the shop as processes, which are killed and followed by others."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx2 as httpx

from outlive import Outlive
from tests.house.source import ROOT, SRC
from tests.integrations.mcp.shop import LEDGER
from tests.integrations.servers import PATIENCE_S, free_port
from tests.support import nursery


class Shop:
    """Servers of one shop, each a process, all on one database; and the ledger of what they did."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.environment = {
            **os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{ROOT}", "OUTLIVE_URL": url, LEDGER: str(self.ledger),
        }  # fmt: skip
        self._log = folder / "servers.log"
        self._running: dict[int, nursery.Fork] = {}

    async def open(self, **settings: str) -> int:
        """Start a server and give the port on which it answers."""
        port = free_port()
        words = ["-m", "uvicorn", "--factory", "tests.integrations.mcp.shop:make_web", "--port", str(port)]
        with self._log.open("ab") as log:
            server = nursery.spawn(words, cwd=ROOT, env=self.environment | settings, stdout=log, stderr=log)
        self._running[port] = server
        async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    await client.get(f"http://127.0.0.1:{port}/")
                except httpx.TransportError:
                    assert server.poll() is None, self._log.read_text()
                    await asyncio.sleep(0.02)  # there is no event of another process's port
                else:
                    return port

    def kill(self, port: int) -> None:
        """Kill a server, as the power company does."""
        server = self._running.pop(port)
        server.kill()
        assert server.wait(PATIENCE_S) == -signal.SIGKILL

    def close(self) -> None:
        for port in list(self._running):
            self.kill(port)

    async def packed(self) -> None:
        """Wait until the only run there is has packed, and this is on disk."""
        async with asyncio.timeout(PATIENCE_S), Outlive(self.url, worker=False) as app:
            while not (runs := (await app.runs()).items):
                await asyncio.sleep(0.01)
            await (await app.get(runs[0].id)).value("progress", wait=PATIENCE_S)

    async def send(self, *topics: str) -> None:
        """Send the only run there is what it waits for."""
        async with Outlive(self.url, worker=False) as app:
            (run,) = (await app.runs()).items
            for topic in topics:
                await app.send(run.id, topic, "Rome")

    def lines(self) -> list[str]:
        return self.ledger.read_text().splitlines()
