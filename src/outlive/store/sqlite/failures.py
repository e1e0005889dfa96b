"""Turns errors of both SQLite drivers into the errors of the seam; each sentence says what to do.

Knows result codes (sqlite.org/rescode.html), not connections. Invariant: what is
not an error of a driver or of its parameters passes through unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from outlive.errors import SchemaMismatch, StoreError, StoreReadOnly, StoreUnavailable
from outlive.store.refusals import WriteRefused

BUSY, LOCKED, READONLY, INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL = 5, 6, 8, 9, 10, 11, 13, 14, 15
TOOBIG, CONSTRAINT, MISMATCH, RANGE, NOTADB = 18, 19, 20, 25, 26
BUSY_SNAPSHOT = BUSY | 2 << 8

_Meaning = tuple[type[StoreError], str]
_REFUSED: _Meaning = (WriteRefused, "refuses the data")
_DAMAGED: _Meaning = (StoreError, "damaged or no SQLite database; restore it from a backup, or choose another path")
_MEANINGS: dict[int, _Meaning] = {
    **dict.fromkeys((TOOBIG, CONSTRAINT, MISMATCH, RANGE), _REFUSED),
    **dict.fromkeys((CORRUPT, NOTADB), _DAMAGED),
    READONLY: (
        StoreReadOnly,
        "read-only for this process; give its user the right to write the file, and its directory for -wal and -shm",
    ),
    BUSY: (StoreUnavailable, "another process holds its lock; look for a transaction that somebody left open"),
    LOCKED: (
        StoreUnavailable,
        "another connection of this process holds its lock; look for a transaction that was left open",
    ),
    PROTOCOL: (StoreUnavailable, "another process holds its lock; look for one that is stuck"),
    IOERR: (StoreUnavailable, "reading or writing the file failed; check the disk"),
    FULL: (StoreUnavailable, "the disk is full; free some space, and work goes on"),
    CANTOPEN: (StoreUnavailable, "the file cannot be opened; check that it and its directory are there"),
}


def extended_code(error: BaseException) -> int | None:
    """Give SQLite's extended result code, None if no driver raised this error for SQLite."""
    code = getattr(error, "sqlite_errorcode", None) or getattr(error, "extendedresult", None)
    return code if isinstance(code, int) and code > 0 else None


def result_code(error: BaseException) -> int | None:
    """Give SQLite's primary result code."""
    code = extended_code(error)
    return None if code is None else code & 0xFF


def is_busy(error: BaseException) -> bool:
    """Whether another connection is in the way for the moment."""
    return result_code(error) in (BUSY, LOCKED, PROTOCOL)


def is_bad_parameter(error: BaseException) -> bool:
    """Whether a driver could not hand a value to SQLite: a type, a size, an encoding."""
    if isinstance(error, OverflowError | UnicodeEncodeError):
        return True
    module = type(error).__module__
    if module in ("sqlite3", "apsw"):
        return extended_code(error) is None and "bind" in str(error).lower()
    return isinstance(error, TypeError) and "Bad binding argument" in str(error)


def translate(error: Exception, where: str, *, committing: bool = False) -> Exception:
    """Give the error that the seam promises in place of a driver's."""
    code = result_code(error)
    if code is None:
        return WriteRefused(f"{where} cannot hold this value: {error}") if is_bad_parameter(error) else error
    if "no such table: ol_" in str(error) or "has no column" in str(error):
        return SchemaMismatch(f"{where} lacks a part of Outlive's schema ({error}): run `outlive db migrate`")
    kind, advice = _MEANINGS.get(code, (StoreError, "failed"))
    sentence = f"{where}: {advice} ({error})"
    if committing and code == IOERR:
        return StoreUnavailable(sentence, outcome_unknown=True)
    return kind(sentence)


@contextmanager
def translated(where: str, *, committing: bool = False) -> Iterator[None]:
    """Raise what `translate` gives in place of a driver's error."""
    try:
        yield
    except Exception as error:
        shown = translate(error, where, committing=committing)
        if shown is error:
            raise
        raise shown from error
