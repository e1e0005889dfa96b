"""Django: transactions, commands, steps, settings. Each test is a program of its own: settings are for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from outlive import UsageError
from tests.house.source import ROOT, SRC

SHOP = ROOT / "examples" / "django_shop"
START = """
import asyncio, django, os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()
from django.core.management import call_command
from django.db import connection, transaction
from outlive import RunNotFound, step, sync, workflow
from outlive.integrations.django import astart, get_app, start
from shop.models import Order
from shop.workflows import fulfil

def exists(id):
    try:
        get_app().get(id)
    except RunNotFound:
        return False
    return True

call_command("migrate", "--run-syncdb", verbosity=0)
call_command("outlive_migrate")
"""


def _run(url: str, folder: Path, program: str, *words: str, code: int = 0) -> str:
    argv = [sys.executable, "-W", "error::ResourceWarning", "-c", START + program]
    done = subprocess.run(
        [sys.executable, str(SHOP / "manage.py"), *words] if words else argv,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{SHOP}", "SHOP_DATABASE": url},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_run_exists_if_the_atomic_block_commits(url: str, tmp_path: Path) -> None:
    _run(
        url,
        tmp_path,
        """
with transaction.atomic():
    Order.objects.create(name="1", cents=5)
    run = start(fulfil, "1", 5, id="one")
    assert not exists("one")
assert run.created and exists("one")
try:
    with transaction.atomic():
        start(fulfil, "2", 5, id="two")
        raise ZeroDivisionError
except ZeroDivisionError:
    assert not exists("two")
with transaction.atomic():
    Order.objects.create(name="3", cents=5)
    try:
        with transaction.atomic():  # a savepoint
            start(fulfil, "3", 5, id="three")
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    start(fulfil, "4", 5, id="four")
assert not exists("three") and exists("four")
assert not start(fulfil, "1", 5, id="one").created  # outside of a transaction
with transaction.atomic():
    assert not start(fulfil, "1", 5, id="one").created
asyncio.run(astart(fulfil, "5", 5, id="five"))
assert exists("five")
""",
    )


def test_errors_speak_of_the_project(url: str, tmp_path: Path) -> None:
    said = _run(
        url,
        tmp_path,
        """
from outlive import SchemaMismatch, UsageError
for options in ({"singleton": "skip"}, {"send": [("go", 1)]}):
    try:
        with transaction.atomic():
            start(fulfil, "1", 5, id="one", **options)
    except UsageError as error:
        print(error)
get_app().close()
broken = {"postgresql": "DROP SCHEMA outlive CASCADE", "sqlite": "DELETE FROM ol_meta"}
with connection.cursor() as cursor:
    cursor.execute(broken[connection.vendor])
try:
    start(fulfil, "1", 5)
except SchemaMismatch as error:
    print(error)
""",
    )
    assert said.count("on_commit), or apart from it with get_app().start(…)") == 2
    assert said.endswith("in this project that is `python manage.py outlive_migrate`\n")


def test_a_worker_is_told_by_the_commit_and_its_steps_use_the_orm(url: str, tmp_path: Path) -> None:
    """Connections of steps are closed as those of requests are, so a broken one is replaced."""
    _run(
        url,
        tmp_path,
        """
from django.conf import settings
settings.OUTLIVE = {"WORKER": True, "OPTIONS": {"name": "in the web"}}

@step
def break_connection(name):
    Order.objects.filter(name=name).update(cents=6)
    connection.close_at = 1.0  # it was opened in 1970 and is too old

@workflow
def breaks(name):
    break_connection(name)
    break_connection(name)
    return "worked"

assert get_app().name == "in the web"
with transaction.atomic():
    Order.objects.create(name="1", cents=5)
    run = start(breaks, "1", id="one")
assert run.result(timeout=20) == "worked"
assert Order.objects.get().cents == 6
""",
    )


def test_commands(url: str, tmp_path: Path) -> None:
    _run(
        url,
        tmp_path,
        """
start(fulfil, '1', 5, id='one')
try:
    call_command("outlive", "runs", "show", "one")
except SystemExit as ended:
    assert ended.code == 0
