"""The command line as a real process, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.house.source import SRC
from tests.support import nursery

TIMEOUT_S = 50.0


class CommandLine:
    """Runs `python -m outlive` in the folder of the user's module: what ends by itself as a fork of the nursery."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(SRC), "OUTLIVE_URL": url}

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "outlive", *arguments]

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = nursery.run(
            self.argv(*arguments)[1:],
            cwd=self.folder,
            env={**self.environment, **environment},
            timeout=TIMEOUT_S,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        if code:
            assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def start(self, *arguments: str, **pipes: Any) -> subprocess.Popen[str]:
        """Start a command that runs until it is stopped; the test stops it. It hears Ctrl-C in any case."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of tests in the background, and it would be inherited
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return subprocess.Popen(
            self.argv(*arguments), cwd=self.folder, env=self.environment, text=True, stderr=subprocess.PIPE, **pipes
        )
