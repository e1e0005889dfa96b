"""A TCP proxy before PostgreSQL that understands enough of the protocol to lose the reply to a chosen request.

It cuts what the client sends into rounds: a simple query, or everything up to a
Sync. The server answers each with ReadyForQuery, after it has committed. The
reply of a chosen round is swallowed up to there, then both connections are
dropped, or left silent: the request has taken effect and the client cannot know.
Runs on a loop in a thread of its own, so a test may talk through it from anywhere.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

START_TIMEOUT_S = 10.0


@dataclass
class Round:
    """What the client has sent until it waits for an answer: the statements executed, and all the bytes."""

    sql: list[str] = field(default_factory=list)
    data: bytes = b""
    lost: bool = False


class Wire:
    """A proxy before one database: connect to `url`, then `lose` replies. A context."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._choose: Callable[[Round], bool] = lambda sent: False
        self._silently = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._streams: set[asyncio.StreamWriter] = set()
        self._port = 0
        self.lost: list[Round] = []

    @property
    def url(self) -> str:
        """The URL of the database, through here."""
        return self._target._replace(
            netloc=f"{self._target.username}@127.0.0.1:{self._port}", query="sslmode=disable"
        ).geturl()

    def lose(self, choose: Callable[[Round], bool], *, passage: int = 1, silently: bool = False) -> None:
        """Lose the reply to the `passage`-th round that `choose` says yes to; `silently` without dropping anything."""
        left, self._silently = passage, silently

        def count(sent: Round) -> bool:
            nonlocal left
            left -= left > 0 and choose(sent)
            if left == 0:
                left = -1
                return True
            return False

        self._choose = count

    def lose_all(self, choose: Callable[[Round], bool]) -> None:
        """Lose the reply to every round that `choose` says yes to, from now on."""
        self._choose = choose

    def hang_up(self) -> None:
        """Drop all connections."""
        self._loop.call_soon_threadsafe(lambda: [stream.transport.abort() for stream in self._streams])

    # -- life -------------------------------------------------------------------
    def __enter__(self) -> Wire:
        self._thread.start()
        assert self._ready.wait(START_TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_TIMEOUT_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for stream in list(self._streams):
            stream.transport.abort()
        while self._streams:
            await asyncio.sleep(0.005)

    # -- one connection -----------------------------------------------------------
    async def _pass_on(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self._streams.add(client)
        server: asyncio.StreamWriter | None = None
        with suppress(OSError, asyncio.IncompleteReadError):
            answers, server = await asyncio.open_connection(self._target.hostname, self._target.port)
            self._streams.add(server)
            waiting: deque[Round] = deque([Round()])  # the first answer is to the start of the session
            there = asyncio.create_task(self._forward(reader, server, waiting))
            back = asyncio.create_task(self._answer(answers, client, waiting))
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        for stream in (client, server):
            if stream is not None:
                stream.transport.abort()
                self._streams.discard(stream)

    async def _forward(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, waiting: deque[Round]) -> None:
        size = await reader.readexactly(4)
        server.write(size + await reader.readexactly(int.from_bytes(size, "big") - 4))
        statements: dict[bytes, str] = {}
        bound, sent = "", Round()
        async for kind, body in _messages(reader):
            message = kind + (len(body) + 4).to_bytes(4, "big") + body
            sent.data += message
            if kind == b"P":
                name, sql = body.split(b"\0", 2)[:2]
                statements[name] = sql.decode()
            elif kind == b"B":
                bound = statements.get(body.split(b"\0", 2)[1], "")
            elif kind == b"E":
                sent.sql.append(bound)
            elif kind == b"Q":
                sent.sql.append(body.rstrip(b"\0").decode())
            if kind in (b"Q", b"S"):
                sent.lost = self._choose(sent)
                waiting.append(sent)
                sent = Round()
            server.write(message)
            await server.drain()

    async def _answer(self, answers: asyncio.StreamReader, client: asyncio.StreamWriter, waiting: deque[Round]) -> None:
        async for kind, body in _messages(answers):
            if waiting and waiting[0].lost:
                if kind == b"Z":
                    self.lost.append(waiting[0])
                    if not self._silently:
                        return  # which drops both connections
                continue
            client.write(kind + (len(body) + 4).to_bytes(4, "big") + body)
            if kind == b"Z":
                waiting.popleft()
                await client.drain()


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bytes]]:
    """Read messages of the protocol: a letter, a length that counts itself, the rest."""
    while head := await reader.read(1):
        size = int.from_bytes(await reader.readexactly(4), "big")
        yield head, await reader.readexactly(size - 4)


def executes(*texts: str) -> Callable[[Round], bool]:
    """Choose rounds that execute one of these statements."""
    return lambda sent: any(sql in texts for sql in sent.sql)


def mentions(text: str) -> Callable[[Round], bool]:
    """Choose rounds that hold some text, in a statement or an argument."""
    return lambda sent: text.encode() in sent.data