""",
    )
    assert '"one"' in _run(url, tmp_path, "", "outlive", "runs", "ls", "--json")
    assert "no run 'none'" in _run(url, tmp_path, "", "outlive", "runs", "show", "none", code=3)
    assert "up to date" in _run(url, tmp_path, "", "outlive_migrate")


def test_errors_become_answers_and_faults_stay_faults(url: str, tmp_path: Path) -> None:
    """In views of both kinds; what the view had written in its own transaction is rolled back."""
    _run(
        url,
        tmp_path,
        """
from django.db import connections
from django.test import AsyncClient, Client
from django.urls import path
from outlive import QueueFull, UsageError
from shop import urls

errors = {"none": RunNotFound("none"), "full": QueueFull("letters", 1), "fault": UsageError("wrong")}

def fails(_, name):
    Order.objects.create(name=name, cents=5)
    raise errors[name]

async def fails_async(_, name):
    raise errors[name]

urls.urlpatterns += [path("fails/<name>", fails), path("later/<name>", fails_async)]
connections["default"].settings_dict["ATOMIC_REQUESTS"] = True

def ask(where, name):
    if where == "later":
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = False  # which async views cannot have
        return asyncio.run(AsyncClient(raise_request_exception=False).get(f"/{where}/{name}"))
    return Client(raise_request_exception=False).get(f"/{where}/{name}")

for where in ("fails", "later"):
    missing, full, fault = (ask(where, name) for name in errors)
    assert (missing.status_code, missing.json()) == (404, {"detail": str(errors["none"])}), missing.content
    assert (full.status_code, full["Retry-After"]) == (429, "1")
    assert fault.status_code == 500
assert Order.objects.count() == 0
""",
    )


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    _run(
        "",
        tmp_path,
        """
from django.conf import settings
from outlive import UsageError
for wrong, said in (({"URI": "sqlite:///a.db"}, "URI"), ({"USING": None}, "URL nor USING")):
    settings.OUTLIVE = wrong
    try:
        start(fulfil, "1", 5)
    except UsageError as error:
        assert said in str(error), error
    else:
        raise AssertionError(wrong)
settings.OUTLIVE = {"URL": "sqlite:///apart.db", "USING": None, "OPTIONS": {"migrate": True}}
with transaction.atomic():
    Order.objects.create(name="1", cents=5)
    assert start(fulfil, "1", 5).created  # in a database of its own: not part of the transaction
    transaction.set_rollback(True)
assert get_app().count() == 1
""",
    )


@pytest.mark.parametrize(
    ("vendor", "facts", "expected"),
    [
        ("sqlite", {"NAME": Path("/srv/shop.db")}, "sqlite:////srv/shop.db"),
        ("postgresql", {"NAME": "shop", "USER": "ann", "HOST": "db", "PORT": "6543"}, "postgresql://ann@db:6543/shop"),
        (
            "postgresql",
            {"NAME": "sh/op", "USER": "a@b", "PASSWORD": "p:w/d", "HOST": "db", "OPTIONS": {"sslmode": "require"}},
            "postgresql://a%40b:p%3Aw%2Fd@db/sh%2Fop?sslmode=require",
        ),
        (
            "postgresql",
            {"NAME": "shop", "HOST": "/var/run/postgresql", "PORT": 5433},
            "postgresql:///shop?host=%2Fvar%2Frun%2Fpostgresql&port=5433",
        ),
        ("sqlite", {"NAME": "file:memorydb_default?mode=memory&cache=shared"}, None),
        ("postgresql", {"NAME": "", "OPTIONS": {"service": "shop"}}, None),
        ("mysql", {"NAME": "shop"}, None),
    ],
)
def test_the_url_is_that_of_the_database(
    monkeypatch: pytest.MonkeyPatch, vendor: str, facts: dict[str, Any], expected: str | None
) -> None:
    from outlive.integrations.django import configuration

    given = {"USER": "", "PASSWORD": "", "HOST": "", "PORT": "", **facts}
    monkeypatch.setattr(configuration, "connections", {"default": SimpleNamespace(vendor=vendor, settings_dict=given)})
    if expected is None:
        with pytest.raises(UsageError, match="DATABASES"):
            configuration.url_of("default")
    else:
        assert configuration.url_of("default") == expected
