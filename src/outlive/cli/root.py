"""The root of the commands, and the place where an error becomes a sentence and an exit code."""

from __future__ import annotations

import io
import sys

import click

from outlive import __version__, errors
from outlive.cli import agent_runs as _agent_runs  # noqa: F401 - commands of `agents`
from outlive.cli import budgets as _budgets  # noqa: F401 - commands of `agents`
from outlive.cli import chat as _chat  # noqa: F401 - a command of `agents`
from outlive.cli import messages as _messages  # noqa: F401 - commands of `runs`
from outlive.cli.agents import agents
from outlive.cli.approvals import approvals
from outlive.cli.control import audit
from outlive.cli.db import db
from outlive.cli.demo import demo
from outlive.cli.doctor import doctor
from outlive.cli.mcp import mcp
from outlive.cli.pins import pins
from outlive.cli.promises import promises, settle
from outlive.cli.questions import questions
from outlive.cli.queues import queues
from outlive.cli.replay import replay
from outlive.cli.reviews import reviews
from outlive.cli.runs import runs
from outlive.cli.schedules import schedules
from outlive.cli.settings import CONFLICT, NOT_FOUND, RUN_FAILED, STORE, USAGE, Settings, common_options
from outlive.cli.worker import worker

_INTERRUPTED = 130  # 128 + SIGINT, as shells count

# The first class that fits decides.
_EXIT_CODES: list[tuple[type[errors.OutliveError], int]] = [
    (errors.RunNotFound, NOT_FOUND),
    (errors.ScheduleNotFound, NOT_FOUND),
    (errors.PromiseNotFound, NOT_FOUND),
    (errors.PromiseError, CONFLICT),
    (errors.RunExists, CONFLICT),
    (errors.DuplicateRun, CONFLICT),
    (errors.RunEnded, CONFLICT),
    (errors.RunTimedOut, CONFLICT),
    (errors.RunRefused, CONFLICT),
    (errors.LimitError, CONFLICT),
    (errors.ReplayError, CONFLICT),
    (errors.StoreError, STORE),
    (errors.UsageError, USAGE),
    (errors.PayloadError, USAGE),
    (errors.OutliveError, RUN_FAILED),
]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="outlive %(version)s")
@common_options
def cli(_: Settings) -> None:
    """Durable workflows in the database you already have."""


for command in (
    demo,
    runs,
    queues,
    schedules,
    promises,
    settle,
    approvals,
    questions,
    reviews,
    agents,
    audit,
    worker,
    mcp,
    pins,
    replay,
    db,
    doctor,
):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an id may hold what the terminal cannot show
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        code = cli.main(arguments, prog_name="outlive", standalone_mode=False, auto_envvar_prefix="OUTLIVE")
    except click.Abort:
        return _INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except errors.OutliveError as error:
        click.echo(f"outlive: {error}", err=True)
        return exit_code(error)
    return code if isinstance(code, int) else 0


def exit_code(error: errors.OutliveError) -> int:
    """Give the exit code of a command that ended with this error."""
    return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
