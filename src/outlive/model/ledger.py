"""The ledger as values: accounts, what is reserved and spent on them, and whether one more reservation fits.

Pure: knows no store, clock or model. Whoever decides has locked the accounts and
read what is written here. Invariant: for each account and measure, what is spent,
what may have been lost and what is reserved are together never above the limit
when something more is reserved.
"""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from math import isfinite
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from outlive.clock import seconds
from outlive.errors import UsageError

Measure = Literal["usd", "tokens", "requests", "tools", "wall"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
# open: reserved, and under way; spent: what it came to; lost: interrupted, so it may have come to all of it.
State = Literal["open", "spent", "lost"]

NANO = 1_000_000_000  # of a dollar; the databases' integers hold nine billions of them
DOLLARS_MAX = 1_000_000_000
COUNT_MAX = 1_000_000_000_000_000
TERMS = "terms"  # beside the limits that code declares: what else is said to those who are charged
_ACCOUNT_MAX_CHARS = 200


class Amounts(NamedTuple):
    """So much of each measure; money in billionths of a dollar."""

    usd: int = 0
    tokens: int = 0
    requests: int = 0
    tools: int = 0

    @property
    def bounded(self) -> Amounts:
        """What a ledger holds of these: whatever somebody tells, the databases' integers have an end."""
        most = Amounts(DOLLARS_MAX * NANO, COUNT_MAX, COUNT_MAX, COUNT_MAX)
        return Amounts(*(min(one, end) for one, end in zip(self, most, strict=True)))

    def plus(self, other: Amounts) -> Amounts:
        """Give the sum."""
        return Amounts(*(one + more for one, more in zip(self, other, strict=True)))


NOTHING = Amounts()


class Spent(msgspec.Struct, gc=False):
    """What a reservation came to; a side row of the entry of its unit."""

    row: int
    entry: str
    reservation: int
    state: State
    usd: int
    tokens: int
    requests: int
    tools: int

    @property
    def amounts(self) -> Amounts:
        """What is counted from now on."""
        return Amounts(self.usd, self.tokens, self.requests, self.tools)


@dataclass(slots=True, frozen=True)
class Charge:
    """An account that a unit is charged to.

    `declared`: its limits as code says, JSON; None: as they were declared before. `row` and `generation`: the run that
    it belongs to and is forgotten with, None for one that outlives runs. `began_at`: from when a limit of `wall`
    seconds counts.
    """

    account: str
    per: Literal["day"] | None = None
    declared: str | None = None
    row: int | None = None
    generation: int | None = None
    began_at: float | None = None


@dataclass(slots=True, frozen=True)
class Reservation:
    """What a unit may come to. `reservation` is drawn by whoever asks, so that a second send is recognised.

    `scope` is that of the agent's run, in which `key` is. `at_once`: the amounts are what it comes to, once for each
    key and generation, however often the unit is interrupted.
    """

    reservation: int
    row: int
    run: str
    scope: str
    key: str
    generation: int
    model: str | None
    amounts: Amounts
    charges: Sequence[Charge]
    at_once: bool = False


@dataclass(slots=True, frozen=True)
class Refusal:
    """Why nothing was reserved: an account is stopped (no measure), or a limit would be exceeded."""

    account: str
    measure: Measure | None = None
    limit: int = 0
    spent: int = 0
    reserved: int = 0
    asked: int = 0


@dataclass(slots=True, frozen=True)
class Granted:
    """The answer to a reservation: why nothing was reserved, or after how many seconds it is to be cut, and by what."""

    refusal: Refusal | None
    left_s: float | None = None
    overtime: Refusal | None = None


@dataclass(slots=True)
class AccountRow:
    """An account, locked. What operators have changed wins over what is declared."""

    account: str
    per: str | None
    declared: str
    changed: str
    stopped: bool
    began_at: float | None

    @property
    def limits(self) -> Mapping[str, int | float | None]:
        """The limits in force."""
        return limits_of(self.declared, self.changed)


@dataclass(slots=True)
class PendingRow:
    """A row of the ledger that is not in its account's balance yet. `is_over`: its run has ended or is gone."""

    is_over: bool
    is_gone: bool
    reservation: int
    account: str
    period: str
    row: int
    key: str
    state: State
    usd: int
    tokens: int
    requests: int
    tools: int

    @property
    def amounts(self) -> Amounts:
        """What is reserved, or came of it."""
        return Amounts(self.usd, self.tokens, self.requests, self.tools)

    def settle(self, state: State, amounts: Amounts) -> None:
        """Set what became of it."""
        self.state = state
        self.usd, self.tokens, self.requests, self.tools = amounts


@dataclass(slots=True)
class Balance:
    """What an account has come to in a period, without what is pending."""

    account: str
    period: str
    spent: Amounts = NOTHING
    lost: Amounts = NOTHING

    def columns(self) -> dict[str, Any]:
        """Give what is stored, by column."""
        sums = {"spent": self.spent, "lost": self.lost}
        amounts = {f"{part}_{name}": value for part, each in sums.items() for name, value in each._asdict().items()}
        return {"account": self.account, "period": self.period, **amounts}


@dataclass(slots=True)
class Booking:
    """What is to be written, all in the transaction that has decided it, and the answer.

    `folded` rows of the ledger are in their balances from now on; those of runs that are gone are deleted.
    """

    granted: Granted
    folded: list[PendingRow] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)
    periods: Mapping[str, str] = field(default_factory=dict)  # of the accounts that are charged now


