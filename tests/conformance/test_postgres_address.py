"""What a person is told who has the URL, the password, the rights or the schema wrong; passwords are never shown."""

from __future__ import annotations

import asyncio
import random
import sys
import traceback
from collections.abc import Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from outlive.clock import SystemClock
from outlive.errors import SchemaMismatch, StoreReadOnly, StoreUnavailable, UsageError
from outlive.model.writes import Batch
from outlive.store.postgres import PostgresStore
from outlive.store.refusals import WriteRefused
from tests.conformance.records import new_entry, new_run, register, start, start_owned
from tests.support.postgres import LOCKED_PASSWORD, LOCKED_ROLE, shared_server


def make(url: str) -> PostgresStore:
    return PostgresStore(url, clock=SystemClock(), chance=random.Random())


@pytest.fixture
def url() -> Iterator[str]:
    url = shared_server().fresh_database()
    yield url
    shared_server().take_back(url)


def with_login(url: str, login: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{login}@{parts.hostname}:{parts.port}").geturl()


def own_server() -> None:
    if shared_server().external:
        pytest.skip("its roles are somebody else's")


async def test_a_wrong_password(url):
    own_server()
    for login in (f"{LOCKED_ROLE}:hunter2-hunter2", f"{LOCKED_ROLE}"):
        store = make(with_login(url, login))
        with pytest.raises(UsageError, match="password") as refused:
            await store.open(migrate=True)
        shown = "".join(traceback.format_exception(refused.value)) + store.url
        assert "hunter2" not in shown
        assert LOCKED_ROLE in shown
    right = make(with_login(url, f"{LOCKED_ROLE}:{LOCKED_PASSWORD}"))
    assert LOCKED_PASSWORD not in right.url
    with pytest.raises(UsageError, match="grant it CREATE"):  # may log in, but not create the schema
        await right.open(migrate=True)


async def test_a_password_in_the_query_is_not_shown():
    store = make("postgresql://me@nowhere.invalid/shop?password=hunter2&sslmode=disable")
    assert store.url == "postgresql://me@nowhere.invalid/shop?sslmode=disable"
    with pytest.raises(StoreUnavailable) as refused:
        await store.open(migrate=True)
    assert "hunter2" not in str(refused.value)


async def test_an_unknown_database(url):
    store = make(url + "_not_there")
    with pytest.raises(UsageError, match=r"there is no database '.*_not_there'.*createdb"):
        await store.open(migrate=True)


async def test_an_unknown_role(url):
    own_server()
    with pytest.raises(UsageError, match="nobody_here"):
        await make(with_login(url, "nobody_here")).open(migrate=True)


async def test_a_server_that_is_down():
    store = make("postgresql://me:hunter2@127.0.0.1:1/shop")
    with pytest.raises(StoreUnavailable, match="start it, or check host and port") as refused:
        await store.open(migrate=True)
    assert "hunter2" not in str(refused.value)
    assert "me@127.0.0.1:1/shop" in str(refused.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql+asyncpg://me@host/shop", "without a driver"),
        ("mysql://me@host/shop", "begins with postgresql://"),
        ("postgresql://me@host:port/shop", "not one that PostgreSQL understands"),
        ("postgresql://me@host/shop?sslmode=perhaps", "not one that PostgreSQL understands"),
    ],
)
async def test_a_url_that_is_none(url, told):
    with pytest.raises(UsageError, match=told):
        await make(url).open(migrate=True)


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(UsageError, match=r"pip install 'outlive\[postgres\]'"):
        make("postgresql://me@host/shop")


async def test_a_database_that_cannot_be_written(url):
    store = make(url)
    await store.open(migrate=True)
    await store.close()
    admin = await asyncpg.connect(url)
    name = urlsplit(url).path.lstrip("/")
    await admin.execute(f'alter database "{name}" set default_transaction_read_only = on')
    await admin.close()
    store = make(url)
    await store.open(migrate=True)
    with pytest.raises(StoreReadOnly):
        await start(store, "order-1")
    assert await store.find_run("order-1") is None
    await store.close()


async def test_defaults_of_the_database_that_would_weaken_the_guarantees_do_not_apply(url):
    admin = await asyncpg.connect(url)
    name = urlsplit(url).path.lstrip("/")
    await admin.execute(f'alter database "{name}" set default_transaction_isolation = serializable')
    await admin.execute(f'alter database "{name}" set synchronous_commit = off')
    await admin.close()
    store = make(url)
    await store.open(migrate=True)
    for _ in range(2):  # also after a user's transaction has used the connection
        for name, value in (("default_transaction_isolation", "read committed"), ("synchronous_commit", "on")):
            assert (await store._pool.fetch(f"show {name}"))[0][0] == value
        tx = await store.begin(5.0)
        await tx.rollback()
    await store.close()


# -- the schema -----------------------------------------------------------------


