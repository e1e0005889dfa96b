"""`outlive agents budget`: list what agents may use and have used, show one budget, change, stop and resume it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import date
from typing import Any

import click

from outlive import Outlive
from outlive.budgets import BudgetInfo, Expense, Share, Used, budgets
from outlive.cli.agents import agents
from outlive.cli.output import print_json, print_table, when
from outlive.cli.settings import NOT_FOUND, OK, Settings, audited, common_options, read_duration, with_client
from outlive.errors import UsageError
from outlive.paging import Page

_COUNTS = ("tokens", "requests", "tools")


@agents.group()
def budget() -> None:
    """List budgets of agents, change their limits, stop them."""


@budget.command("ls")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many.")
@click.option("--after", metavar="ACCOUNT", help="Go on behind this one.")
@common_options
def ls(settings: Settings, limit: int, after: str | None) -> None:
    """List the budgets that were used or changed; those per day as of today (UTC)."""
    page = with_client(settings, lambda client: budgets(client).list(limit=limit, after=after))
    rows = [
        [one.account, _state(one), describe_limits(one), *map(describe, (one.spent, one.reserved, one.lost))]
        for one in page.items
    ]
    settings.print_page("budgets", page, ["ACCOUNT", "STATE", "LIMITS", "SPENT", "RESERVED", "LOST"], rows)


@budget.command()
@click.argument("account")
@click.option("--day", metavar="YYYY-MM-DD", help="As of this day, of a budget per day.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="The latest so many expenses.")
@click.option("--before", metavar="ID", type=int, help="Only older ones than this.")
@common_options
def show(settings: Settings, account: str, day: str | None, limit: int, before: int | None) -> int:
    """Show a budget: limits, sums, who used it for what, and its latest expenses. Exit code 3 if there is none."""
    asked = _read_day(day)

    async def read(client: Outlive) -> tuple[BudgetInfo | None, list[Share], Page[Expense, int]]:
        there = budgets(client)
        found = await there.find(account, day=asked)
        return found, list(await there.shares(account)), await there.ledger(account, limit=limit, before=before)

    found, shares, page = with_client(settings, read)
    if found is None:
        return _tell_unknown(account)
    if settings.json:
        print_json({"budget": found, "shares": shares, "expenses": page.items, "next": page.next})
        return OK
    click.echo(f"{found.account}  {_state(found)}" + (f"  {found.period}" if found.period else ""))
    click.echo(f"  limits    {describe_limits(found)}" + ("  changed by an operator" if found.is_changed else ""))
    for part in ("spent", "reserved", "lost"):
        click.echo(f"  {part:8}  {describe(getattr(found, part))}")
    if shares:
        print_table(
            ["RUN", "MODEL", "STATE", "USED"], [[s.run, s.model or "-", s.state, describe(s.amounts)] for s in shares]
        )
    if page.items:
        rows = [[str(e.id), when(e.at), e.run, e.key, e.state, describe(e.amounts)] for e in page.items]
        print_table(["ID", "AT (UTC)", "RUN", "KEY", "STATE", "USED"], rows)
    if page.next is not None:
        click.echo(f"more: --before {page.next}", err=True)
    return OK


@budget.command("set")
@click.argument("account")
@click.option("--usd", metavar="DOLLARS|none", help="Money, such as 0.50.")
@click.option("--tokens", metavar="N|none", help="Tokens sent and answered.")
@click.option("--requests", metavar="N|none", help="Requests to models.")
@click.option("--tools", metavar="N|none", help="Calls of tools, where code limits them.")
@click.option("--wall", metavar="DURATION|none", help="Time since the agent began: 90s, 2h; of a run's own budget.")
@click.option("--new", is_flag=True, help="Also if no agent has used this budget yet.")
@audited
@common_options
def set_limits(
    settings: Settings, account: str, reason: str | None, by: str | None, *, new: bool, **given: str | None
) -> int:
    """Change limits of a budget, at once and for all workers; what is not named stays."""
    limits = {name: _read_limit(name, text) for name, text in given.items() if text is not None}
    return _change(
        settings, account, lambda client: budgets(client).put(account, **limits, reason=reason, by=by), new=new
    )


@budget.command()
@click.argument("account")
@audited
@common_options
def stop(settings: Settings, account: str, reason: str | None, by: str | None) -> int:
    """Refuse all that is new; what is under way goes on."""
    return _change(settings, account, lambda client: budgets(client).stop(account, reason, by=by))


@budget.command()
@click.argument("account")
@audited
@common_options
def resume(settings: Settings, account: str, reason: str | None, by: str | None) -> int:
    """Allow again what the limits allow; runs that failed meanwhile go on with `outlive runs retry`."""
    return _change(settings, account, lambda client: budgets(client).resume(account, reason, by=by))


def _change(
    settings: Settings, account: str, act: Callable[[Outlive], Coroutine[Any, Any, None]], *, new: bool = False
) -> int:
    """Change a budget that there is: a name that was mistyped would stop nobody."""

    async def change(client: Outlive) -> BudgetInfo | None:
        if new or await budgets(client).find(account) is not None:
            await act(client)
        return await budgets(client).find(account)

    found: BudgetInfo | None = with_client(settings, change)
    if found is None:
        return _tell_unknown(account)
    settings.say(f"budget {account!r} is {_state(found)}, limits: {describe_limits(found)}", {"budget": found})
    return OK


def _tell_unknown(account: str) -> int:
    click.echo(f"outlive: no budget {account!r} was used or changed", err=True)
    return NOT_FOUND


def _read_limit(name: str, text: str) -> Any:
    if text == "none":
        return None
    if name == "wall":
        return read_duration(text, "--wall")
    if name in _COUNTS:
        try:
            return int(text)
        except ValueError:
            raise UsageError(f"--{name} is a whole number or none, not {text!r}") from None
    return text


def _read_day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--day is a day such as 2026-02-28, not {text!r}") from None


def _state(found: BudgetInfo) -> str:
    return "stopped" if found.stopped else "open"


def describe_limits(found: BudgetInfo) -> str:
    """Give the limits of a budget in one line."""
    return (
        " ".join(f"{name}={value:f}" if name == "usd" else f"{name}={value:g}" for name, value in found.limits.items())
        or "none"
    )


def describe(used: Used) -> str:
    """Give amounts in one line, without what is zero."""
    counts = [f"{name}={getattr(used, name)}" for name in _COUNTS if getattr(used, name)]
    return " ".join([*([f"usd={used.usd.normalize():f}"] if used.usd else []), *counts]) or "-"
