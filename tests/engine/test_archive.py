"""The file that pruned runs go to: what is no archive is left as it is, and nothing is deleted that is not in one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import outlive
from outlive import Outlive, RunFailed, UsageError, step, workflow
from outlive.codec import Codec, JsonCodec
from outlive.testing import FrozenJournal, replay
from tests.engine.test_codecs import Sealed


@workflow
async def greets(name: str) -> str:
    return f"hello {name}"


async def finish(app: Outlive, *names: str) -> None:
    for name in names:
        await app.run(greets, name, id=name)


@pytest.mark.parametrize("archive", [5, b"runs.jsonl", True, ["runs.jsonl"], "", "a\0b"], ids=repr)
async def test_what_is_no_path(url: str, archive: Any) -> None:
    async with Outlive(url, include=[greets]) as app:
        await finish(app, "ada")
        with pytest.raises(UsageError, match=r"archive"):
            await app.prune(0, archive=archive)
        assert await app.count() == 1


@pytest.mark.parametrize(
    "place", ["none/runs.jsonl", "", "file/runs.jsonl"], ids=["no folder", "a folder", "in a file"]
)
async def test_a_file_that_cannot_be_written(url: str, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    async with Outlive(url, include=[greets]) as app:
        await finish(app, "ada")
        with pytest.raises(
            UsageError, match=rf"archive '{tmp_path}.*' cannot be written: .*; no run was deleted that"
        ) as said:
            await app.prune(0, archive=tmp_path / place)
        assert isinstance(said.value.__cause__, OSError)
        assert await app.count() == 1


@pytest.mark.parametrize(
    "found",
    [
        "no line at all",
        "a,b\n1,2\n",
        "a,b\n1,2\nthe last line has no end",
        '{"id": "of something else"}\n',
        '{"id":"x","workflow":"y"}\n{"id":"torn',
        "[1, 2]\n",
        "\n",
        '{"name":"torn',
        FrozenJournal(
            id="a", row=1, workflow="greets", version="1", status="queued", codec="json/1", input="{}", started_at=0
        ).to_line()
        + "\n",
    ],
)
async def test_a_file_that_is_no_archive_is_left_as_it_is(url: str, tmp_path: Path, found: str) -> None:
    file = tmp_path / "data"
    file.write_text(found)
    async with Outlive(url, include=[greets]) as app:
        await finish(app, "ada")
        with pytest.raises(UsageError, match=rf"'{file}' is no archive .*name another file"):
            await app.prune(0, archive=str(file))
        assert await app.count() == 1
    assert file.read_text() == found


@pytest.mark.parametrize("tail", ["", "{", '{"id":"ev', '{"id":"eve","workflow":"greets"', "followed by foreign text"])
async def test_an_archive_goes_on_and_loses_only_its_torn_line(url: str, tmp_path: Path, tail: str) -> None:
    file = tmp_path / "runs.jsonl"
    async with Outlive(url, include=[greets]) as app:
        await finish(app, "ada")
        assert await app.prune(0, archive=file) == 1
        with file.open("a") as opened:
            opened.write(tail)
        await finish(app, "bob")
        if "foreign" in tail:
            with pytest.raises(UsageError, match="is no archive"):
                await app.prune(0, archive=file)
            assert file.read_text().endswith(tail)
            return
        assert await app.prune(0, archive=file) == 1
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["ada", "bob"]


@pytest.mark.parametrize("begun", ["", "{", '{"id":"ada","work'])
async def test_an_archive_whose_only_line_is_torn(url: str, tmp_path: Path, begun: str) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text(begun)
    async with Outlive(url, include=[greets]) as app:
        await finish(app, "ada")
        assert await app.prune(0, archive=file) == 1
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["ada"]


@step
async def gives(value: Any) -> Any:
    if value == "wrong":
        raise ValueError(value)
    return value


@workflow
async def collects(value: Any, again: int = 0) -> list[Any]:
    if again:
        await outlive.continue_as_new(value, again - 1)
    child = await greets(str(value))
    return [child, outlive.random(), outlive.now(), await gives(None), await gives(value)]


@pytest.mark.parametrize("codec", [JsonCodec(), Sealed()], ids=lambda codec: codec.id)
async def test_an_archive_has_the_journals_and_is_replayed(url: str, tmp_path: Path, codec: Codec) -> None:
    file, code = tmp_path / "runs.jsonl", [collects, greets]
    async with Outlive(url, include=code, codec=codec) as app:
        await app.run(collects, "zoë\n", id="ended")
        await app.run(collects, 5, 2, id="continued")
        with pytest.raises((RunFailed, ValueError)):
            await app.run(collects, "wrong", id="failed")
        await (await app.start(collects, "x", id="rewound", deadline=3600)).result()
        rewound = await app.get("rewound")
        await rewound.rewind("gives#1")
        await rewound.result()
        journals = {one.id: one async for one in app.journals()}
        assert await app.prune(0, archive=file) == len(journals) == 8
    lines = file.read_text().splitlines()
    for entry in (entry for journal in journals.values() for entry in journal.entries):
        entry.value = None if entry.value == "null" else entry.value  # to replay they are one
    assert {one.id: one for one in map(FrozenJournal.from_line, lines)} == journals
    reports = await asyncio.to_thread(replay, file, include=code, codec=codec)
    assert {report.run_id: report.verdict for report in reports} == dict.fromkeys(journals, "fits"), reports
