"""What the probe watches while tests execute: the code that executes them, and who looks at it.

Loaded by `probe` from its file, standard library only. Decides nothing: it tells, at once, since what was told cannot
be taken back. Invariant: an honest project is told of before its first attempt as it is afterwards; only
what is new counts, see `ratchet`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

_MODULES = ("_pytest.", "pytest.", "pluggy.", "unittest.")
# What tests reckon with, and nobody patches but to have them pass; all else of the library is patched by mocks, too.
_RECKONS = {"builtins", "cmath", "collections", "copy", "decimal", "fractions", "functools", "hashlib", "itertools"}
_RECKONS |= {"json", "json.decoder", "json.encoder", "math", "operator", "re", "statistics", "string", "_pydecimal"}
# Events of sys.audit that an honest project seldom causes itself: what it would learn there is who executes it.
_PRYING = {"gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._getframe", "sys._current_frames"}
_PRYING |= {"sys._current_exceptions", "sys.settrace", "sys.setprofile", "sys.addaudithook", "code.__new__"}
_PRYING |= {"ctypes.dlopen", "ctypes.dlsym"}
_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"}
_INSPECT, _TRACEBACK, _THREADING, _WARNINGS = (
    function.__code__.co_filename
    for function in (inspect.currentframe, traceback.format_list, threading.Thread.run, warnings.formatwarning)
)
_GO_BETWEENS = (_INSPECT, _TRACEBACK, _THREADING)  # whose caller it is who asks
_FORMATTERS = (_TRACEBACK, _WARNINGS)  # they read the lines of all frames, whosever


class Project:
    """Which files are the project's own to change, and which of its code is executing."""

    def __init__(self, root: str, pinned: Iterable[str]) -> None:
        self._root = root + os.sep
        self._pinned = {self._root + path for path in pinned}

    def owns(self, file: Any) -> bool:
        """Say whether a file of the project is one that an attempt may change."""
        return isinstance(file, str) and file.startswith(self._root) and file not in self._pinned

    def name(self, file: str) -> str:
        """Give a file of the project as the project calls it."""
        return file[len(self._root) :]

    def find_caller(self, frame: FrameType | None, among: tuple[str, ...] | None = None) -> str | None:
        """Give the nearest file of the project that calls, if it may be changed; `among`: what may stand between."""
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(self._root):
                return None if file in self._pinned else self.name(file)
            if among is not None and file not in among:
                return None
            frame = frame.f_back
        return None