class Sums(NamedTuple):
    """What an account has come to in a period."""

    spent: Amounts = NOTHING
    lost: Amounts = NOTHING
    reserved: Amounts = NOTHING


@dataclass(slots=True)
class AccountSums:
    """An account as it is read, in one period; `run` is the one whose own it is."""

    account: str
    per: str | None
    run: str | None
    declared: str
    changed: str
    stopped: bool
    period: str
    sums: Sums


@dataclass(slots=True)
class Share:
    """What one run spent on one model, or on tools, as far as it is in the ledger."""

    run: str
    model: str | None
    state: State
    amounts: Amounts


@dataclass(slots=True)
class LedgerRow:
    """One reservation on one account, and what became of it."""

    reservation: int
    account: str
    period: str
    run: str
    key: str
    model: str | None
    state: State
    usd: int
    tokens: int
    requests: int
    tools: int
    at: float
    settled_at: float | None


def to_nano(dollars: Decimal) -> int:
    """Give money in billionths of a dollar, rounded up."""
    return int((dollars * NANO).to_integral_value(ROUND_CEILING))


def to_units(measure: str | None, amount: float) -> float:
    """Give an amount as people read it: money in dollars."""
    return amount / NANO if measure == "usd" else amount


def check_dollars(what: str, given: Any) -> Decimal:
    """Give an amount of money; UsageError if it is none."""
    try:
        dollars = Decimal(str(given))
    except InvalidOperation:
        dollars = Decimal("NaN")
    if isinstance(given, bool) or not dollars.is_finite() or not 0 <= dollars <= DOLLARS_MAX:
        raise UsageError(f'{what} is an amount of dollars from 0 to {DOLLARS_MAX:,}, such as "0.50", not {given!r}')
    return dollars


def check_limits(given: Mapping[str, Any]) -> dict[str, int | float | None]:
    """Give limits as they are stored, None where there is none: money in billionths of a dollar, time in seconds."""
    return {name: None if value is None else _check_limit(name, value) for name, value in given.items()}


