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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_FAILS_BEFORE = 0.05  # shares of all requests
_FAILS_AFTER = 0.04
_ANSWERS_LATE = 0.02
_LATE_S = 1.3  # longer than the client waits
_WORK_S = (0.01, 0.12)


@dataclass
class Ledger:
    """What the provider was asked, by path and idempotency key, and what it did; guarded by `lock`."""

    charged: list[tuple[str, int]] = field(default_factory=list)
    receipts: list[str] = field(default_factory=list)
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    served: set[tuple[str, str]] = field(default_factory=set)
    errors: int = 0
    late: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def perform(self, path: str, key: str, body: dict[str, Any]) -> dict[str, str]:
        """Charge or mail, unless this key was served before; the answer is the same each time."""
        is_new = (path, key) not in self.served
        self.served.add((path, key))
        if path == "/charges":
            self.charged += [(key, body["cents"])] if is_new else []
            return {"charge": f"ch_{key}"}
        self.receipts += [key] if is_new else []
        return {"receipt": f"mail_{key}"}


@contextmanager
def serve_payments(ledger: Ledger, chance: random.Random) -> Iterator[str]:
    """Serve while the context is open; give the URL."""
    with _Server(ledger, chance) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="provider", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, ledger: Ledger, chance: random.Random) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.ledger = ledger
        self.chance = chance

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that was killed while it waited is what this demo is about."""


class _Request(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        ledger, chance = self.server.ledger, self.server.chance
        key = self.headers["Idempotency-Key"]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with ledger.lock:
            ledger.requests[self.path, key] += 1
            luck, work_s = chance.random(), chance.uniform(*_WORK_S)
        time.sleep(work_s)
        fails = luck < _FAILS_BEFORE + _FAILS_AFTER
        is_late = not fails and luck < _FAILS_BEFORE + _FAILS_AFTER + _ANSWERS_LATE
        with ledger.lock:
            answer = {} if luck < _FAILS_BEFORE else ledger.perform(self.path, key, body)
            ledger.errors += fails
            ledger.late += is_late
        time.sleep(_LATE_S if is_late else 0)
        data = json.dumps({"error": "something broke"} if fails else answer).encode()
        self.send_response(500 if fails else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the progress bar owns the terminal."""
