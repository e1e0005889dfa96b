"""What executes the tests, in a process of its own: pytest, with a reporter of ours. Started by `supervise`.

Knows pytest and nothing of Outlive: the Python that executes it may be the project's own.
It decides nothing. Each phase of each test is told while it happens, on a pipe that
no file leads to, so that what was once told cannot be taken back; whoever reads it
decides, see `evidence`.
"""

from __future__ import annotations

import gc
import json
import os
import secrets
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_TEXT_MAX_CHARS = 2_000  # of why a test failed
_TOLD_MAX = 20
_MACHINERY = ("_pytest.", "pluggy.", "unittest.")


class Reporter:
    """A plugin of pytest that tells what happens, and sees to it that the project's modules stand behind all others."""

    def __init__(self, channel: int, nonce: str, root: str, live: str) -> None:
        self._channel = channel
        self._nonce = nonce
        self._root = root
        self._live = live
        self._pid = os.getpid()
        self._machinery: dict[str, Any] = {}

    def _tell(self, kind: str, **facts: Any) -> None:
        if os.getpid() != self._pid:
            return  # a fork of the tests is not the tests
        left = json.dumps({"nonce": self._nonce, "kind": kind, **facts}).encode() + b"\n"
        while left:
            left = left[os.write(self._channel, left) :]

    def pytest_load_initial_conftests(self, early_config: Any) -> None:
        """After the plugins of installed distributions are loaded, so that the project cannot pretend to be one."""
        self._machinery = dict(_machinery())
        own = [path for path in sys.path if self._is_own(path)]
        sys.path[:] = [path for path in sys.path if not self._is_own(path)]
        sys.path += [*own, self._root]
        self._behind(early_config.known_args_namespace)

    def pytest_configure(self, config: Any) -> None:
        self._behind(config.option)
        config.option.dist = "no"  # of xdist, whose workers would not have this plugin

    def _behind(self, options: Any) -> None:
        if options.importmode == "prepend":
            options.importmode = "append"  # else a module of the project hides one of a library

    def _is_own(self, path: str) -> bool:
        return os.path.realpath(path).startswith(self._root)

    def pytest_collectreport(self, report: Any) -> None:
        if report.outcome != "passed":
            self._tell("unread", id=report.nodeid, outcome=report.outcome, **_why(report))

    def pytest_collection_finish(self, session: Any) -> None:
        self._machinery |= dict(_tests(session))
        self._tell("collected", ids=[item.nodeid for item in session.items])

    def pytest_runtest_logreport(self, report: Any) -> None:
        facts = {"when": report.when, "outcome": report.outcome, "xfail": hasattr(report, "wasxfail")}
        self._tell("phase", id=report.nodeid, **facts, **_why(report))

    def pytest_sessionfinish(self, session: Any) -> None:
        files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        live = sorted({file for file in files if isinstance(file, str) and file.startswith(self._live + os.sep)})
        now = dict(_machinery()) | dict(_tests(session))
        patched = sorted(name for name, what in self._machinery.items() if now.get(name) is not what)
        self._tell("end", live=live[:_TOLD_MAX], patched=patched[:_TOLD_MAX], equal=_equal_to_anything(self._root))


def _machinery() -> Iterator[tuple[str, Any]]:
    """Give the code of all functions and methods by which tests are executed and compared."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and f"{name}.".startswith(_MACHINERY):
            for own, value in list(vars(module).items()):
                yield from _code_of(f"{name}.{own}", value)
                if isinstance(value, type) and value.__module__ == name:
                    for method, function in list(vars(value).items()):
                        yield from _code_of(f"{name}.{own}.{method}", function)


def _tests(session: Any) -> Iterator[tuple[str, Any]]:
    for item in session.items if hasattr(session, "items") else ():
        yield from _code_of(item.nodeid, getattr(item, "obj", None))


def _code_of(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    function = getattr(value, "__func__", value)
    code = getattr(function, "__code__", None)
    if code is not None:
        yield name, code


def _equal_to_anything(root: str) -> dict[str, str]:
    """Give the classes of the project whose instances are equal to what they have never seen, and their files."""
    strangers = (object(), secrets.randbits(64), secrets.token_hex())
    return {
        kind.__qualname__: file
        for kind in gc.get_objects()
        if isinstance(kind, type)
        and (file := _compared_in(root, kind))
        and any(_is_equal(kind, one) for one in strangers)
    }


def _compared_in(root: str, kind: Any) -> str | None:
    """Give the file of the project that defines how a class compares, if one does."""
    for base in kind.__mro__:
        code = getattr(vars(base).get("__eq__"), "__code__", None)
        if code is not None and code.co_filename.startswith(root):
            return str(code.co_filename)
    return None


def _is_equal(kind: Any, stranger: Any) -> bool:
    try:
        return bool(kind.__new__(kind) == stranger)
    except Exception:  # noqa: BLE001 - it was made without its constructor, and may not be complete
        return False


def _why(report: Any) -> dict[str, str]:
    if report.outcome == "passed":
        return {}
    return {"place": str(_place_of(report)), "text": str(report.longreprtext)[-_TEXT_MAX_CHARS:]}


def _place_of(report: Any) -> Any:
    """Give the file that decided on a skip, or where a mark or an error stands."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[0]
    if "xfail" in getattr(report, "keywords", ()):
        return report.location[0]
    return getattr(getattr(report.longrepr, "reprcrash", None), "path", "")


def main() -> None:
    """Execute the tests that the first line on stdin names, and end as pytest says."""
    channel = int(sys.argv[1])
    os.set_inheritable(channel, False)
    orders = json.loads(sys.stdin.readline())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    import pytest

    arguments = [*orders["arguments"], "-q", "--color=no", "--tb=short", "-p", "no:cacheprovider"]
    arguments += ["--rootdir", orders["root"], "--basetemp", orders["temporary"]]
    arguments += ["--continue-on-collection-errors", "--maxfail=0"]
    reporter = Reporter(channel, orders["nonce"], orders["root"], orders["live"])
    del orders
    code = pytest.main(arguments, plugins=[reporter])
    sys.stdout.flush()
    os._exit(int(code))  # threads and exit handlers of the project have no say any more


if __name__ == "__main__":
    main()
