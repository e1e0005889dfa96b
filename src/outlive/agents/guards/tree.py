"""Trees of files as values: read from a folder, compared, named by a digest, put back where somebody changed them.

Knows files and patterns; must not know what is in them or who checks them.
Invariant: nothing here follows a symbolic link, so whoever writes into a folder
cannot lead us out of it, neither to read nor to overwrite.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import NamedTuple

from outlive.limits import TREE_MAX_BYTES, TREE_MAX_DEPTH, TREE_MAX_FILES

# Made by tools and never copied, so nothing in them reaches a check: neither history nor compiled modules.
IGNORED = {".git", ".hg", ".hypothesis", ".mypy_cache", ".nox", ".pytest_cache", ".ruff_cache", ".tox", ".venv"}
IGNORED |= {"__pycache__", "node_modules"}


class File(NamedTuple):
    """What a tree keeps of a file."""

    content: bytes
    executable: bool = False


Tree = dict[str, File]  # by path from the folder, with slashes
Changes = dict[str, File | None]  # None: it is gone


def read_tree(root: Path) -> tuple[Tree, list[str]]:
    """Read the files of a folder. The second list says what there is no tree of: links, pipes, more than the limits."""
    tree, odd, size = Tree(), list[str](), 0
    if not root.is_dir():
        return tree, [f"{str(root)!r} is no folder"]
    for path, entry in _walk(root):
        if isinstance(entry, str):
            odd.append(f"{path!r} {entry}")
            continue
        if len(tree) >= TREE_MAX_FILES:
            odd.append(f"there are more than {TREE_MAX_FILES:,} files")
            break
        file = _read(entry.path, TREE_MAX_BYTES - size)
        if isinstance(file, str):
            odd.append(f"{path!r} {file}")
        elif not _is_text(path):
            odd.append(f"{path!r} has a name that is no text")
        else:
            tree[path] = file
            size += len(file.content)
    return tree, odd


def _walk(folder: Path | str, above: str = "", depth: int = 0) -> Iterator[tuple[str, os.DirEntry[str] | str]]:
    """Go through the files of a folder; for a folder that cannot be gone through give why."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        yield above.rstrip("/"), f"cannot be read: {error.strerror}"
        return
    for entry in found:
        path = above + entry.name
        if not entry.is_dir(follow_symlinks=False):
            yield path, entry
        elif depth >= TREE_MAX_DEPTH and entry.name not in IGNORED:
            yield path, f"is too deep: folders stand in at most {TREE_MAX_DEPTH} others"
        elif entry.name not in IGNORED:
            yield from _walk(entry.path, path + "/", depth + 1)


def _read(path: str, limit_bytes: int) -> File | str:
    """Give a file, or why it is none."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would keep us waiting
    except OSError as error:
        return "is a symbolic link" if Path(path).is_symlink() else f"cannot be read: {error.strerror}"
    with os.fdopen(number, "rb") as file:
        facts = os.fstat(number)
        if not stat.S_ISREG(facts.st_mode):
            return "is no regular file"
        content = file.read(limit_bytes + 1) if facts.st_size <= limit_bytes else b""
        if max(facts.st_size, len(content)) > limit_bytes:
            return f"does not fit: all files together may have {TREE_MAX_BYTES:,} bytes"
        return File(content, bool(facts.st_mode & stat.S_IXUSR))


def _is_text(path: str) -> bool:
    return "\x00" not in path and path.encode("utf-8", "surrogateescape") == path.encode("utf-8", "replace")


def digest_tree(files: Mapping[str, File | None]) -> str:
    """Give what stands for a tree, or for changes of one."""
    total = sha256()
    for path in sorted(files):
        file = files[path]
        kind, content = ("gone", b"") if file is None else ("program" if file.executable else "file", file.content)
        total.update(f"{kind} {len(content)} {path}\n".encode() + content)
    return total.hexdigest()


def compare_trees(before: Tree, after: Tree) -> Changes:
    """Say what has changed."""
    paths = sorted(before.keys() | after.keys())
    return {path: after.get(path) for path in paths if before.get(path) != after.get(path)}


def apply_changes(tree: Tree, changes: Changes) -> Tree:
    """Give the tree that these changes make of another."""
    changed: dict[str, File | None] = {**tree, **changes}
    return {path: file for path, file in changed.items() if file is not None}


def is_among(path: str, patterns: Iterable[str]) -> bool:
    """Say whether a path is meant by one of these patterns, or lies in a folder that is."""
    return any(_expression(pattern).fullmatch(path) for pattern in patterns)


@lru_cache
def _expression(pattern: str) -> re.Pattern[str]:
    """`*` is anything within a name, `**` any number of folders; in any case, for some file systems know no cases."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.removeprefix("./").strip("/"))
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    text = "".join(meaning.get(part) or re.escape(part) for part in parts)
    return re.compile(f"{text}(?:/.*)?", re.IGNORECASE | re.DOTALL)


def write_tree(tree: Tree, root: Path) -> None:
    """Write all of a tree into a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for path, file in tree.items():
        _put(root, path, file)


def write_changes(changes: Changes, root: Path) -> None:
    """Make these changes in a folder."""
    for path, file in changes.items():
        if file is not None:
            _put(root, path, file)
        elif not any((root / folder).is_symlink() for folder in PurePosixPath(path).parents):
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):  # these have come in its place
                (root / path).unlink()


def restore_tree(tree: Tree, root: Path, patterns: Iterable[str]) -> None:
    """Let the files of these patterns be as in a tree again; other files are left as they are."""
    patterns = list(patterns)
    for path, entry in list(_walk(root)):
        if not isinstance(entry, str) and path not in tree and is_among(path, patterns):
            Path(entry.path).unlink()
    pinned = {path: file for path, file in tree.items() if is_among(path, patterns)}
    for path in find_changed(pinned, root):
        _put(root, path, pinned[path])


def find_changed(tree: Tree, root: Path) -> list[str]:
    """Give the files of a tree that are not so in a folder; whatever else is there."""
    return [path for path, file in tree.items() if _read(str(root / path), len(file.content)) != file]


def _put(root: Path, path: str, file: File) -> None:
    target = root / path
    for folder in reversed(target.relative_to(root).parents[:-1]):
        if not stat.S_ISDIR(_mode_of(root / folder) or stat.S_IFDIR):
            (root / folder).unlink()
        (root / folder).mkdir(exist_ok=True)
    if stat.S_ISDIR(_mode_of(target)):
        remove_folder(target)
    new = target.with_name(f".{target.name}.outlive")
    new.unlink(missing_ok=True)
    new.write_bytes(file.content)
    new.chmod(0o755 if file.executable else 0o644)
    new.replace(target)  # what was linked to the old file keeps the old file


def remove_folder(root: Path) -> None:
    """Remove a folder, as far as that is possible; also one whose folders are too deep for paths and for recursion."""
    left, prefix = [root], f".{token_hex(8)}"
    for folder in left:  # it grows meanwhile
        with suppress(OSError):
            folder.chmod(0o700)
            with os.scandir(folder) as found:
                entries = list(found)
            for entry in entries:
                with suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        Path(entry.path).unlink()
                    else:  # at the top nothing is deep
                        left.append(Path(entry.path).rename(root / f"{prefix}.{len(left)}"))
            if folder != root:
                folder.rmdir()
    with suppress(OSError):
        root.rmdir()


def _mode_of(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
