"""Reads OUTLIVE and DATABASES of the settings, when an app is made, and makes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

from django.conf import settings
from django.db import close_old_connections, connections
from django.utils.module_loading import autodiscover_modules

import outlive
from outlive import sync
from outlive.errors import UsageError

_KNOWN = {"URL", "USING", "INCLUDE", "WORKER", "OPTIONS"}
_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl")


def _settings() -> dict[str, Any]:
    given = getattr(settings, "OUTLIVE", {})
    if unknown := sorted(set(given) - _KNOWN):
        raise UsageError(f"OUTLIVE[{unknown[0]!r}] is no setting; there are {', '.join(sorted(_KNOWN))}")
    return {"USING": "default", "WORKER": False, "OPTIONS": {}, **given}


def joined_alias() -> str | None:
    """Give the alias of the database whose transactions runs join."""
    alias: str | None = _settings()["USING"]
    return alias


def url() -> str:
    """Give the URL of the database."""
    given = _settings()
    if given.get("URL"):
        return str(given["URL"])
    if given["USING"] is None:
        raise UsageError("OUTLIVE says neither URL nor USING: there is no database")
    return url_of(given["USING"])


def url_of(alias: str) -> str:
    """Give the URL of a database of DATABASES, as it is at this moment: tests change its name."""
    connection = connections[alias]
    facts = connection.settings_dict
    name, options = str(facts["NAME"]), facts.get("OPTIONS") or {}
    if connection.vendor == "sqlite" and "memory" not in name:
        return f"sqlite:///{name}"
    if connection.vendor != "postgresql" or not name or "service" in options:
        raise UsageError(
            f"DATABASES[{alias!r}] is no database that processes can share for their runs: a file of SQLite, or "
            'PostgreSQL by its name. Set OUTLIVE = {"URL": "…", "USING": None}'
        )
    user, password, host = (quote(str(facts[key] or ""), safe="") for key in ("USER", "PASSWORD", "HOST"))
    who = f"{user}:{password}@" if password else f"{user}@" if user else ""
    query = {key: options[key] for key in _TLS if key in options}
    if host.startswith("%2F"):  # a folder of sockets
        query["host"], host = facts["HOST"], ""
    port = f":{facts['PORT']}" if facts["PORT"] and host else ""
    if facts["PORT"] and not host:
        query["port"] = facts["PORT"]
    return f"postgresql://{who}{host}{port}/{quote(name, safe='')}" + (f"?{urlencode(query)}" if query else "")


def _arguments(*, worker: bool) -> dict[str, Any]:
    given = _settings()
    autodiscover_modules("workflows")
    return {"url": url(), "include": given.get("INCLUDE"), "worker": worker, **given["OPTIONS"]}


def make_app() -> sync.Outlive:
    """Make the app of a web process; tables are the business of `outlive_migrate` and of workers."""
    return sync.Outlive(**{"migrate": False, **_arguments(worker=executes_runs())})


def executes_runs() -> bool:
    """Whether web processes execute runs, too."""
    return bool(_settings()["WORKER"])


def make_worker() -> outlive.Outlive:
    """Make the app of `outlive_worker`."""
    return outlive.Outlive(**_arguments(worker=True))


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Keep a thread's connections as Django keeps those of requests: close the broken and the old ones."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()
