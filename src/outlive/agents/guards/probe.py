"""What executes the tests, in a process of its own: pytest, with a reporter of ours. Started by `supervise`.

Knows pytest and nothing of Outlive: the Python that executes it may be the project's own.
It decides nothing. Each phase of each test is told while it happens, on a pipe that
no file leads to, so that what was once told cannot be taken back; whoever reads it
decides, see `evidence`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
import unittest  # noqa: F401 - loaded before the project, so that it is seen what was patched
from json import loads
from json.encoder import encode_basestring_ascii as _quote
from pathlib import Path
from typing import Any

_TEXT_MAX_CHARS = 2_000  # of why a test failed
_LIVE_MAX = 20
_TOLD_MAX = 500  # of each kind: an honest project has a few
# Whoever patches a module patches no name of ours.
_write, _getpid = os.write, os.getpid


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_equality, _watch = _load("equality"), _load("watch")


class Reporter:
    """A plugin of pytest that tells what happens, and sees to it that the project's modules stand behind all others."""

    def __init__(self, channel: int, orders: dict[str, Any]) -> None:
        self._channel = channel
        self._nonce = orders["nonce"]
        self._root = orders["root"]
        self._live = orders["live"]
        self._hidden: str = orders["hidden"]
        self._tests = [str(Path(self._root, path)) for path in orders["reads"]]
        self._pid = _getpid()
        self._told: dict[str, set[str]] = {}
        self._codes: dict[str, Any] = {}
        self._project = _watch.Project(self._root, orders["pinned"])
        self._machinery = _watch.Machinery(self._project)
        self._witness = _watch.Witness(self._project, self._tell_meddling)
        self._equality = _equality.Equality(self._root, lambda kind, file: self._tell_once("equal", kind, file=file))

    def _tell(self, kind: str, **facts: Any) -> None:
        if _getpid() != self._pid:
            return  # a fork of the tests is not the tests
        left = _to_json({"nonce": self._nonce, "kind": kind, **facts}).encode() + b"\n"
        while left:
            left = left[_write(self._channel, left) :]

    def _tell_once(self, kind: str, name: str, **facts: Any) -> None:
        told = self._told.setdefault(kind, set())
        if name not in told and len(told) < _TOLD_MAX:
            told.add(name)
            self._tell(kind, name=name, **facts)

    def _tell_meddling(self, what: str) -> None:
        self._tell_once("meddled", what)

    def _look(self, *, is_testing: bool = False) -> None:
        """Tell what has been patched by now."""
        for name in self._machinery.find_patched():
            self._tell_once("patched", name)
        for name in self._machinery.find_replaced_in_library(is_testing=is_testing):
            self._tell_once("patched", name)

    def _look_back(self) -> None:
        """Tell whether it is the project that tells a result."""
        file = self._project.find_caller(_watch.here(), among=None)
        if file is not None:
            self._tell_meddling(f"{file} calls what reports the results of tests")

    def pytest_load_initial_conftests(self, early_config: Any) -> None:
        """After the plugins of installed distributions are loaded, so that the project cannot pretend to be one."""
        own = [path for path in sys.path if self._is_own(path)]
        sys.path[:] = [path for path in sys.path if not self._is_own(path)]
        sys.path += [*own, self._root]
        self._behind(early_config.known_args_namespace)
        self._machinery.note(early_config.pluginmanager.hook, Reporter, _watch.Machinery, _watch.Witness)
        self._equality.watch_new()
        self._machinery.note_library()
        self._witness.begin(self._tests)

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
        self._witness.collects = False
        self._codes = _watch.tests_of(session.items)
        self._tell("collected", ids=[item.nodeid for item in session.items])
        self._equality.watch()
        self._machinery.note_tests(item.module for item in session.items if hasattr(item, "module"))
        hidden = Path(self._root, self._hidden)
        for path in {item.path for item in session.items} if self._hidden else ():
            if path.suffix == ".py" and path.is_relative_to(hidden):
                path.unlink()  # it is in memory: nobody needs to read it any more

    def pytest_runtest_makereport(self, call: Any) -> None:
        if call.when == "call":
            self._look(is_testing=True)

    def pytest_runtest_setup(self, item: Any) -> None:
        self._look()
        for name in self._machinery.find_replaced(item):
            self._tell_once("patched", name)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._look_back()
        facts = {"when": report.when, "outcome": report.outcome, "xfail": hasattr(report, "wasxfail")}
        self._tell("phase", id=report.nodeid, **facts, **_why(report))

    def pytest_sessionfinish(self, session: Any) -> None:
        self._look()
        now = _watch.tests_of(session.items if hasattr(session, "items") else ())
        emptied = [name for name, code in self._codes.items() if now.get(name) is not code]
        for name in (*emptied, *self._machinery.find_rewritten()):
            self._tell_once("patched", name)
        self._equality.ask()
        files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        live = sorted({file for file in files if isinstance(file, str) and file.startswith(self._live + os.sep)})
        self._tell("end", live=live[:_LIVE_MAX])


def _to_json(value: Any) -> str:
    """Give facts as JSON, without the module of that name, which is the project's to patch."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_to_json, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote(name)}: {_to_json(one)}" for name, one in value.items()) + "}"
    return str(_quote(value))


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
    orders = loads(sys.stdin.readline())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    own, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")  # ours is not to be found
    import pytest

    arguments = [*orders["arguments"], "-q", "--color=no", "--tb=short", "-p", "no:cacheprovider"]
    arguments += ["--rootdir", orders["root"], "--basetemp", orders["temporary"]]
    arguments += ["--continue-on-collection-errors", "--maxfail=0"]
    reporter = Reporter(channel, orders)
    del orders
    code = pytest.main(arguments, plugins=[reporter])
    sys.stdout.flush()
    end(int(code))  # threads and exit handlers of the project have no say any more
    del own


end = os._exit

if __name__ == "__main__":
    main()
