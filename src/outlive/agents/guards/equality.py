"""Which classes of the project are equal to what they have never seen, or no different: asked of instances at hand,
and of empty ones.

Loaded by `probe` from its file, standard library only. A class may be equal to anything only in a state that its
constructor makes; so where one of its instances finds itself equal to something, it is shown strangers, too.
"""

from __future__ import annotations

import builtins
import gc
import random
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

_COMPARES = ("__eq__", "__sub__", "__rsub__")  # a difference of zero is what `abs(a - b) < 1e-9` looks for
_ALWAYS = 50  # times that a class is asked, and after that
_SELDOM = 0.05  # of the times, so that many comparisons stay quick


class Equality:
    """Looks at how the project's classes compare."""

    def __init__(self, root: str, tell: Callable[[str, str], None]) -> None:
        self._root = root
        self._tell = tell
        self._chance = random.Random(secrets.randbits(64))  # of its own: no seed of tests decides

    def watch(self) -> None:
        """Ask the instances of all classes that are known by now, where they are equal to something."""
        for kind, name, file in list(self._find()):
            if name in vars(kind) and not hasattr(vars(kind)[name], "watches"):
                self._wrap(kind, name, file)

    def watch_new(self) -> None:
        """Ask the instances of classes, too, that are made from now on: one may be made within a test."""
        make = builtins.__build_class__

        def build(body: Any, name: str, /, *bases: Any, **options: Any) -> Any:
            kind = make(body, name, *bases, **options)
            if body.__code__.co_filename.startswith(self._root) and issubclass(type(kind), type):
                for compares in _COMPARES:
                    if compares in vars(kind) and (file := self._file_of(kind, compares)) is not None:
                        self._wrap(kind, compares, file)
            return kind

        builtins.__build_class__ = build

    def ask(self) -> None:
        """Ask an empty instance of each class of the project."""
        for kind, name, file in list(self._find()):
            if any(_is_yes(name, partial(_compare_empty, kind, name), who) for who in _strangers(name, None)):
                self._tell(kind.__qualname__, file)

    def _find(self) -> Iterator[tuple[type, str, str]]:
        for kind in gc.get_objects():
            # not isinstance: it asks an object for its __class__, and a lazy one (Django's settings) may raise then
            if issubclass(type(kind), type):
                for name in _COMPARES:
                    if (file := self._file_of(kind, name)) is not None:
                        yield kind, name, file

    def _file_of(self, kind: type, name: str) -> str | None:
        """Give the file of the project that defines how a class compares, if one does."""
        for base in kind.__mro__:
            own = vars(base).get(name)
            own = getattr(own, "watches", own)
            code = getattr(own, "__code__", None)
            if code is not None and code.co_filename.startswith(self._root):
                return str(code.co_filename)
            if own is not None and code is None and base is not object:  # not a function, but something to be called
                file = getattr(sys.modules.get(base.__module__), "__file__", None)
                if isinstance(file, str) and file.startswith(self._root):
                    return file
        return None

    def _wrap(self, kind: type, name: str, file: str) -> None:
        compare: Any = vars(kind)[name]
        asked = 0

        def watched(one: Any, other: Any) -> Any:
            nonlocal asked
            said = _bound(compare, one)(other)
            if one is not other and _is_yes(name, lambda _: said, None):
                asked += 1
                is_due = asked <= _ALWAYS or self._chance.random() < _SELDOM
                if is_due and any(_is_yes(name, _bound(compare, one), who) for who in _strangers(name, other)):
                    self._tell(kind.__qualname__, file)
            return said

        watched.watches = compare  # type: ignore[attr-defined]
        with suppress(TypeError, AttributeError):  # its metaclass may not want that
            setattr(kind, name, watched)


def _bound(compare: Any, one: Any) -> Any:
    bind = getattr(type(compare), "__get__", None)
    return compare if bind is None else bind(compare, one, type(one))


def _strangers(name: str, other: Any) -> tuple[Any, ...]:
    """Give what nothing can be equal to; one of them of the type of what was compared."""
    number, text = secrets.randbits(64), secrets.token_hex()
    if name != "__eq__":
        return number, number / 7
    same: dict[type, Any] = {float: number / 7, bytes: text.encode(), list: [text], tuple: (text,), dict: {text: text}}
    return (object(), number, text, *([same[type(other)]] if type(other) in same else ()))


def _compare_empty(kind: Any, name: str, stranger: Any) -> Any:
    empty = kind.__new__(kind)
    return empty == stranger if name == "__eq__" else getattr(empty, name)(stranger)


def _is_yes(name: str, compare: Callable[[Any], Any], stranger: Any) -> bool:
    try:
        said = compare(stranger)
        if said is NotImplemented:
            return False
        return bool(said if name == "__eq__" else said == 0 or abs(said) == 0)
    except Exception:  # noqa: BLE001 - it may be incomplete, and compares what it has never seen
        return False
