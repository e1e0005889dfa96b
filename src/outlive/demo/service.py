"""The outside world of the demo: a provider of payments and mail, over HTTP on the loopback address.

It keeps a ledger of its own and charges an idempotency key once, however often it is asked. Now and
then it fails: before it has done anything, after it has, or by answering too late; the caller
cannot tell which. Lives in the parent process, so no kill of the order service touches it.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

_FAILS_BEFORE = 0.05  # shares of all requests
_FAILS_AFTER = 0.04
_ANSWERS_LATE = 0.02
_LATE_S = 1.3  # longer than the client waits
_WORK_S = (0.01, 0.12)


@dataclass
class Ledger:
    """What the provider did, by idempotency key; guarded by `lock`."""

    charges: dict[str, int] = field(default_factory=dict)
    charged: list[tuple[str, int]] = field(default_factory=list)
    receipts: list[str] = field(default_factory=list)
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: int = 0
    late: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count_request(self, path: str, key: str) -> None:
        """Note that the order service asked for this."""
        with self.lock:
            self.requests[path, key] += 1

    def count_trouble(self, *, late: bool) -> None:
        """Note a late answer or an error."""
        with self.lock:
            self.late += late
            self.errors += not late

    def perform(self, path: str, key: str, body: dict[str, Any]) -> dict[str, str]:
        """Charge or mail, unless this key was served before; the answer is the same each time."""
        with self.lock:
            if path == "/charges":
                if key not in self.charges:
                    self.charges[key] = body["cents"]
                    self.charged.append((key, body["cents"]))
                return {"charge": f"ch_{key}"}
            if key not in self.receipts:
                self.receipts.append(key)
            return {"receipt": f"mail_{key}"}


class PaymentService:
    """The provider's server; a context manager that serves while it is open."""

    def __init__(self, chance: random.Random) -> None:
        self.ledger = Ledger()
        self._server = _Server(self.ledger, chance)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="provider", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> PaymentService:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, ledger: Ledger, chance: random.Random) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.ledger = ledger
        self._chance = chance

    def draw(self) -> tuple[float, float]:
        """Give the luck of a request and how long its work takes."""
        with self.ledger.lock:
            return self._chance.random(), self._chance.uniform(*_WORK_S)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that was killed while it waited is what this demo is about."""


class _Request(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        ledger = self.server.ledger
        key = self.headers["Idempotency-Key"]
        ledger.count_request(self.path, key)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        luck, work_s = self.server.draw()
        time.sleep(work_s)
        if luck < _FAILS_BEFORE:
            ledger.count_trouble(late=False)
            self._answer(500, {"error": "try again"})
            return
        answer = ledger.perform(self.path, key, body)
        if luck < _FAILS_BEFORE + _FAILS_AFTER:
            ledger.count_trouble(late=False)
            self._answer(500, {"error": "something broke after your request was carried out"})
            return
        if luck < _FAILS_BEFORE + _FAILS_AFTER + _ANSWERS_LATE:
            ledger.count_trouble(late=True)
            time.sleep(_LATE_S)
        self._answer(200, answer)

    def _answer(self, status: int, body: dict[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the progress bar owns the terminal."""
