"""What ends a transaction of the user, through `tx` or a session: his statements, errors, the last statement.

Errors are read by their SQLSTATE, which every driver has somewhere. Knows no
connection. Invariant: what is not told here is an error of the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from outlive.errors import StoreUnavailable, UsageError
from outlive.model.writes import EntryWrite, Fence
from outlive.store.postgres.connect import CANCELLED, IDLE, LOST
from outlive.store.postgres.statements import statement
from outlive.store.refusals import EntrySettled, FenceLost, RolledBack

if TYPE_CHECKING:
    from outlive.store.postgres.connect import Address

_RETRY = ("40001", "40P01")  # serialization failure, deadlock
_LOCKED = "55P03"  # a lock was not available in time, perhaps because its holder stands still
_ABORTED = "25P02"

_COMMENT = re.compile(r"/\*(?:(?!/\*|\*/).)*\*/", re.DOTALL)  # without another one in it: PostgreSQL nests them
_ENDS = re.compile(
    r"(?:\s|;|--[^\n]*(?:\n|$))*"
    r"(?:begin|start|commit|end|abort|prepare\s+transaction|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b",
    re.IGNORECASE,
)


def ends_transaction(sql: str) -> bool:
    """Say whether a statement would end the transaction."""
    count = 1
    while count:
        sql, count = _COMMENT.subn(" ", sql)
    return _ENDS.match(sql) is not None


def sqlstate(error: BaseException) -> str:
    """Give the server's code for an error of any driver, or nothing."""
    origin = getattr(error, "orig", None) or error
    return getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None) or ""


def explain_statement(
    address: Address, error: BaseException, *, is_lost: bool, open_s: float, waited_s: float, timeout_s: float
) -> Exception | None:
    """Give what an error means for a transaction that is open for `open_s`; None if it is the user's own.

    It came after `waited_s`; whoever does not know that takes `open_s`.
    """
    state = sqlstate(error)
    if open_s > timeout_s - 0.05 and (is_lost or state in (CANCELLED, _ABORTED)):
        return describe_overdue(timeout_s)
    if state in _RETRY:
        return RolledBack(str(error))
    if state == _LOCKED and waited_s > 0.4 * timeout_s:  # our limit is half the time; NOWAIT of the user fails at once
        return StoreUnavailable(f"another session of {address.url} holds a lock that is needed: {error}")
    if is_lost:
        return address.explain_loss(error)
    if state == _ABORTED:
        return UsageError(
            "a statement of this transaction failed and its error was swallowed, so nothing can be committed; put such "
            "a statement between a savepoint and ROLLBACK TO"
        )
    return None


def describe_overdue(timeout_s: float) -> UsageError:
    """Give the error of a transaction whose time has run out."""
    return UsageError(
        f"this transaction was open for longer than its timeout of {timeout_s:g} s and was rolled back; "
        "do slow work before it begins"
    )


@contextmanager
def explaining_commit(address: Address) -> Iterator[None]:
    """Tell a COMMIT that is to be tried again, and one without a reply, from one that the user's constraints refuse."""
    try:
        yield
    except Exception as error:
        state = sqlstate(error)
        if state in _RETRY:
            raise RolledBack(str(error)) from error
        if state and state[:2] not in LOST and state != IDLE:
            raise  # a deferred constraint, or a trigger, of the user's own
        raise address.explain_loss(error, writing=True) from error


def values_to_settle(entry: EntryWrite, fence: Fence, token: str) -> dict[str, Any]:
    """Give the values of `settle_entry` by name."""
    values = {name: getattr(entry, name, None) for name in statement("settle_entry").names}
    return values | {"token": token, "worker": fence.worker, "epoch": fence.epoch}


def check_settled(row: Mapping[str, Any], fence: Fence) -> None:
    """Raise if `settle_entry` has written nothing, and say why."""
    if not row["same"]:
        raise UsageError(
            "the transaction was ended through tx.raw or the session's own connection, so its writes and its result "
            "cannot be committed together; leave COMMIT and ROLLBACK to the transaction step"
        )
    if not row["fenced"]:
        raise FenceLost(fence)
    if not row["written"]:
        raise EntrySettled
