"""The check itself: what it takes as evidence, that nothing outlives it, and what counts as worse than before."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from outlive.agents import File, Guarded, Verifier
from outlive.agents.guards.evidence import Ended, Evidence, Shown, read_evidence
from outlive.agents.guards.habits import CALLERS, EQUAL, PROCESS, SWALLOWS, TESTING, TEXT, find_assertions, find_habits
from outlive.agents.guards.landlock import find_version
from outlive.agents.guards.ratchet import find_cheats, find_faults, find_tampering
from outlive.agents.guards.tree import (
    Tree,
    compare_trees,
    digest_tree,
    is_among,
    read_tree,
    remove_folder,
    restore_tree,
    write_tree,
)
from outlive.limits import TREE_MAX_BYTES
from tests.agents.fixer import BARE, CONFIGURATION, RIGHT, TESTS, WRONG

LIMIT_S = 20.0
NOWHERE = Path("/nowhere")


def tree(**files: str) -> Tree:
    """`tests__test_a='…'` is tests/test_a.py."""
    return {f"{name.replace('__', '/')}.py": File(text.encode()) for name, text in files.items()}


async def check(files: Tree, **settings: object) -> Evidence:
    return await Verifier(environment=BARE, **settings).check(files, {}, NOWHERE)  # type: ignore[arg-type]


async def is_gone(pid: int) -> bool:
    async with asyncio.timeout(LIMIT_S):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
    return True


# -- processes ---------------------------------------------------------------------
DETACHED = """import os, time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open({ledger!r}, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
"""


@pytest.mark.parametrize("ends", ["", "while True:\n    pass\n"], ids=["by itself", "by its time"])
async def test_nothing_outlives_a_check(tmp_path: Path, ends: str) -> None:
    ledger = tmp_path / "pid"
    waits = f"import os\nwhile not os.path.exists({str(ledger)!r}):\n    pass\n"
    program = DETACHED.format(ledger=str(ledger)) + waits + ends + RIGHT
    files = tree(calc=program, tests__test_calc=TESTS)
    shown = await check(files, timeout=3 if ends else 60, writable=[tmp_path])
    assert await is_gone(int(ledger.read_text()))
    assert shown.trouble == ("the check was ended after 3 s" if ends else "")
    assert shown.is_clean is not bool(ends)


async def test_a_check_that_is_given_up_ends_what_it_has_started(tmp_path: Path) -> None:
    ledger = tmp_path / "pid"
    note = f"with open({str(ledger)!r}, 'w') as file:\n    file.write(f'{{os.getpid()}} {{os.getcwd()}}')\n"
    program = f"import os, time\n{note}time.sleep(600)\n"
    task = asyncio.create_task(check(tree(calc=program, tests__test_calc=TESTS), writable=[tmp_path]))
    async with asyncio.timeout(LIMIT_S):
        while not ledger.exists() or not ledger.read_text():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pid, folder = ledger.read_text().split()
    assert await is_gone(int(pid))
    assert not os.path.exists(folder)  # noqa: PTH110 - nobody waits for this test


async def test_a_check_has_limits() -> None:
    tests = """import errno, os, resource

def test_memory():
    try:
        bytearray(5 * 1024**3)
    except MemoryError:
        pass
    else:
        assert False

def test_files(tmp_path):
    with open(tmp_path / "large", "wb") as file:
        try:
            file.truncate(2 * 1024**3)
        except OSError as error:
            assert error.errno == errno.EFBIG
        else:
            assert False

def test_time():
    assert resource.getrlimit(resource.RLIMIT_CPU)[1] <= 121
"""
    shown = await check(tree(tests__test_limits=tests))
    assert (shown.is_clean, len(shown.tests)) == (True, 3)


async def test_what_tests_say_can_be_stored() -> None:
    tests = "def test_it():\n    raise ValueError('a\\x00b\\ud800c')\n"
    shown = await check(tree(tests__test_it=tests))
    assert "a\ufffdb?c" in shown.tests["tests/test_it.py::test_it"].text


async def test_a_supervisor_that_was_killed_is_no_accident(tmp_path: Path) -> None:
    ledger = tmp_path / "pid"
    program = f"import os, time\nopen({str(ledger)!r}, 'w').write(f'{{os.getppid()}}\\n')\ntime.sleep(600)\n"
    task = asyncio.create_task(check(tree(calc=program, tests__test_calc=TESTS), writable=[tmp_path]))
    async with asyncio.timeout(LIMIT_S):
        while not ledger.exists() or not ledger.read_text().endswith("\n"):
            await asyncio.sleep(0.01)
    psutil.Process(int(ledger.read_text())).kill()
    shown = await task
    assert not shown.is_clean
    assert shown.trouble == "the check ended early: its supervisor is gone"
    assert shown.tampering == ["somebody has killed the process that supervises the tests"]


OUTSIDE = """import os
from pathlib import Path


def tries(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return error.errno
    return 0


TRIED = [
    tries(Path({folder!r}, "kept").write_text, "what the hidden tests say"),
    tries(Path({folder!r}, "pinned").unlink),
    tries(os.truncate, Path({folder!r}, "pinned"), 0),
    tries(os.link, Path({folder!r}, "pinned"), "linked"),
    tries(Path(os.__file__).with_name("cheat.pth").write_text, ""),
    tries(os.kill, os.getppid(), 0),
    tries(open, f"/proc/{{os.getppid()}}/mem", "r+b"),
]
Path({ours!r}, "said").write_text(str(TRIED))
"""


async def test_a_check_reaches_nothing_outside_of_its_copy(tmp_path: Path) -> None:
    assert find_version(), "the system has Landlock, as Linux has since 5.19"
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    (theirs / "pinned").write_text("as it was")
    program = OUTSIDE.format(folder=str(theirs), ours=str(ours)) + RIGHT
    shown = await check(tree(calc=program, tests__test_calc=TESTS), writable=[ours])
    assert shown.is_clean
    assert 0 not in json.loads((ours / "said").read_text())
    assert [(file.name, file.read_text()) for file in theirs.iterdir()] == [("pinned", "as it was")]


async def test_what_programs_need_to_write_they_may() -> None:
    tests = """import multiprocessing, os, socket, subprocess, tempfile, threading

def test_it(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "file").write_text("it")
    (tmp_path / "file").rename(tmp_path / "one" / "file")
    os.link(tmp_path / "one" / "file", tmp_path / "linked")
    os.truncate(tmp_path / "linked", 0)
    os.mkfifo(tmp_path / "pipe")
    tempfile.TemporaryFile().write(b"it")
    with open(os.devnull, "w") as file:
        file.write("it")
    multiprocessing.Lock()
    child = subprocess.Popen(["sleep", "60"])
    child.kill()
    assert child.wait() == -9
    socket.create_server(("127.0.0.1", 0)).close()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
"""
    shown = await check(tree(tests__test_it=tests))
    assert shown.tests == {"tests/test_it.py::test_it": Shown("passed")}


async def test_the_environment_is_clean_and_the_tools_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLIVE_TEST_SECRET", "s3cret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    tests = """import os, sys, shutil

def test_environment():
    assert "OUTLIVE_TEST_SECRET" not in os.environ
    assert "PYTHONPATH" not in os.environ
    assert os.environ["GIVEN"] == "1"
    own = [path for path in sys.path if path.startswith(os.getcwd())]
    assert own and sys.path[-len(own):] == own
    assert shutil.which("sh").startswith(("/bin", "/usr/bin"))
"""
    environment = {**BARE, "GIVEN": "1"}
    shown = await Verifier(environment=environment).check(tree(tests__test_env=tests, sh=""), {}, NOWHERE)
    assert shown.tests == {"tests/test_env.py::test_environment": Shown("passed")}
    assert shown.is_clean


@pytest.mark.parametrize("given", [Path(sys.executable).name, os.path.relpath(sys.executable)], ids=["name", "path"])
async def test_a_python_is_looked_for_here_and_not_in_the_project(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    shim = File(b"#!/bin/sh\nexit 1\n", executable=True)
    files = tree(calc=RIGHT, tests__test_calc=TESTS) | {Path(sys.executable).name: shim}
    assert (await check(files, python=given)).is_clean


async def test_a_module_of_the_project_hides_none_of_the_library() -> None:
    tests = "import colorsys\n\n\ndef test_it():\n    assert colorsys.__doc__\n"
    files = tree(src__colorsys="", tests__test_it=tests) | {
        "pyproject.toml": File((CONFIGURATION + 'pythonpath = ["src"]\n').encode())
    }
    assert (await check(files)).is_clean


async def test_a_project_that_is_installed_is_not_what_was_checked(tmp_path: Path) -> None:
    live = tmp_path / "project"
    write_tree(tree(calc=RIGHT), live)
    tests = f"import sys\nsys.path.insert(0, {str(live)!r})\n" + TESTS
    shown = await Verifier(environment=BARE).check(tree(tests__test_calc=tests), {}, live)
    assert shown.live == [str(live / "calc.py")]


@pytest.mark.parametrize(
    ("settings", "trouble"),
    [
        ({"python": "/nowhere/python"}, "exit code 127: /nowhere/python: No such file or directory"),
        ({"tests": ["nowhere"]}, "exit code 4"),
    ],
)
async def test_a_check_that_cannot_be_executed(settings: dict[str, object], trouble: str) -> None:
    shown = await check(tree(calc=RIGHT, tests__test_calc=TESTS), **settings)
    assert trouble in shown.trouble
    assert not shown.is_clean


async def test_options_of_the_project_that_would_end_the_tests_early_have_no_say() -> None:
    configuration = CONFIGURATION + 'addopts = "-x --maxfail=1 -q -q"\n'
    files = tree(calc=WRONG, tests__test_calc=TESTS) | {"pyproject.toml": File(configuration.encode())}
    shown = await check(files)
    assert {name.split("::")[1]: one.outcome for name, one in shown.tests.items()} == {
        "test_add": "failed", "test_add_zero": "passed", "test_double": "passed",
    }  # fmt: skip
    assert shown.tampering == []


# -- evidence ----------------------------------------------------------------------
def report(*lines: dict[str, object], status: int | None = 1, late: bool = False) -> Evidence:
    told = "\n".join(json.dumps({"nonce": "n", **line}) for line in lines)
    return read_evidence(Ended(status, late, told, "said"), "n", ["c/a.py", "c/b.py"], 9.0)


def phases(name: str, *outcomes: str, xfail: bool = False) -> list[dict[str, object]]:
    return [
        {"kind": "phase", "id": name, "when": when, "outcome": outcome, "xfail": xfail}
        for when, outcome in zip(("setup", "call", "teardown"), outcomes, strict=False)
    ]


PASS = ("passed", "passed", "passed")
CONTROLS = [*phases("c/a.py::x", "passed", "failed", "passed"), *phases("c/b.py::x", "passed", "failed", "passed")]
END = {"kind": "end", "live": []}


def collected(*names: str) -> dict[str, object]:
    return {"kind": "collected", "ids": ["c/a.py::x", *names, "c/b.py::x"]}


def test_an_honest_report_is_clean() -> None:
    shown = report(collected("t::a"), *CONTROLS, *phases("t::a", *PASS), END)
    assert (shown.tests, shown.is_clean) == ({"t::a": Shown("passed")}, True)


def test_what_was_told_is_not_taken_back() -> None:
    again = [*phases("t::a", "passed", "failed", "passed"), *phases("t::a", *PASS)]
    assert report(collected("t::a"), *CONTROLS, *again, END).tests == {"t::a": Shown("failed")}


def test_a_test_passes_only_if_all_of_its_phases_do() -> None:
    for outcomes in (("passed", "passed"), ("passed", "passed", "failed"), ("failed",), ("passed",)):
        shown = report(collected("t::a"), *CONTROLS, *phases("t::a", *outcomes), END)
        assert shown.tests["t::a"].outcome == "failed"
        assert not shown.is_clean


def test_repetitions_of_a_plugin_count_by_their_last() -> None:
    repeated = [*phases("t::a", "passed", "rerun", "passed"), *phases("t::a", *PASS)]
    assert report(collected("t::a"), *CONTROLS, *repeated, END).is_clean


def test_a_forged_report_is_no_evidence() -> None:
    honest = [collected("t::a"), *phases("t::a", *PASS)]
    assert "which cannot be" in report(*honest, END, status=0).tampering[0]
    silent = report(*honest, END).tampering
    assert silent == [
        "tests that cannot pass were not executed",
        "the tests ended before all that were collected had been executed",
    ]
    passed = [*phases("c/a.py::x", *PASS), *CONTROLS[3:]]
    assert "a test that cannot pass was reported as passed" in report(*honest, *passed, END).tampering
    assert report(*honest, *phases("c/a.py::x", *PASS), *CONTROLS, END).is_clean  # it was told to have failed as well


@pytest.mark.parametrize(
    "line",
    [
        *("{}", "[]", "7", "no json", '{"nonce": "n"}', '{"nonce": "n", "kind": "__init__", "nonce2": 1}'),
        *("[" * 200_000, "[" * 900 + "]" * 900, '{"nonce": ' + "[" * 900 + "]" * 900 + "}", "1" * 5_000),
        '{"nonce": "n", "kind": "end", "live": 5}',
        '{"nonce": "n", "kind": "end", "live": [5]}',
        '{"nonce": "n", "kind": "end", "live": [], "more": []}',
        '{"nonce": "n", "kind": "collected", "ids": "t::a"}',
        '{"nonce": "n", "kind": "patched", "name": []}',
        '{"nonce": "n", "kind": "equal", "name": "A", "file": null}',
        '{"nonce": "n", "kind": "unread", "id": "t", "outcome": "failed", "place": 5}',
        '{"nonce": "n", "kind": "phase", "id": "t", "when": [], "outcome": "passed", "xfail": false}',
    ],
)
def test_a_line_that_no_probe_writes_is_tampering(line: str) -> None:
    shown = read_evidence(Ended(1, False, line, ""), "n", [], 9.0)
    assert "somebody else has written into the report of the tests" in shown.tampering
    assert (shown.tests, shown.live, shown.patched, shown.equal) == ({}, [], [], {})


@pytest.mark.parametrize(
    ("status", "late", "trouble"),
    [
        (-11, False, "signal 11"),
        (3, False, "exit code 3: said"),
        (1, False, "exit code 1"),
        (None, True, "ended after 9 s"),
        (None, False, "its report was too long"),
    ],
)
def test_a_check_that_ended_early_shows_nothing(status: int | None, late: bool, trouble: str) -> None:
    shown = report(collected("t::a", "t::b"), *CONTROLS, *phases("t::a", *PASS), status=status, late=late)
    assert trouble in shown.trouble
    assert shown.tests["t::b"].outcome == "failed"
    assert shown.tampering == []  # a crash is no cheat


# -- what may not get worse --------------------------------------------------------
LOOSE = Verifier(protect=["pyproject.toml"])  # the agent may write tests, too


def test_tests_that_nobody_protects_are_not_weakened() -> None:
    before = tree(tests__test_a="def test_a():\n    assert f(1) == 2\n    assert f(2) == 3\n")

    def cheats(text: str) -> list[str]:
        return find_cheats(LOOSE, before, tree(tests__test_a=text))

    more = "def test_b():\n    assert f(3) == 4\n\ndef test_a():\n    assert f(2) == 3\n    assert f(1) == 2\n"
    assert cheats(more) == []
    assert cheats("def test_a():\n    assert f(1) == 2\n") == ["tests/test_a.py: test_a: assert f(2) == 3 is gone"]
    assert len(cheats("def test_a():\n    assert f(1)\n    assert f(2) == 3\n")) == 1
    assert len(cheats("def test_a(): pass\ndef other():\n    assert f(1) == 2\n    assert f(2) == 3\n")) == 2
    assert len(cheats("def test_a(:")) == 2
    assert len(find_cheats(LOOSE, before, {})) == 2


def test_tests_do_not_go_and_are_not_newly_skipped() -> None:
    baseline = Evidence({"t::a": Shown("failed"), "t::b": Shown("skipped"), "t::c": Shown("xfailed")})
    now = {"t::a": Shown("passed"), "t::b": Shown("skipped"), "t::c": Shown("xfailed")}
    assert find_tampering(LOOSE, baseline, Evidence(now)) == []
    assert find_tampering(LOOSE, baseline, Evidence(now | {"t::b": Shown("passed"), "t::c": Shown("passed")})) == []
    assert find_tampering(LOOSE, baseline, Evidence({**now, "t::a": Shown("skipped", "so")})) == [
        "t::a was failed, and is skipped now: so"
    ]
    assert find_tampering(LOOSE, baseline, Evidence({**now, "t::b": Shown("xfailed")})) != []
    gone = Evidence({name: one for name, one in now.items() if name != "t::a"})
    assert find_tampering(LOOSE, baseline, gone) == ["t::a is a test that is gone"]
    broken = Evidence({"t": Shown("failed", "SyntaxError")})
    assert find_tampering(LOOSE, baseline, broken) == []  # it fails, and that is reason enough
    equal = [Evidence(now, equal=kinds) for kinds in ({}, {"Any": "tests/any.py"}, {"Any": "calc.py"})]
    assert [find_tampering(Verifier(), equal[0], one) for one in equal] == [
        [],
        [],
        ["calc.py: Any is equal to anything"],
    ]
    patched = [Evidence(now, patched=names) for names in (["a"], ["a", "b"])]
    assert find_tampering(LOOSE, patched[0], patched[1]) == ["b was patched"]  # a is a plugin's doing
    assert set(find_faults(LOOSE, {}, {}, baseline, broken)) == {"t", "t::a", "t::b", "t::c", "the check"}


def test_a_test_that_was_unknown_is_skipped_only_by_a_protected_file() -> None:
    check = Verifier()
    for place, faults in (("tests/test_a.py", 0), ("<hidden>/test_b.py", 0), ("calc.py", 1), ("", 1)):
        for outcome in ("skipped", "xfailed"):
            shown = Evidence({"t::a": Shown("passed"), "t::b": Shown(outcome, "so", place)})
            assert len(find_faults(check, {}, {}, Evidence(), shown)) == faults


HABITS = {
    SWALLOWS: [
        "try: f()\nexcept: pass",
        "try: f()\nexcept (ValueError, Exception) as e: log(e)",
        "try: f()\nexcept builtins_.BaseException: return_()",
        "with contextlib.suppress(Exception): f()",
    ],
    EQUAL: [
        "class A:\n    def __eq__(self, other): return True",
        "class A:\n    __eq__ = lambda *_: True",
        "A = type('A', (), {'__eq__': f})",
        "class A:\n    def __contains__(self, one): return bool(self)",
    ],
    CALLERS: [
        "import sys\nsys._getframe(1)",
        "from sys import modules",
        "getattr(inspect, 'currentframe')",
        "f.f_back",
    ],
    TESTING: [
        "import pytest",
        "from _pytest.outcomes import skip",
        "x = 'PYTEST_CURRENT_TEST' in e",
        "import unittest.mock",
    ],
    PROCESS: ["import os\nos._exit(0)", "from os import _exit", "import atexit", "import os\nos.kill(1, 9)"],
    TEXT: ["eval('1')", "import ctypes", "__import__('os')", "from importlib import import_module"],
}
HONEST = [
    "try: f()\nexcept ValueError: pass",
    "try: f()\nexcept Exception:\n    undo()\n    raise",
    "class A:\n    def __eq__(self, other): return self.a == other.a",
    "import sys, os, importlib\nsys.exit(main())\nos.environ.get('HOME')",
    "model.eval()\nrepo.fork()\nfrom flask import abort\nabort(404)",
    "inspect.signature(f)\nself.stack.pop()\nself.modules = []",
    "'''Tested with pytest.'''\nrun('exec')",
]


@pytest.mark.parametrize(("what", "text"), [(what, text) for what, texts in HABITS.items() for text in texts])
def test_a_habit_is_found(what: str, text: str) -> None:
    assert what in {habit.what for habit in find_habits(text.encode()) or []}


@pytest.mark.parametrize("text", HONEST)
def test_honest_code_has_none(text: str) -> None:
    assert find_habits(text.encode()) == []


def test_habits_may_move_and_must_not_grow() -> None:
    handler = "def f():\n    try:\n        g()\n    except Exception:\n        pass\n"
    before, clean = tree(a=handler, b="x = 1\n"), Evidence({"t::a": Shown("passed")})

    def faults(after: Tree) -> list[str]:
        return list(find_faults(LOOSE, before, after, clean, clean))

    assert faults(tree(a="", b="\n\n" + handler)) == []
    assert faults(tree(a=handler, b=handler)) == ["b.py:4: an except clause that swallows every error"]
    assert len(faults(tree(a=handler + handler, b="x = 1\n"))) == 1
    assert faults(tree(a=handler, b="x =")) == ["b.py"]


# -- trees -------------------------------------------------------------------------
def test_patterns_mean_files_and_folders() -> None:
    for path, pattern in [
        ("tests/a/b.py", "tests"), ("tests/a.py", "tests/**"), ("a/b/conftest.py", "**/conftest.py"),
        ("conftest.py", "**/conftest.py"), ("a.cfg", "*.cfg"), ("CONFTEST.py", "**/conftest.py"), ("a/b.c", "a/?.c"),
        ("tests/a.py", "./tests/"),
        ("x/cheat-1.dist-info/METADATA", "**/*.dist-info"),
    ]:  # fmt: skip
        assert is_among(path, [pattern]), (path, pattern)
    for path, pattern in [("testsuite/a.py", "tests"), ("a/b.cfg", "*.cfg"), ("myconftest.py", "**/conftest.py")]:
        assert not is_among(path, [pattern]), (path, pattern)


def test_a_tree_is_read_and_written_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "in/.git").mkdir(parents=True)
    (tmp_path / "in/.git/config").write_text("no")
    (tmp_path / "in/bin").mkdir()
    (tmp_path / "in/bin/run").write_bytes(b"\xff\x00")
    (tmp_path / "in/bin/run").chmod(0o755)
    (tmp_path / "in/ä.txt").write_text("text")
    found, odd = read_tree(tmp_path / "in")
    assert (found, odd) == ({"bin/run": File(b"\xff\x00", True), "ä.txt": File(b"text")}, [])
    write_tree(found, tmp_path / "out")
    assert read_tree(tmp_path / "out") == (found, [])
    assert digest_tree(found) != digest_tree(found | {"ä.txt": File(b"text", True)}) != digest_tree({"ä.txt": None})


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").symlink_to("/etc")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(TREE_MAX_BYTES + 1)
    (tmp_path / os.fsdecode(b"\xff.txt")).write_text("")
    (tmp_path / "a.txt").write_text("a")
    found, odd = read_tree(tmp_path)
    assert list(found) == ["a.txt"]
    assert len(odd) == 5
    for told in (
        "'pipe' is no regular file",
        "'link' is a symbolic link",
        "'folder' is a symb",
        "'huge' does not fit",
        "no text",
    ):
        assert any(told in one for one in odd), told


@pytest.mark.parametrize(("name", "deep"), [("d", 1_200), ("e" * 200, 40)], ids=["many", "long"])
def test_folders_that_nobody_can_go_through_are_told(
    tmp_path: Path, name: str, deep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that ends the run is a way out for an agent that has to pass a check."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "calc.py").write_text(RIGHT)
    monkeypatch.chdir(project)
    for _ in range(deep):
        os.mkdir(name)  # noqa: PTH102 - its path is too long to be a path
        os.chdir(name)
    found, odd = read_tree(project)
    assert list(found) == ["calc.py"]
    assert len(odd) == 1
    assert "is too deep" in odd[0] or "File name too long" in odd[0]
    restore_tree(found, project, ["**/conftest.py"])
    os.chdir(project)
    remove_folder(project)
    assert list(tmp_path.iterdir()) == []


async def test_a_check_removes_what_was_made_too_deep_for_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    deep = "import os\n\nbefore = os.getcwd()\nfor _ in range(1_200):\n    os.mkdir('d')\n    os.chdir('d')\n"
    shown = await check(tree(calc=f"{deep}os.chmod('.', 0)\nos.chdir(before)\n{RIGHT}", tests__test_calc=TESTS))
    assert shown.is_clean
    assert list(tmp_path.iterdir()) == []


def test_changes_are_made_in_another_folder(tmp_path: Path) -> None:
    before = tree(calc="old", old="old", sub__old="old") | {"link": File(b"")}
    after = tree(calc="new", new__calc="new") | {"link": File(b"", True)}
    for name in ("one", "linked"):
        write_tree(before, tmp_path / name)
    done = Guarded([], compare_trees(before, after))
    done.apply(tmp_path / "one")
    done.apply(str(tmp_path / "one"))
    assert read_tree(tmp_path / "one") == (after, [])
    (tmp_path / "linked/sub/old.py").unlink()
    (tmp_path / "linked/sub").rmdir()
    (tmp_path / "linked/sub").symlink_to(tmp_path / "two")
    write_tree(tree(old="mine"), tmp_path / "two")
    done.apply(tmp_path / "linked")
    assert read_tree(tmp_path / "two") == (tree(old="mine"), [])


@pytest.mark.parametrize(
    ("before", "after"), [({"calc": "x"}, {"calc/a": "y"}), ({"data/a": "x"}, {"data": "y"})], ids=["folder", "file"]
)
def test_changes_are_made_again_where_a_file_is_a_folder_by_now(
    before: dict[str, str], after: dict[str, str], tmp_path: Path
) -> None:
    old, new = ({path: File(text.encode()) for path, text in one.items()} for one in (before, after))
    write_tree(old, tmp_path)
    for _ in range(2):
        Guarded([], compare_trees(old, new)).apply(tmp_path)
        assert read_tree(tmp_path) == (new, [])


CHECKED = """def test_add():
    assert add(1, 2) == 3
    assert_close(add(1, 2), 3)
    with raises(TypeError):
        add()
"""
PLAIN = "    assert add(1, 2) == 3\n"
TRIED = f"    try:\n    {PLAIN}    except {{error}}:\n        pass\n"


@pytest.mark.parametrize(
    ("weaker", "left"),
    [
        (CHECKED.replace("    assert_close(add(1, 2), 3)\n", ""), 2),
        (CHECKED.replace("    with raises(TypeError):\n        add()\n", ""), 2),
        (CHECKED.replace(PLAIN, f"    return\n{PLAIN}"), 0),
        (CHECKED.replace(PLAIN, f"    if False:\n    {PLAIN}"), 2),
        (CHECKED.replace(PLAIN, TRIED.format(error="AssertionError")), 2),
        (CHECKED.replace(PLAIN, TRIED.format(error="KeyError")), 3),
        (CHECKED.replace(PLAIN, f"    if 0:\n        pass\n    else:\n    {PLAIN}"), 3),
        (CHECKED, 3),
    ],
    ids=["by its name", "raises", "behind a return", "never", "whose failure is hidden", "tried", "else", "all"],
)
def test_what_a_test_asserts(weaker: str, left: int) -> None:
    assert len(find_assertions(weaker.encode()) or []) == left


def test_restoring_follows_no_link(tmp_path: Path) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "project"
    elsewhere.mkdir()
    (elsewhere / "test_a.py").write_text("mine")
    pinned = tree(tests__test_a="pinned", tests__sub__test_b="pinned", calc="old")
    write_tree(pinned, root)
    for path in ("tests/test_a.py", "tests/sub/test_b.py"):
        (root / path).unlink()
    (root / "tests/sub").rmdir()
    (root / "tests/sub").symlink_to(elsewhere)
    (root / "tests/test_a.py").symlink_to(elsewhere / "test_a.py")
    (root / "tests/extra.py").write_text("more")
    (root / "calc.py").write_text("new")
    restore_tree(pinned, root, ["tests"])
    assert read_tree(root) == (pinned | tree(calc="new"), [])
    assert (elsewhere / "test_a.py").read_text() == "mine"
    assert [path.name for path in elsewhere.iterdir()] == ["test_a.py"]
