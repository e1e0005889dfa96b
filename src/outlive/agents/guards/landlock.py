"""Landlock, by which Linux keeps a process to some folders: it may read everything, and write only there.

Loaded by `supervise` from its file, standard library only. Called between fork and
exec, so it holds for the command and all that it starts, and cannot be taken off.
See landlock(7); the numbers are of linux/landlock.h, and the same on all architectures.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from typing import Any

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls
_VERSION = 1  # what is asked for instead of a set of rules
_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_WRITE, _TRUNCATE = 1 << 1, 1 << 14
_FILE = _WRITE | _TRUNCATE
# Folders: remove folders and files, make each kind of file, move files between folders.
_FOLDER = sum(1 << bit for bit in range(4, 14))
_NO_SIGNALS = 1 << 1  # to processes outside
_TRUNCATE_SINCE, _NET_SINCE, _SCOPES_SINCE = 3, 4, 6
_OLDEST = 2  # before, no file could be moved to another folder
# What programs write to that is no file of anybody; semaphores of multiprocessing are files in /dev/shm.
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/shm")  # noqa: S108

_libc: Any = ctypes.CDLL(None, use_errno=True)


def find_version() -> int:
    """Give the version of Landlock that this system has; 0 for none that is of use here."""
    version = int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION)))
    return version if version >= _OLDEST else 0


def keep_to(folders: Iterable[str], version: int) -> None:
    """Let this process write to these folders only, and signal only what it has started. Raises OSError."""
    handled = _FOLDER | _WRITE | (_TRUNCATE if version >= _TRUNCATE_SINCE else 0)
    rules = struct.pack("=QQQ", handled, 0, _NO_SIGNALS)
    size = 24 if version >= _SCOPES_SINCE else 16 if version >= _NET_SINCE else 8
    number = _call(_CREATE, rules, ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path in (*folders, *_DEVICES):
            _allow(number, path, handled)
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _call(_RESTRICT, ctypes.c_int(number), ctypes.c_uint32(0))
    finally:
        os.close(number)


def _allow(rules: int, path: str, handled: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rights = handled if stat.S_ISDIR(os.fstat(place).st_mode) else handled & _FILE
        rule = struct.pack("=Qi", rights, place)
        _call(_ADD, ctypes.c_int(rules), ctypes.c_int(_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(place)


def _call(number: int, *arguments: Any) -> int:
    return _check(int(_libc.syscall(number, *arguments)))


def _check(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
