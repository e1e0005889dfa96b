"""Habits of code that is not meant to solve the task: found in the text of Python files, never by executing them.

Pure. A list of what an honest change seldom needs, each with the words that the
record gives as the reason. Who knows the list can write around it: it is one line
of defence among others, see docs/how-to/guarded-loops.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

SWALLOWS = "an except clause that swallows every error"
CALLERS = "code that looks at who calls it or at what is loaded"
TESTING = "code that knows of its tests"
PROCESS = "code that ends or forks its process"
EQUAL = "an object that is equal to anything"
TEXT = "code that executes text, or calls into the interpreter"

_COMPARISONS = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__", "__instancecheck__"}
# Wherever they stand: as a name, an attribute, an import or a text that might become one.
_WORDS = {
    CALLERS: "_getframe _current_frames currentframe settrace setprofile get_objects get_referrers meta_path path_hooks"
    " f_back f_globals f_locals tb_frame gi_frame cr_frame addaudithook",
    TESTING: "pytest _pytest unittest pluggy doctest PYTEST_CURRENT_TEST PYTEST_VERSION",
    PROCESS: "_exit killpg forkpty",
    TEXT: "__builtins__ __import__",
}
_IMPORTS = {TESTING: "test", PROCESS: "atexit", TEXT: "builtins ctypes marshal import_module"}
_CALLS = {TEXT: "eval exec"}
_QUALIFIED = {
    CALLERS: "sys.modules inspect.stack",
    PROCESS: "os.abort os.fork os.kill",
    TEXT: "importlib.import_module",
}
_ALL_ERRORS = {"Exception", "BaseException"}


@dataclass(frozen=True)
class Habit:
    """One place in one file."""

    what: str
    line: int


def find_habits(content: bytes) -> list[Habit] | None:
    """Find the habits in a Python file; None if it is no Python."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return [Habit(what, getattr(node, "lineno", 0)) for node in ast.walk(tree) for what in _habits_of(node)]


def _habits_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.ExceptHandler(type=kind, body=body) if _is_any_error(kind):
            if not any(isinstance(part, ast.Raise) for statement in body for part in ast.walk(statement)):
                yield SWALLOWS
        case ast.Call(func=ast.Name("suppress") | ast.Attribute(attr="suppress"), args=kinds):
            if any(_is_any_error(kind) for kind in kinds):
                yield SWALLOWS
        case ast.FunctionDef(name=name) if name in _COMPARISONS and not _uses_both(node):
            yield EQUAL
        case ast.Assign(targets=[ast.Name(name)]) | ast.Constant(value=str(name)) if name in _COMPARISONS:
            yield EQUAL
    for table, words in _words_of(node):
        yield from (what for what, known in table.items() if not set(known.split()).isdisjoint(words))


def _words_of(node: ast.AST) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Give the words of a node, each with the table in which to look it up."""
    match node:
        case ast.Import(names=names):
            words = [part for alias in names for part in alias.name.split(".")]
            yield from ((_WORDS, words), (_IMPORTS, words))
        case ast.ImportFrom(module=module, names=names):
            words = [*(module or "").split("."), *(alias.name for alias in names)]
            yield from ((_WORDS, words), (_IMPORTS, words))
            yield _QUALIFIED, [f"{module}.{alias.name}" for alias in names]
        case ast.Attribute(value=owner, attr=name):
            yield from ((_WORDS, [name]), (_QUALIFIED, [f"{owner.id}.{name}" if isinstance(owner, ast.Name) else ""]))
        case ast.Call(func=ast.Name(name)):
            yield _CALLS, [name]
        case ast.Name(name):
            yield _WORDS, [name]
        case ast.Constant(value=str(text)):
            yield _WORDS, [text.split(".")[0]]


def _is_any_error(kind: ast.AST | None) -> bool:
    match kind:
        case None:
            return True
        case ast.Name(name) | ast.Attribute(attr=name):
            return name in _ALL_ERRORS
        case ast.Tuple(elts=kinds):
            return any(_is_any_error(one) for one in kinds)
    return False


def _uses_both(function: ast.FunctionDef) -> bool:
    """Say whether a comparison looks at both of what it compares."""
    parameters = {parameter.arg for parameter in function.args.args[:2]}
    used = {part.id for part in ast.walk(function) if isinstance(part, ast.Name)}
    return len(parameters) == 2 and parameters <= used


def find_assertions(content: bytes) -> list[str] | None:
    """Give the assertions of a file of tests, each with the test that makes it; None if it is no Python."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return sorted(_assertions(tree, ""))


def _assertions(node: ast.AST, around: str) -> Iterator[str]:
    for part in _executed(node):
        match part:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield from _assertions(part, f"{around}{name}.")
                continue
            case ast.Assert(test=test):
                yield f"{around.rstrip('.')}: assert {ast.unparse(test)}"
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(name)) if _is_assertion(name):
                yield f"{around.rstrip('.')}: {ast.unparse(part)}"
        yield from _assertions(part, around)


def _is_assertion(name: str) -> bool:
    return name.startswith("assert") or name in ("raises", "fail")


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Give the parts of a node without those that are not executed, or whose failure nobody would hear of."""
    for part in ast.iter_child_nodes(node):
        match part:
            case ast.If(test=ast.Constant(value=value), orelse=others) if not value:
                yield from others
            case ast.Try(handlers=handlers) if any(_hides_failure(one.type) for one in handlers):
                continue
            case _:
                yield part
        if isinstance(part, ast.Return) and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return


def _hides_failure(kind: ast.AST | None) -> bool:
    return _is_any_error(kind) or (isinstance(kind, ast.Name) and kind.id == "AssertionError")
