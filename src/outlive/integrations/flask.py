"""Outlive in a Flask application: `current_outlive`, errors as answers, and the commands `flask outlive …`.

Settings: OUTLIVE_URL, OUTLIVE_INCLUDE, OUTLIVE_WORKER, OUTLIVE_OPTIONS. Plain
steps execute in an application context.
"""

from __future__ import annotations

from typing import Any

import click
from flask import Flask, Response, current_app, jsonify
from flask.cli import with_appcontext
from werkzeug.local import LocalProxy

import outlive
from outlive import sync
from outlive.cli.control import audit
from outlive.cli.db import db
from outlive.cli.doctor import doctor
from outlive.cli.promises import promises, settle
from outlive.cli.queues import queues
from outlive.cli.root import exit_code
from outlive.cli.runs import runs
from outlive.cli.schedules import schedules
from outlive.cli.settings import Settings
from outlive.cli.worker import serve
from outlive.errors import OutliveError, UsageError
from outlive.integrations.http import STATUSES, answer_to
from outlive.integrations.process import PerProcess, enclosed

__all__ = ["FlaskOutlive", "current_outlive"]


class FlaskOutlive:
    """The extension: `FlaskOutlive(app)`, or `init_app(app)` later. Opens nothing before it is first used.

    OUTLIVE_URL names the database, OUTLIVE_INCLUDE what is served (by default
    every workflow declared). Runs are executed by `flask outlive worker`; with
    OUTLIVE_WORKER also by each process of the web server, from its first request
    on. OUTLIVE_OPTIONS: further arguments of `Outlive`. Tables are made by
    `flask outlive db migrate` and by workers, not by web processes.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give the application its Outlive, its commands and its error answers."""
        app.config.setdefault("OUTLIVE_WORKER", False)
        app.extensions["outlive"] = PerProcess(
            lambda: sync.Outlive(**{"migrate": False, **_options(app, worker=app.config["OUTLIVE_WORKER"])}),
            app.app_context,
        )
        if app.config["OUTLIVE_WORKER"]:
            app.before_request(_open)
        app.cli.add_command(_group)
        for kind in STATUSES:
            app.register_error_handler(kind, _answer)


def _options(app: Flask, *, worker: bool) -> dict[str, Any]:
    return {
        "url": _url(app),
        "include": app.config.get("OUTLIVE_INCLUDE"),
        "worker": worker,
        **app.config.get("OUTLIVE_OPTIONS", {}),
    }


def _url(app: Flask) -> str:
    url = app.config.get("OUTLIVE_URL")
    if not url:
        raise UsageError('no database: set app.config["OUTLIVE_URL"], for example to sqlite:///shop.db')
    return str(url)


def _answer(error: Exception) -> tuple[Response, int, dict[str, str]]:
    body, status, headers = answer_to(error)
    return jsonify(body), status, headers


def _current() -> sync.Outlive:
    per_process = current_app.extensions.get("outlive")
    if per_process is None:
        raise UsageError("this application has no Outlive: FlaskOutlive(app)")
    return per_process.get()  # type: ignore[no-any-return]


def _open() -> None:
    _current()


current_outlive: sync.Outlive = LocalProxy(_current)  # type: ignore[assignment]


class _Commands(click.Group):
    """Ends with the exit codes of `outlive`."""

    def invoke(self, context: click.Context) -> Any:
        try:
            code = super().invoke(context)
        except OutliveError as error:
            click.echo(f"outlive: {error}", err=True)
            code = exit_code(error)
        context.exit(code if isinstance(code, int) else 0)


@click.group("outlive", cls=_Commands)
@with_appcontext
@click.pass_context
def _group(context: click.Context) -> None:
    """Durable workflows."""
    context.ensure_object(Settings).url = _url(current_app)


@_group.command()
def worker() -> None:
    """Execute runs until Ctrl-C or SIGTERM."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    enclosed(app.app_context, lambda: serve(outlive.Outlive(**_options(app, worker=True))))


for _command in (runs, queues, schedules, promises, settle, audit, db, doctor):
    _group.add_command(_command)
