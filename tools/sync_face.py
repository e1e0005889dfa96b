"""Writes the classes of the sync face from those of the async one: `python -m tools.sync_face`.

A method keeps its signature, defaults and docstring; what it gives is waited for.
A kind of method that is not known here ends the program: decide what it means
for a thread, then teach it. It reads the source and imports nothing of it, so
that it can mend what no longer imports.
"""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
FOLDER = SRC / "outlive" / "sync"
HEADER = '''"""Generated from {source} by `python -m tools.sync_face`: change that, and run it again."""

from __future__ import annotations

'''
HAND_MADE = {"open", "close"}  # in face.py
APP_IMPORTS = """from collections.abc import Iterator
from outlive.sync.face import Joining, Life, RunList
from outlive.sync.run import Run
"""
RUN_IMPORTS = """from collections.abc import Iterator
from outlive import run
from outlive.sync.face import Face
from outlive.sync.portal import Portal
"""
RUN_BODY = """
    def __init__(self, portal: Portal, real: run.Run) -> None:
        super().__init__(portal)
        self._real = real
        self.id = real.id
        self.created = real.created

    def __repr__(self) -> str:
        return f"<run {self.id}>"
"""

INBOX_IMPORTS = """from outlive import approvals as _approvals
from outlive import budgets as _budgets
from outlive import questions as _questions
from outlive import reviews as _reviews
from outlive.errors import UsageError
from outlive.sync.app import Outlive
from outlive.sync.face import Face
"""
INBOX_BODY = """class {name}(Face):
    \"""See `{module}`.\"""

    def __init__(self, app: Outlive) -> None:
        super().__init__(app._portal)
        self._real = _{module}.{name}(app._real)

"""
INBOX_FUNCTION = """def {module}(app: Outlive) -> {name}:
    \"""{about}\"""
    return {name}(_checked("{module}", app))


"""
INBOX_END = """def _checked(what: str, app: Outlive) -> Outlive:
    if not isinstance(app, Outlive):
        raise UsageError(f"{what}(app) takes an outlive.sync.Outlive here, not {app!r}")
    return app
"""

