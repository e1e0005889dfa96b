"""A fork of the nursery is to its tests what an interpreter of its own would be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.house.source import ROOT, SRC
from tests.support import nursery

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", "WORD": "tea"}

INTERRUPTED = """import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here, as by a job in the background
os.kill(os.getpid(), signal.SIGINT)
time.sleep(30)"""
PROGRAMS = [
    "import os, sys; print(os.environ['WORD'], os.getcwd(), sys.argv, __name__); print(sys.stdin.read())",
    "import sys; sys.exit(3)",
    "import sys; sys.exit('over')",
    "raise SystemExit",
    "import os; os._exit(4)",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    INTERRUPTED,
    "import atexit, threading; atexit.register(print, 'end'); threading.Timer(0.05, print, ['late']).start()",
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_fork_does_what_an_interpreter_does(program: str, tmp_path: Path) -> None:
    words = ["-W", "error", "-c", program, "one", "two"]
    real = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env=ENVIRONMENT,
        input="milk",
        capture_output=True,
        text=True,
        check=False,
    )
    fork = nursery.run(words, cwd=tmp_path, env=ENVIRONMENT, input="milk", timeout=20)
    assert (fork.returncode, fork.stdout) == (real.returncode, real.stdout)
    assert fork.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]


def test_what_was_not_closed_is_told(tmp_path: Path) -> None:
    fork = nursery.run(["-W", "error", "-c", "file = open('new', 'w')"], cwd=tmp_path, env=ENVIRONMENT, timeout=20)
    assert "ResourceWarning" in fork.stderr


OWNER = """
import os, sys, subprocess
from tests.support import nursery
out = open(os.devnull, "wb")
fork = nursery.spawn(["-c", "import time; time.sleep(60)"], cwd=os.getcwd(), env=os.environ, stdout=out, stderr=out)
print(fork.pid, flush=True)
sys.stdin.read()
"""


def test_no_fork_outlives_the_process_that_wanted_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        fork = psutil.Process(int(owner.stdout.readline()))
        nurse = fork.parent()
        assert nurse is not None
        owner.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in (fork, nurse)):
        assert time.monotonic() < until
        time.sleep(0.01)