async def test_five_processes_may_start_at_once(url):
    stores = [make(url) for _ in range(5)]
    await asyncio.gather(*(store.open(migrate=True) for store in stores))
    for number, store in enumerate(stores):
        await start(store, f"order-{number}")
        await store.close()


async def test_without_migrate_an_empty_database_is_refused(url):
    store = make(url)
    with pytest.raises(SchemaMismatch, match="outlive db migrate"):
        await store.open(migrate=False)
    await store.open(migrate=True)  # the same store may try again
    await store.close()
    await store.open(migrate=False)
    await store.close()


async def test_a_newer_schema_is_refused(url):
    store = make(url)
    await store.open(migrate=True)
    await store.close()
    admin = await asyncpg.connect(url)
    await admin.execute("insert into outlive.meta (key, value) values ('migration/9999', 'x')")
    await admin.close()
    for migrate in (True, False):
        with pytest.raises(SchemaMismatch, match="newer"):
            await store.open(migrate=migrate)


async def test_a_schema_that_was_made_for_a_role_without_rights_on_the_database(url):
    own_server()
    admin = await asyncpg.connect(url)
    await admin.execute(f"create schema outlive authorization {LOCKED_ROLE}")
    await admin.close()
    store = make(with_login(url, f"{LOCKED_ROLE}:{LOCKED_PASSWORD}"))
    await store.open(migrate=True)
    await start(store, "order-1")
    await store.close()


async def test_a_schema_that_vanishes_is_told(url):
    store = make(url)
    await store.open(migrate=True)
    admin = await asyncpg.connect(url)
    await admin.execute("drop schema outlive cascade")
    await admin.close()
    with pytest.raises(SchemaMismatch, match="outlive db migrate"):
        await store.find_run("order-1")
    await store.close()


async def test_the_views_tell_a_person_what_there_is(url):
    store = make(url)
    await store.open(migrate=True)
    fence = await register(store)
    (run,) = await start_owned(store, fence, "order-1")
    await store.commit(Batch(entries=[new_entry(run.row)], starts=[new_run("later", delay_s=500)]), fence)
    await store.add_request("order-1", "cancel", '"enough"')
    admin = await asyncpg.connect(url)
    assert dict(await admin.fetch("select id, status from outlive.outlive_runs")) == {
        "order-1": "running",
        "later": "scheduled",
    }
    (entry,) = await admin.fetch("select run, key, outcome, value from outlive.outlive_entries")
    assert tuple(entry) == ("order-1", "/pay#1", "ok", '"paid"')
    (worker,) = await admin.fetch("select worker, alive, runs from outlive.outlive_workers")
    assert tuple(worker) == (fence.worker, True, 1)
    (request,) = await admin.fetch("select run, kind, payload from outlive.outlive_requests")
    assert tuple(request) == ("order-1", "cancel", '"enough"')
    await admin.close()
    await store.close()


@pytest.mark.parametrize("bad", ["a\x00b", "\ud800"])
async def test_text_that_postgresql_cannot_store_is_refused_and_nothing_is_written(url, bad):
    store = make(url)
    await store.open(migrate=True)
    fence = await register(store)
    (run,) = await start_owned(store, fence, "order-1")
    batch = Batch(entries=[new_entry(run.row, "/a#1"), new_entry(run.row, "/b#1", value=bad)])
    with pytest.raises(WriteRefused):
        await store.commit(batch, fence)
    with pytest.raises(WriteRefused):
        await store.commit(Batch(starts=[new_run("order-2"), new_run("order-3", version=bad)]), None)
    tx = await store.begin(5.0)
    with pytest.raises(WriteRefused):
        await tx.commit(fence, new_entry(run.row, value=bad))
    assert await store.list_entries("order-1") == []
    assert await store.find_run("order-2") is None
    await store.close()


async def test_a_batch_too_large_for_one_statement_is_refused_so_that_it_is_split(url, monkeypatch):
    monkeypatch.setattr("outlive.store.postgres.commit.STATEMENT_MAX_CHARS", 1_000)
    store = make(url)
    await store.open(migrate=True)
    fence = await register(store)
    (run,) = await start_owned(store, fence, "order-1")
    entries = [new_entry(run.row, f"/a#{number}", seq=number, value=f'"{"x" * 600}"') for number in range(2)]
    with pytest.raises(WriteRefused, match="split"):
        await store.commit(Batch(entries=entries), fence)
    for entry in entries:
        await store.commit(Batch(entries=[entry]), fence)
    await store.close()


async def test_the_largest_payloads_go_through(url):
    store = make(url)
    await store.open(migrate=True)
    fence = await register(store)
    (run,) = await start_owned(store, fence, "order-1")
    large = f'"{"ž" * (16 * 1024 * 1024)}"'  # 32 MB
    entries = [new_entry(run.row, f"/a#{number}", seq=number, value=large) for number in range(2)]
    await store.commit(Batch(entries=entries), fence)
    assert [entry.value == large for entry in (await store.load_entries([run.row]))[run.row]] == [True, True]
    await store.close()