# Docstrings speak of `async with` and `await`; what is still said of them here is a sentence that needs another one.
REWORDED = {
    "Use it as `async with Outlive(url) as app:`.": """Use it as `with outlive.sync.Outlive(url) as app:`.

    For programs without an event loop: the async app, in a thread of its own. Threads share it; a process that
    was forked opens its own. Not for workflow bodies, nor for event loops.""",
    "await it for one page, or iterate over all with `async for`": "`.page()` gives one, iterating goes through all",
}
ASYNC_WORDS = re.compile(r"`(async|await)\b|\basync (with|for)\b|\bawait (app|run)\.|\b[Aa]wait (it|for)\b")
# What a result becomes, by its annotation: the annotation of the sync face, and the code.
TWINS = {
    "Run": ("Run", "Run(self._portal, {})"),
    "Self": ("Run", "Run(self._portal, {})"),
    "list[Run]": ("list[Run]", "[Run(self._portal, run) for run in {}]"),
}


Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A module of the package as text."""

    name: str

    @property
    def tree(self) -> ast.Module:
        return _parse(SRC / (self.name.replace(".", "/") + ".py"))

    @property
    def origins(self) -> dict[str, tuple[str, str]]:
        """Say of each imported name from which module it comes, and what it is called there."""
        return {
            alias.asname or alias.name: (line.module or "", alias.name)
            for line in self.tree.body
            if isinstance(line, ast.ImportFrom)
            for alias in line.names
        }

    @property
    def defined(self) -> set[str]:
        """List what the module defines itself."""
        targets = [target for line in self.tree.body if isinstance(line, ast.Assign) for target in line.targets]
        return {line.name for line in self.tree.body if isinstance(line, ast.ClassDef)} | {
            target.id for target in targets if isinstance(target, ast.Name)
        }

    def find(self, name: str) -> ast.ClassDef:
        return next(line for line in self.tree.body if isinstance(line, ast.ClassDef) and line.name == name)


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _lineage(source: Source, name: str) -> list[tuple[Source, ast.ClassDef]]:
    """List a class and what it is derived from, a class before its bases."""
    node = source.find(name)
    found = [(source, node)]
    for given in node.bases:
        base = given.value if isinstance(given, ast.Subscript) else given
        assert isinstance(base, ast.Name)
        if base.id == "Generic":
            continue
        module, original = source.origins.get(base.id, (source.name, base.id))
        found += _lineage(Source(module), original)
    return [pair for index, pair in enumerate(found) if pair not in found[index + 1 :]]


def _methods(source: Source, name: str) -> Iterator[tuple[Source, Function]]:
    """Go through the public methods and the constructor of a class, the nearest of each name."""
    seen = set(HAND_MADE)
    for owner, node in _lineage(source, name):
        for line in node.body:
            if isinstance(line, Function) and line.name not in seen:
                seen.add(line.name)
                if line.name == "__init__" or not line.name.startswith("_"):
                    if line.decorator_list:
                        sys.exit(f"{node.name}.{line.name} has a decorator: what does it mean for a thread?")
                    yield owner, line


def _fill_in(source: Source, name: str) -> tuple[list[tuple[Source, Function]], str]:
    """Give the methods of a class derived from a generic one of one parameter, and what that is."""
    (base,) = source.find(name).bases or (None,)
    (item,) = [base.slice.id] if isinstance(base, ast.Subscript) and isinstance(base.slice, ast.Name) else [""]
    return [(owner, node) for owner, node in _methods(source, name) if node.name != "__init__"], item


def _write_inboxes(path: Path) -> str:
    """Give the text of the twins of what people decide and operators change."""
    needed, body = set[str](), ""
    for module, name in (("approvals", "Approvals"), ("budgets", "Budgets"), ("questions", "Questions"),
                         ("reviews", "Reviews")):  # fmt: skip
        source = Source(f"outlive.{module}")
        methods, item = _fill_in(source, name)
        body += INBOX_BODY.format(name=name, module=module)
        body += "\n".join(re.sub(r"\bItem\b", item, _method(node)) for _, node in methods) + "\n\n"
        needed |= {line for owner, node in methods for line in _imports(owner, node)} - {
            "from outlive.inbox import Item"
        }
        needed |= {f"from {source.name} import {item}"} if item else set()
        (made,) = [node for node in source.tree.body if isinstance(node, ast.FunctionDef) and node.name == module]
        body += INBOX_FUNCTION.format(name=name, module=module, about=ast.get_docstring(made))
    header = HEADER.format(source="the classes of inboxes and budgets")
    return _formatted(header + INBOX_IMPORTS + "\n".join(sorted(needed)) + "\n\n\n" + body + INBOX_END, path)


def _write(source: Source, name: str, path: Path, opening: str, imports: str) -> str:
    """Give the text of the twin of a class; imports that it does not use fall away."""
    methods = list(_methods(source, name))
    needed = sorted({line for owner, method in methods for line in _imports(owner, method)})  # more than is used
    body = [opening, *(_method(method) for _, method in methods if method.name != "__init__")]
    return _formatted(HEADER.format(source=source.name) + imports + "\n".join(needed) + "\n\n" + "\n".join(body), path)


def _method(node: Function) -> str:
    given = ast.unparse(node.returns) if node.returns is not None else sys.exit(f"{node.name} has no annotation")
    call = f"self._real.{node.name}({_arguments(node.args)})"
    items = re.fullmatch(r"AsyncIterator\[(.*)\]", given)
    if items:
        given, code = f"Iterator[{items[1]}]", f"self._iterate(lambda: {call})"
    elif isinstance(node, ast.AsyncFunctionDef):
        given, form = TWINS.get(given, (given, "{}"))
        code = form.format(f"self._wait({call})")
    elif given == "RunList":
        code = f"RunList(self._portal, lambda: {call})"
    elif given == "None":
        code = call  # a declaration, before there is a loop
    else:
        sys.exit(f"{node.name} gives {given} without being awaited: what does that mean for a thread?")
    keyword = "" if given == "None" else "return "
    return (
        f"    def {node.name}({ast.unparse(node.args)}) -> {given}:\n"
        f'        """{_reworded(ast.get_docstring(node, clean=False) or "", node.name)}"""\n'
        f"        {keyword}{code}\n"
    )


def _reworded(text: str, where: str) -> str:
    """Give a docstring for threads."""
    for old, new in REWORDED.items():
        text = text.replace(old, new)
    text = re.sub(r"\bawait (?=app\.|run\.)", "", text)
    if found := ASYNC_WORDS.search(text):
        sys.exit(f"{where}: its docstring says {found[0]!r}; REWORDED has no sentence for threads")
    return text


def _arguments(args: ast.arguments) -> str:
    positional = [arg.arg for arg in [*args.posonlyargs, *args.args][1:]]
    starred = [f"*{args.vararg.arg}"] if args.vararg else []
    named = [f"{arg.arg}={arg.arg}" for arg in args.kwonlyargs]
    rest = [f"**{args.kwarg.arg}"] if args.kwarg else []
    return ", ".join([*positional, *starred, *named, *rest])


def _imports(owner: Source, node: Function) -> set[str]:
    """Give an import for each name that a signature uses, as the class's own module has it."""
    parts = [*ast.walk(node.args), *(ast.walk(node.returns) if node.returns else [])]
    used = {part.id for part in parts if isinstance(part, ast.Name)} - {"Run", "Self", "RunList", "AsyncIterator"}
    modules = {part.value.id for part in parts if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name)}
    found = {f"import {name}" for name in used & modules}
    for name in used - modules:
        if name in owner.origins:
            module, original = owner.origins[name]
            found.add(f"from {module} import {original}" + (f" as {name}" if name != original else ""))
        elif name in owner.defined:
            found.add(f"from {owner.name} import {name}")
        elif not hasattr(builtins, name):
            sys.exit(f"{owner.name}: where does {name} of {node.name} come from?")
    return found


def _formatted(code: str, path: Path) -> str:
    for command in (["check", "--quiet", "--fix", "--select", "F401,I"], ["format", "--quiet"]):
        argv = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(path), "-"]
        done = subprocess.run(argv, input=code, capture_output=True, text=True, check=True, cwd=FOLDER)
        code = done.stdout
    return code


def files() -> dict[Path, str]:
    """Give what is written, by path."""
    app, run = Source("outlive.app"), Source("outlive.run")
    init = next(node for _, node in _methods(app, "Outlive") if node.name == "__init__")
    about = _reworded(ast.get_docstring(app.find("Outlive"), clean=False) or "", "Outlive")
    app_opening = (
        f'class Outlive(Life):\n    """{about}"""\n\n'
        f"    def __init__({ast.unparse(init.args)}) -> None:\n"
        f"        super().__init__(Joining({_arguments(init.args)}))\n"
    )
    run_opening = f'class Run(Face):\n    """{ast.get_docstring(run.find("Run"), clean=False)}"""\n\n' + RUN_BODY
    inboxes = FOLDER / "inboxes.py"
    return {inboxes: _write_inboxes(inboxes)} | {
        path: _write(source, name, path, opening, imports)
        for source, name, path, opening, imports in (
            (app, "Outlive", FOLDER / "app.py", app_opening, APP_IMPORTS),
            (run, "Run", FOLDER / "run.py", run_opening, RUN_IMPORTS),
        )
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
