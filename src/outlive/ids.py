"""Identifiers: what an id may look like, and where new ones come from.

Chance is injected (`random.Random`), so that the simulator repeats itself.
"""

from __future__ import annotations

import random
import unicodedata
import uuid

from outlive.errors import UsageError
from outlive.limits import ID_MAX_CHARS

_ROW_EPOCH_S = 1_735_689_600  # 2025-01-01: 41 bits of milliseconds last until 2094
_ROW_CHANCE_BITS = 22


class Ids:
    """Makes ids from a clock value and a source of chance.

    Row ids are 63-bit integers ordered by time: they are made by the writer, so
    that a re-sent insert is recognised as its own, and they fill a B-tree from
    the right. Two processes may draw the same one; the insert then does nothing
    and is repeated with another.
    """

    def __init__(self, chance: random.Random, secrets: random.Random | None = None) -> None:
        self._chance = chance
        self._secrets = secrets if secrets is not None else random.SystemRandom()
        self._last_row_id = 0

    def row_id(self, now: float) -> int:
        """Give a row id, greater than every one given before."""
        millis = max(0, int((now - _ROW_EPOCH_S) * 1000))
        made = (millis << _ROW_CHANCE_BITS) | self._chance.getrandbits(_ROW_CHANCE_BITS)
        self._last_row_id = made if made > self._last_row_id else self._last_row_id + 1
        return self._last_row_id

    @staticmethod
    def first_row(at: float) -> int:
        """Give a number below every row id that is made from then on."""
        return max(0, int((at - _ROW_EPOCH_S) * 1000)) << _ROW_CHANCE_BITS

    def run_id(self, now: float) -> str:
        """Give a UUID version 7 (RFC 9562) as text."""
        millis = int(now * 1000) & ((1 << 48) - 1)
        value = (millis << 80) | self._chance.getrandbits(80)
        value = (value & ~(0xF << 76)) | (7 << 76)
        value = (value & ~(0b11 << 62)) | (0b10 << 62)
        return str(uuid.UUID(int=value))

    def worker_id(self) -> int:
        """Give the random id of a process incarnation, 62 bits."""
        return self._chance.getrandbits(62) | 1

    def token(self) -> str:
        """Give a text that nobody can guess, 192 bits."""
        return f"{self._secrets.getrandbits(192):048x}"

    def uuid(self) -> uuid.UUID:
        """Give a random UUID version 4."""
        return uuid.UUID(int=self._chance.getrandbits(128), version=4)


def check_id(value: object, what: str = "a run id") -> str:
    """Give the id if it can be one, else raise UsageError; so with other short texts, named by `what`."""
    if not isinstance(value, str):
        raise UsageError(f"{what} is text, not {value!r}")
    if not 1 <= len(value) <= ID_MAX_CHARS:
        raise UsageError(f"{what} has 1 to {ID_MAX_CHARS} characters, this one has {len(value)}: {value[:40]!r}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise UsageError(f"{what} may not hold control characters: {value!r}")
    return value