def _check_limit(name: str, value: Any) -> int | float:
    if name == "usd":
        return to_nano(check_dollars("usd=…", value))
    if name == "wall":
        if not isfinite(seconds(value)):
            raise UsageError("wall=… is a time with an end; None, or no wall=…, is no limit")
        return seconds(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= COUNT_MAX:
        raise UsageError(f"{name}=… is a whole number from 0 to {COUNT_MAX:,}, not {value!r}")
    return value


def limits_of(declared: str, changed: str) -> dict[str, int | float | None]:
    """Give the limits in force: what an operator has changed wins over what code declares."""
    limits = {**json.loads(declared), **json.loads(changed)}
    limits.pop(TERMS, None)
    return limits


def check_account(name: Any) -> str:
    """Give the name of an account that outlives runs; a '/' stands in those of runs."""
    if not isinstance(name, str) or not name or len(name) > _ACCOUNT_MAX_CHARS or not name.isprintable() or "/" in name:
        raise UsageError(
            f"account=… is a printable text of at most {_ACCOUNT_MAX_CHARS} characters without '/', not {name!r}"
        )
    if name != name.strip() or name != unicodedata.normalize("NFC", name):
        raise UsageError(
            f"account={name!a} looks like {unicodedata.normalize('NFC', name.strip())!r} and would be another account: "
            "write it without spaces around, and in the normal form NFC"
        )
    return name


def name_period(per: str | None, now: float) -> str:
    """Give the period that an instant belongs to: a day of UTC, or none."""
    return datetime.fromtimestamp(now, UTC).date().isoformat() if per == "day" else ""


def book(
    reservation: Reservation,
    earlier: Spent | None,
    accounts: Sequence[AccountRow],
    pending: Iterable[PendingRow],
    balances: Iterable[Balance],
    now: float,
    *,
    is_known: bool,
) -> Booking:
    """Decide on a reservation; `earlier` is what an attempt before it, in the same process, came to.

    `is_known`: it is in the ledger already, so nothing can refuse it any more but the time, which goes on.
    """
    periods = {one.account: name_period(one.per, now) for one in accounts}
    sums = {(one.account, one.period): one for one in balances}
    reserved: dict[tuple[str, str], Amounts] = defaultdict(lambda: NOTHING)
    folded = []
    for row in pending:
        if row.state == "open":
            _find_out(row, reservation, earlier)
        place = row.account, row.period
        if row.state == "open":
            reserved[place] = reserved[place].plus(row.amounts)
            continue
        balance = sums.setdefault(place, Balance(*place))
        if row.state == "lost":
            balance.lost = balance.lost.plus(row.amounts)
        else:
            balance.spent = balance.spent.plus(row.amounts)
        folded.append(row)
    changed = [sums[place] for place in {(row.account, row.period): None for row in folded}]
    granted = Granted(None)
    for account in accounts:
        place = account.account, periods[account.account]
        refusal = _weigh(account, sums.get(place, Balance(*place)), reserved[place], reservation.amounts)
        wall_s = account.limits.get("wall")
        if wall_s is not None and account.began_at is not None:
            left_s = account.began_at + wall_s - now
            overtime = Refusal(account.account, "wall", int(wall_s), int(now - account.began_at))
            if left_s <= 0:
                if is_known:
                    return Booking(Granted(overtime), folded, changed)
                refusal = refusal or overtime
            elif granted.left_s is None or left_s < granted.left_s:
                granted = Granted(None, left_s, replace(overtime, spent=int(wall_s)))
        if refusal is not None and not is_known:
            return Booking(Granted(refusal), folded, changed)
    return Booking(granted, folded, changed, {} if is_known else periods)


def places_of(accounts: Iterable[AccountRow], pending: Iterable[PendingRow], now: float) -> list[tuple[str, str]]:
    """Give the accounts and periods whose balances are needed to book, in order."""
    today = {(one.account, name_period(one.per, now)) for one in accounts}
    return sorted(today | {(row.account, row.period) for row in pending})


def add_up(parts: Iterable[Sequence[Any]]) -> Mapping[str, Sums]:
    """Give what accounts have come to: `parts` are an account, what has become of it, and amounts."""
    sums: dict[str, Sums] = defaultdict(Sums)
    for account, state, *amounts in parts:
        before = sums[account]
        name = "reserved" if state == "open" else state
        sums[account] = before._replace(**{name: getattr(before, name).plus(Amounts(*amounts))})
    return sums


def _find_out(row: PendingRow, reservation: Reservation, earlier: Spent | None) -> None:
    """Settle what nobody else will: an earlier attempt of the same unit, and what a run left open as it ended."""
    if row.reservation == reservation.reservation:
        return
    if earlier is not None and row.reservation == earlier.reservation:
        row.settle(earlier.state, earlier.amounts)
    elif row.is_over or (row.row, row.key) == (reservation.row, reservation.key):
        row.settle("lost", row.amounts)


def _weigh(account: AccountRow, balance: Balance, reserved: Amounts, asked: Amounts) -> Refusal | None:
    if account.stopped:
        return Refusal(account.account)
    used = balance.spent.plus(balance.lost)
    for name, spent, held, more in zip(Amounts._fields, used, reserved, asked, strict=True):
        limit = account.limits.get(name)
        if limit is not None and more and spent + held + more > limit:
            measure: Any = name
            return Refusal(account.account, measure, int(limit), spent, held, more)
    return None
