"""A provider of models on loopback that speaks the protocol of OpenAI's chat completions, and fails on demand.

What it says follows from the history that it is sent, as with `scripts`; before
that come the mishaps it was told, one for each request. `asked` is its own
ledger: every request as it came, whoever sent it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import httpx2
from openai import AsyncOpenAI
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

STALL_S = 30.0  # longer than any test waits


@dataclass(frozen=True)
class Call:
    """A call of a tool as a provider sends it: the arguments are a text, whatever it is."""

    tool: str
    id: str
    arguments: str = "{}"


Say = str | Sequence[Call]
Mishap = Callable[["Answer"], None]


def refuse(status: int, **headers: str) -> Mishap:
    """Refuse with a status; `retry_after="1"` is the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda answer: answer.send(status, json.dumps({"error": {"message": f"told to say {status}"}}), named)


def stall(answer: Answer) -> None:
    """Take the request and say nothing."""
    answer.provider.closing.wait(STALL_S)


def stall_within(answer: Answer) -> None:
    """Begin a streamed answer, and say nothing more."""
    answer.begin(200, {"Transfer-Encoding": "chunked", "Content-Type": "text/event-stream"})
    choice = {"index": 0, "delta": {"role": "assistant", "content": "half"}, "finish_reason": None}
    answer.event(json.dumps(_completion([choice], "chat.completion.chunk")))
    answer.provider.closing.wait(STALL_S)


def cut(answer: Answer) -> None:
    """Break off in the middle of an answer, streamed or not."""
    answer.begin(200, {"Content-Length": "1000"} if not answer.streams else {"Transfer-Encoding": "chunked"})
    answer.write(b'{"id": "half' if not answer.streams else b"40\r\ndata: {")


def empty(answer: Answer) -> None:
    """Answer well, with nothing in it."""
    answer.send(200, json.dumps(_completion([])))


def garbled(answer: Answer) -> None:
    """Answer well, with what is no JSON."""
    answer.send(200, "<html>Bad gateway</html>")


def _completion(choices: list[Any], kind: str = "chat.completion", model: str = "small") -> dict[str, Any]:
    return {
        "id": "made-here", "object": kind, "created": 1_700_000_000, "model": model, "choices": choices,
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }  # fmt: skip


@dataclass
class Provider:
    """`with Provider("hello") as provider:`, then `provider.model()`."""

    turns: Sequence[Say]
    mishaps: list[Mishap] = field(default_factory=list)
    hold: threading.Event | None = None  # each answer waits for it
    asked: list[dict[str, Any]] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        provider = self

        class Handler(Answer):
            pass

        Handler.provider = provider
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # closing the server waits for what it still says
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.closing.set()
        if self.hold is not None:
            self.hold.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def model(self, name: str = "small", **settings: Any) -> OpenAIChatModel:
        """Give a model that asks here, through the client that everybody uses."""
        return model_at(self.url, name, **settings)

    def turns_asked(self) -> list[int]:
        """Give the turn of each request: how often the model had spoken in it."""
        return [_turn(body) for body in self.asked]


def model_at(url: str, name: str = "small", **settings: Any) -> OpenAIChatModel:
    """Give a model of a provider at this address."""
    # keeps no connection open, and needs no end: the client's own one ends itself on whatever loop runs then
    sender = httpx2.AsyncClient(timeout=600, limits=httpx2.Limits(max_keepalive_connections=0))
    client = AsyncOpenAI(base_url=url, api_key="none", http_client=sender)
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client), settings=settings or None)  # type: ignore[arg-type]


def _turn(body: dict[str, Any]) -> int:
    return sum(message["role"] == "assistant" for message in body["messages"])


class Answer(BaseHTTPRequestHandler):
    """One request and its answer; the connection ends with it."""

    protocol_version = "HTTP/1.1"
    provider: Provider
    streams = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.streams = bool(body.get("stream"))
        self.close_connection = True
        with _lock:
            self.provider.asked.append(body)
            self.provider.asked_at.append(time.monotonic())
            mishap = self.provider.mishaps.pop(0) if self.provider.mishaps else None
        if self.provider.hold is not None:
            self.provider.hold.wait(STALL_S)
        if mishap is not None:
            mishap(self)
        else:
            self._say(self.provider.turns[_turn(body)], body["model"])

    def _say(self, said: Say, model: str) -> None:
        if isinstance(said, str):
            message: dict[str, Any] = {"role": "assistant", "content": said}
        else:
            calls = [
                {
                    "index": at,
                    "id": one.id,
                    "type": "function",
                    "function": {"name": one.tool, "arguments": one.arguments},
                }
                for at, one in enumerate(said)
            ]
            message = {"role": "assistant", "content": None, "tool_calls": calls}
        reason = "stop" if isinstance(said, str) else "tool_calls"
        if not self.streams:
            choice = {"index": 0, "message": message, "finish_reason": reason}
            self.send(200, json.dumps(_completion([choice], model=model)))
            return
        self.begin(200, {"Transfer-Encoding": "chunked", "Content-Type": "text/event-stream"})
        for delta, ends in ((message, None), ({}, reason)):
            choice = {"index": 0, "delta": delta, "finish_reason": ends}
            self.event(json.dumps(_completion([choice], "chat.completion.chunk", model)))
        self.event("[DONE]")
        self.write(b"0\r\n\r\n")

    def event(self, text: str) -> None:
        """Send an event of a stream."""
        data = f"data: {text}\n\n".encode()
        self.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        """Send an answer as a whole."""
        data = text.encode()
        self.begin(status, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})})
        self.write(data)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """Send status and headers."""
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def write(self, data: bytes) -> None:
        """Send some bytes; whoever asked may be gone."""
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


_lock = threading.Lock()