class Machinery:
    """The functions and classes by which tests are executed, as they were when nothing of the project was loaded.

    It is looked at before and after each test, for what is patched may be put back; so nothing is looked at one by
    one unless something has changed.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._noted: list[tuple[str, Mapping[str, Any], dict[str, Any], bool]] = []
        self._functions: list[tuple[str, Any, Any]] = []
        self._hooks: dict[str, Any] = {}
        self._plugged: dict[str, list[Any]] = {}
        self._library: list[tuple[str, Mapping[str, Any], dict[str, Any]]] = []

    def note(self, hooks: Any, *more: type) -> None:
        """Take note of how they are."""
        self._hooks = vars(hooks)
        for name, module in list(sys.modules.items()):
            if isinstance(module, ModuleType) and f"{name}.".startswith(_MODULES):
                self._note(name, vars(module), is_class=False)
                for own, value in list(vars(module).items()):
                    if isinstance(value, type) and value.__module__ == name:
                        self._note(f"{name}.{own}", vars(value), is_class=True)
        for kind in more:
            self._note(kind.__qualname__, vars(kind), is_class=True)

    def _note(self, name: str, names: Mapping[str, Any], *, is_class: bool) -> None:
        self._noted.append((name, names, dict(names), is_class))
        codes = ((f"{name}.{own}", value, _code_of(value)) for own, value in list(names.items()) if _is_code(value))
        self._functions += (one for one in codes if one[2] is not None)

    def find_patched(self) -> Iterator[str]:
        """Give the names of what is otherwise by now, and the hooks in which the project has a say."""
        for name, names, as_it_was, is_class in self._noted:
            if names != as_it_was:
                yield from (f"{name}.{own}" for own in _find_other(names, as_it_was, is_class=is_class))
        for hook, caller in self._hooks.items():
            plugged = [one.function for one in getattr(caller, "_hookimpls", ())]
            if self._plugged.get(hook) != plugged:
                self._plugged[hook] = plugged
                if any(self._project.owns(_file_of(function)) for function in plugged):
                    yield f"the hook {hook} of pytest"

    def note_library(self) -> None:
        """Take note of the standard library, as far as it is loaded; of what tests reckon with the classes, too."""
        for name in _RECKONS:
            with suppress(ImportError):
                importlib.import_module(name)
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in sys.stdlib_module_names and isinstance(module, ModuleType):
                if not f"{name}.".startswith(_MODULES):
                    self._library.append((name, vars(module), dict(vars(module))))
                for own, value in list(vars(module).items()) if name in _RECKONS else ():
                    if isinstance(value, type) and value.__module__ == name:
                        self._library.append((f"{name}.{own}", vars(value), dict(vars(value))))

    def note_tests(self, modules: Iterable[ModuleType]) -> None:
        """Take note of what tests have at hand, which is theirs to change."""
        for module in {id(module): module for module in modules}.values():
            self._library.append((module.__name__, vars(module), dict(vars(module))))

    def find_replaced_in_library(self, *, is_testing: bool) -> Iterator[str]:
        """Give the names of what the project has put in the place of functions of the standard library.

        While a test executes it may have put there something itself, so only code of the project's own counts then.
        """
        for name, names, as_it_was in self._library:
            if names == as_it_was:
                continue
            reckons = name in _RECKONS or name.rpartition(".")[0] in _RECKONS
            for own, was in list(as_it_was.items()):
                now = names.get(own)
                if now is was or not callable(was):
                    continue
                if self._project.owns(_file_of(now)) or (reckons and not is_testing):
                    yield f"{name}.{own}"

    def find_rewritten(self) -> Iterator[str]:
        """Give the names of functions whose code is another by now."""
        yield from (name for name, function, code in self._functions if _code_of(function) is not code)

    def find_replaced(self, item: Any) -> Iterator[str]:
        """Give what a single test has of its own instead of what all have."""
        kind = type(item)
        yield from (f"{kind.__name__}.{name} of a test" for name in vars(item) if callable(getattr(kind, name, None)))


def _find_other(now: Mapping[str, Any], was: dict[str, Any], *, is_class: bool) -> list[str]:
    """Give the names of code that is not what it was. A module may come to know more of it, a class of pytest not."""
    other = [name for name, value in was.items() if _is_code(value) and now.get(name) is not value]
    for name, value in now.items():
        if name not in was and is_class and _is_code(value):
            other.append(name)
        elif name not in was or not (_is_code(was[name]) or _is_code(value)):
            was[name] = value  # so that it need not be looked at again
    return other


def _is_code(value: Any) -> bool:
    return isinstance(value, type) or hasattr(type(value), "__get__")


def _code_of(value: Any) -> Any:
    function = getattr(value, "__func__", value)
    return getattr(getattr(function, "fget", function), "__code__", None)


def _file_of(function: Any) -> Any:
    code = _code_of(function) or _code_of(vars(type(function)).get("__call__"))
    return getattr(code, "co_filename", None)


def tests_of(items: Iterable[Any]) -> dict[str, Any]:
    """Give the code of each test."""
    codes = ((item.nodeid, _code_of(getattr(item, "obj", None))) for item in items)
    return {name: code for name, code in codes if code is not None}


class Witness:
    """Tells what the project's own code does to learn of its tests, or to end them; Python cannot remove it again."""

    def __init__(self, project: Project, tell: Callable[[str], None]) -> None:
        self._project = project
        self._tell = tell
        self._tests: dict[tuple[int, int], str] = {}
        self.collects = True

    def begin(self, tests: Iterable[str]) -> None:
        """Begin; `tests` are files that only tests have a reason to read."""
        for path in tests:
            facts = Path(path).stat()
            self._tests[facts.st_dev, facts.st_ino] = self._project.name(path)
        sys.addaudithook(self._hear)
        for module in (os, sys.modules[os.name]):
            module._exit = self._ending(module._exit)  # type: ignore[attr-defined]

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            self._see_reading(arguments[0])
        elif event in _PRYING or (event == "object.__setattr__" and arguments[1] == "__code__"):
            if (file := self._project.find_caller(here(), _GO_BETWEENS)) is not None:
                self._tell(f"{file} looks at who executes it ({event})")
        elif event in _PROGRAMS and self.collects and (file := self._project.find_caller(here())) is not None:
            self._tell(f"{file} starts a program while the tests are read")

    def _see_reading(self, path: Any) -> None:
        try:
            facts = os.stat(path)  # noqa: PTH116 - it may be a number
        except (OSError, TypeError, ValueError):
            return
        test = self._tests.get((facts.st_dev, facts.st_ino))
        if test is None:
            return
        file = self._project.find_caller(here())
        if file is None and threading.current_thread() is not threading.main_thread():
            file = "a thread"  # whose stack does not tell who has work done there
        if file is not None and not _is_formatting(here()):
            self._tell(f"{file} reads {test}")

    def _ending(self, end: Callable[[int], Any]) -> Callable[[int], Any]:
        own = os.getpid()

        def _exit(status: int) -> Any:
            if os.getpid() == own and (file := self._project.find_caller(here())) is not None:
                self._tell(f"{file} ends the process of the tests")
            return end(status)

        return _exit


def _is_formatting(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename in _FORMATTERS:
            return True
        frame = frame.f_back
    return False


def here() -> FrameType | None:
    """Give the frame of whoever has called into this file; without the event that sys._getframe would be."""
    try:
        raise LookupError
    except LookupError as error:
        frame = error.__traceback__.tb_frame if error.__traceback__ is not None else None
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame
