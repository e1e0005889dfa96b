"""Databases and undisturbed courses for the crash suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash import databases, scenario
from tests.crash.children import Child
from tests.crash.records import Place, Record, read_ledger, read_record
from tests.support.postgres import shared_server

LEASE_S = 3.0  # a death is noticed at once, by the file lock; a short lease only limits transactions

MakeUrl = Callable[..., str]


def make_url(store: str, folder: Path, *, several: bool = False) -> str:
    """Give a database that holds nothing but the user's table; `several` processes will use it at once."""
    if store == "postgres":
        url = shared_server().fresh_database()
    else:
        url = f"sqlite:///{folder}/crash.db" + ("?driver=apsw" if several else "")
    databases.create_table(url, scenario.TABLE)
    return url


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
