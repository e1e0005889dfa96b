"""Outlive in a Django project: add this package to INSTALLED_APPS, call `start(…)`, run `manage.py outlive_worker`.

OUTLIVE in the settings may say: URL (by default the database of USING), USING
(the alias whose transactions runs join; None: none), INCLUDE (by default every
workflow of a module `workflows` in an installed app), WORKER (True: web
processes execute runs, too) and OPTIONS (further arguments of `Outlive`). `middleware.ErrorAnswers` answers for errors.
Invariant: importing this opens nothing and reads no setting.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections, transaction

from outlive import SchemaMismatch, UsageError, sync
from outlive.integrations.django import configuration
from outlive.integrations.process import PerProcess

__all__ = ["astart", "get_app", "start"]

_per_process = PerProcess(configuration.make_app, configuration.fresh_connections)


def get_app() -> sync.Outlive:
    """Give the app of this process; it is opened when it is first asked for."""
    try:
        return _per_process.get()
    except SchemaMismatch as error:
        raise SchemaMismatch(f"{error}; in this project that is `python manage.py outlive_migrate`") from None


def start(workflow: Any, *args: Any, **options: Any) -> sync.Run:
    """Start a run; takes the options of `outlive.sync.Outlive.start`.

    Inside `transaction.atomic` the run is written by that transaction: it exists if that commits.
    """
    app, using = get_app(), configuration.joined_alias()
    if using is None or "tx" in options or not connections[using].in_atomic_block:
        return app.start(workflow, *args, **options)
    connection = connections[using]
    connection.validate_no_broken_transaction()
    try:
        run = app.start(workflow, *args, tx=connection.connection, **options)
    except UsageError as error:
        if "tx=" not in str(error):
            raise
        raise UsageError(
            f"{error}. Inside transaction.atomic start(…) passes tx=: start it when that has committed "
            "(transaction.on_commit), or apart from it with get_app().start(…)"
        ) from None
    transaction.on_commit(app._hint, using=using, robust=True)  # it is committed, whether they hear of it or not
    return run


astart = sync_to_async(start)
