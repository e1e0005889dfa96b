"""What a type checker makes of the sync face. Checked by mypy, not run."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, assert_type

from outlive import Item, Page, RunInfo, Status, sync


def programs(url: str) -> None:
    with sync.Outlive(url, worker=False) as app:
        assert_type(app, sync.Outlive)
        run = app.start("some", 1, id="one", attributes={"a": 1})
        assert_type(run, sync.Run)
        assert_type(run.status(), Status)
        assert_type(run.stream("numbers"), Iterator[Item])
        assert_type(run.fork("key"), sync.Run)
        assert_type(app.runs().page(), Page[RunInfo, int])
        assert_type(list(app.runs(status="failed")), list[RunInfo])
        assert_type(app.backfill_schedule("a", datetime.now(), datetime.now()), list[sync.Run])  # noqa: DTZ005
        app.start("some", priority="high")  # type: ignore[arg-type]
        app.get()  # type: ignore[call-arg]


def bodies() -> None:
    sync.sleep(days=3)
    assert_type(sync.now(), datetime)
    assert_type(sync.start("some"), sync.Run)
    assert_type(sync.promise().result(), Any)
    sync.receive("topic", 5.0, default=None)
    sync.receive()  # type: ignore[call-arg]
