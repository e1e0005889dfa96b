"""Where pruned runs go: JSON lines in a file, one for a run with its journal, on disk before the run is deleted.

A crash may leave an incomplete last line, whose run is still in the database: the line is cut off when
the file is opened again. A run whose line is complete may come a second time. Invariant: a file that is no
archive is never changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from outlive.codec.jsontext import JsonCodec
from outlive.errors import UsageError
from outlive.model.reads import EntryRow, RunRow

_CUT_BYTES = 1 << 16  # read at a time on the way back to the last complete line
_BEGIN = b'{"id":"'  # of every line


class _Line(msgspec.Struct):
    """What every line has, beside more."""

    id: str
    workflow: str
    status: str
    created_at: float
    entries: list[msgspec.Raw]


class Archive:
    """A file that lines are added to. UsageError for what is no path, cannot be written, or is no archive."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, str | os.PathLike) or "\0" in str(path):
            raise UsageError(f"archive=… is the path of a file, not {path!r}")
        self._path = Path(path)

    def open(self) -> None:
        """Create the file if it is not there, and cut off what is no complete line."""
        with self._writing():
            created = not self._path.exists()
            with self._path.open("ab+") as file:
                end = _find_end(file)
                if not _is_archive(file, end):
                    raise UsageError(
                        f"{str(self._path)!r} is no archive of pruned runs, and nothing was done to it; "
                        "name another file"
                    )
                file.truncate(end)
            if created:
                _sync(self._path.absolute().parent)

    def add(self, runs: Iterable[tuple[RunRow, list[EntryRow]]]) -> None:
        """Write runs with their journals; they are on disk when this returns."""
        with self._writing(), self._path.open("ab") as file:
            file.writelines(write_line(run, entries) for run, entries in runs)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"the archive {str(self._path)!r} cannot be written: {error.strerror or error}; "
                "no run was deleted that is not there"
            ) from error


def write_line(run: RunRow, entries: list[EntryRow]) -> bytes:
    """Give the line of a run: payloads as JSON, or as text where a codec has made something else of them.

    It has all that `FrozenJournal.from_line` needs, which reads it.
    """
    plain = run.codec == JsonCodec.id
    facts = asdict(run)
    for name in ("row", "hold_reason", "worker", "crashes", "wake_at", "parent_close"):
        del facts[name]
    facts.update(parent=facts.pop("parent_id"), pinned=bool(run.pinned), row=run.row)
    for name in ("input", "output"):
        facts[name] = _payload(facts[name], plain=plain)
    for name in ("attributes", "error"):
        facts[name] = _payload(facts[name], plain=True)
    facts["entries"] = [
        {**asdict(entry), "value": _payload(entry.value, plain=plain), "error": _payload(entry.error, plain=True)}
        for entry in entries
    ]
    return msgspec.json.encode(facts) + b"\n"


def _payload(text: str | None, *, plain: bool) -> Any:
    return msgspec.Raw(text.encode()) if text is not None and plain else text


def _find_end(file: Any) -> int:
    """Give the length of the complete lines."""
    end: int = file.seek(0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - _CUT_BYTES)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + int(newline) + 1
        end = begin
    return 0


def _is_archive(file: Any, end: int) -> bool:
    """Whether the first line of a file, and what is to be cut off it, were written here."""
    file.seek(end)
    if not _BEGIN.startswith(file.read(len(_BEGIN))):
        return False
    file.seek(0)
    try:
        return end == 0 or bool(msgspec.json.decode(file.readline(), type=_Line))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _sync(folder: Path) -> None:
    """Put the name of a new file on disk too, where a folder can be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
