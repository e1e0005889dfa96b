"""Runs the blocks of one page in order, as a reader would: a program of its own, started by test_docs.

Reads a list of actions as JSON from stdin. Python blocks share one namespace;
a block with a title is written to that file; console lines after `$` are run,
as forks of what this program was before the first block, if they call
`outlive` or `python`, and what they print has to match what the page shows
(`...` stands for anything); `> FILE` writes it to a file. `# exit N` behind a
command expects that exit code.
"""

from __future__ import annotations

import json
import linecache
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.support import nursery

_EXIT = re.compile(r" +# exit (\d+)$")
LIMIT_S = 120.0
_ENDLESS = ("worker",)  # a command that runs until it is stopped is only checked for its usage


def _run_python(code: str, place: str, namespace: dict[str, object]) -> None:
    linecache.cache[place] = (len(code), None, code.splitlines(keepends=True), place)
    exec(compile(code, place, "exec"), namespace)


def _commands(body: str) -> list[tuple[str, list[str]]]:
    """Split a console block into commands, each with the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (found[-1][0][:-1] + line.strip(), [])
        elif found:
            found[-1][1].append(line)
    return found


def _run_command(command: str, expected: list[str], place: str) -> None:
    exit_code = int(match[1]) if (match := _EXIT.search(command)) else 0
    words = shlex.split(_EXIT.sub("", command), comments=True)
    target = words[-1] if words[-2:-1] == [">"] else None
    words = words[:-2] if target else words
    if words[0] == "outlive":
        argv = ["-m", "outlive", *words[1:]]
        if words[1:2] and words[1] in _ENDLESS:
            argv = [*argv, "--help"]
            expected = []
    elif words[0] == "python":
        argv = words[1:]
    else:
        return
    done = _execute(argv)
    ended = done.returncode if done.returncode >= 0 else 128 - done.returncode  # of a signal, as shells count
    if ended != exit_code:
        sys.exit(f"{place}: `{command}` ended with {ended}, not {exit_code}:\n{done.stdout}")
    if target:
        Path(target).write_text(done.stdout, encoding="utf-8")
    lines = iter(done.stdout.splitlines())
    for wanted in filter(str.strip, expected):
        pattern = re.compile(r"\s+".join(_pattern(word) for word in wanted.split()))
        if not any(pattern.fullmatch(line.strip()) for line in lines):
            sys.exit(f"{place}: `{command}` did not print {wanted!r} (in this order):\n{done.stdout}")


def _execute(argv: list[str]) -> subprocess.CompletedProcess[str]:
    if argv[:2] == ["-m", "pytest"]:  # which rewrites what it imports
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.run([sys.executable, *argv], **both, text=True, timeout=LIMIT_S, check=False)
    return nursery.run(argv, cwd=Path.cwd(), env=os.environ, timeout=LIMIT_S, merged=True)


def _pattern(word: str) -> str:
    return ".*".join(re.escape(part) for part in word.split("..."))


def main() -> None:
    nursery.nest()  # while nothing of the page has been executed
    namespace: dict[str, object] = vars(sys.modules["__main__"])
    sys.path.insert(0, str(Path.cwd()))
    for action in json.load(sys.stdin):
        if action["title"]:
            path = Path(action["title"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(action["body"], encoding="utf-8")
        elif action["language"] == "python":
            _run_python(action["body"], action["place"], namespace)
        elif action["language"] == "console":
            for command, expected in _commands(action["body"]):
                _run_command(command, expected, action["place"])


if __name__ == "__main__":
    main()
