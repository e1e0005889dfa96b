"""Databases and undisturbed courses for the crash suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash import databases, scenario
from tests.crash.children import Child
from tests.crash.records import Place, Record, read_ledger, read_record
from tests.support.postgres import shared_server
from tests.support.size import CALM_LEASE_S

LEASE_S = CALM_LEASE_S

MakeUrl = Callable[..., str]


_given: list[str] = []


def make_url(store: str, folder: Path, *, several: bool = False, bare: bool = False) -> str:
    """Give a database that holds nothing but the user's table; `several` processes will use it at once.

    One of PostgreSQL has its schema already, unless it is to be `bare`. It may be used until the test ends.
    """
    if store == "postgres":
        server = shared_server()
        url = server.fresh_database() if bare else server.migrated_database()
        _given.append(url)
    else:
        url = f"sqlite:///{folder}/crash.db" + ("?driver=apsw" if several else "")
    databases.create_table(url, scenario.TABLE)
    return url


@pytest.fixture(autouse=True)
def _take_back() -> Iterator[None]:
    yield
    while _given:
        shared_server().take_back(_given.pop())


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Record, Counter[Place]]]:
    """Give what a course without any fault leaves behind, by store; each is run once."""
    known: dict[str, tuple[Record, Counter[Place]]] = {}

    def give(store: str) -> tuple[Record, Counter[Place]]:
        if store not in known:
            folder = tmp_path_factory.mktemp(f"undisturbed-{store}")
            url = make_url(store, folder)
            with Child("drive", url, folder, lease_s=LEASE_S) as child:
                child.wait_done()
            known[store] = read_record(url), Counter(read_ledger(folder))
        return known[store]

    return give
