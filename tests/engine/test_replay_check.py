"""Replay check: journals of a real database are tried on other code, which leaves no trace anywhere."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import outlive
from outlive import DecodeFailed, JournalMismatch, Outlive, RunNotFound, UsageError, VersionMissing, step, workflow
from outlive.testing import FrozenJournal, Report, replay

LIMIT_S = 20.0
executed: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    executed.clear()


@step
async def note(text: str) -> str:
    executed.append(text)
    return text


@step
def note_plainly(text: str) -> str:
    executed.append(text)
    return text


@step
async def other(text: str) -> str:
    executed.append(text)
    return text


@workflow(version="1")
async def nap(delay_s: float) -> float:
    await outlive.sleep(delay_s)
    return delay_s


@workflow(name="plan", version="1")
async def plan(text: str, nap_s: float = 3600) -> list[Any]:
    first = await note(text)
    outlive.now()
    child = await outlive.gather(nap(0), note("in a branch"))
    await outlive.sleep(nap_s)
    return [first, *child, await note("end")]


@workflow(name="plain", version="1")
def plain(nap_s: float) -> list[str]:
    first = note_plainly("plain")
    outlive.sync.sleep(nap_s)
    return [first, note_plainly("end")]


ALL = [plan, plain, nap]


async def record(url: str, tmp_path: Path, *, pin: bool = False) -> str:
    """Leave one run of each workflow that has ended and one that waits; give the file of their journals."""
    async with Outlive(url, include=ALL) as app:
        await app.run(plan, "ended", 0, id="plan-ended")
        await app.run(plain, 0, id="plain-ended")
        await app.start(plan, "waits", id="plan-waits")
        await app.start(plain, 3600, id="plain-waits")
        async with asyncio.timeout(LIMIT_S):
            while len(await (await app.get("plan-waits")).entries()) < 4:
                await asyncio.sleep(0.01)
            while not await (await app.get("plain-waits")).entries():
                await asyncio.sleep(0.01)
    file = tmp_path / "journals.jsonl"
    async with Outlive(url, worker=False, include=[]) as client:
        lines = [journal.to_line() async for journal in client.journals()]
    file.write_text("\n".join(lines))
    executed.clear()
    return str(file)


def found(reports: list[Report], prefix: str = "") -> dict[str, str]:
    """Give the verdicts on runs, without their children."""
    ours = [report for report in reports if report.run_id.startswith(prefix) and "/" not in report.run_id]
    return {report.run_id: report.verdict for report in ours}


async def replayed(file: str, *include: Any, **options: Any) -> list[Report]:
    return await asyncio.to_thread(replay, file, include=include, **options)


async def test_the_code_that_recorded_them_fits_all_journals(url: str, tmp_path: Path) -> None:
    file = await record(url, tmp_path)
    reports = await replayed(file, *ALL)
    assert set(found(reports).values()) == {"fits"}, reports
    assert len(reports) == 6  # with two children
    assert all(report.notes == () and report.ok for report in reports)


async def test_it_has_no_effect(url: str, tmp_path: Path) -> None:
    file = await record(url, tmp_path)
    async with Outlive(url, worker=False, include=[]) as client:
        before = [journal.to_line() async for journal in client.journals()]
        threads = threading.active_count()
        for _ in range(3):
            await replayed(file, *ALL)
        assert [journal.to_line() async for journal in client.journals()] == before
        assert threading.active_count() <= threads + 1  # that of to_thread
    assert executed == []
    assert not [thread for thread in threading.enumerate() if thread.name == "outlive-rehearsal"]


async def test_another_path_in_the_same_version_breaks_with_the_difference(url: str, tmp_path: Path) -> None:
    @workflow(name="plan", version="1")
    async def changed(text: str, nap_s: float = 3600) -> list[Any]:
        await other(text)
        return []

    reports = await replayed(await record(url, tmp_path), changed, plain, nap)
    assert found(reports, "plan-") == {"plan-ended": "breaks", "plan-waits": "breaks"}
    (report,) = [report for report in reports if report.run_id == "plan-waits"]
    assert isinstance(report.error, JournalMismatch)
    assert report.error.expected == "step 'note' (note#1)"
    assert report.error.got == "other#1"
    assert (report.recorded_version, report.code_version) == ("1", "1")
    assert "recorded  step 'note' (note#1)" in str(report)
    assert found(reports, "plain-") == {"plain-ended": "fits", "plain-waits": "fits"}


async def test_edits_of_another_version_are_noted(url: str, tmp_path: Path) -> None:
    @workflow(name="plan", version="2")
    async def edited(text: str, nap_s: float = 3600) -> list[Any]:
        first = await note(text)
        await other("new")
        return [first, await note("end")]

    reports = await replayed(await record(url, tmp_path), edited, plain, nap)
    assert found(reports, "plan-") == {"plan-ended": "edited", "plan-waits": "edited"}
    (report,) = [report for report in reports if report.run_id == "plan-waits"]
    assert report.ok
    assert "begins step 'other' (other#1), though 3 recorded outcomes lie beyond" in report.notes[0]
    assert executed == []


async def test_a_patch_fits(url: str, tmp_path: Path) -> None:
    @workflow(name="plan", version="2")
    async def patched(text: str, nap_s: float = 3600) -> list[Any]:
        if outlive.patched("greet"):
            await other("hello")
        first = await note(text)
        outlive.now()
        child = await outlive.gather(nap(0), note("in a branch"))
        await outlive.sleep(nap_s)
        return [first, *child, await note("end")]

    reports = await replayed(await record(url, tmp_path), patched, plain, nap)
    assert found(reports, "plan-") == {"plan-ended": "fits", "plan-waits": "fits"}


@workflow(name="plan", version="2")
async def raises(text: str, nap_s: float = 3600) -> list[Any]:
    first = await note(text)
    raise LookupError(first)


@workflow(name="plan", version="1")
async def ends_early(text: str, nap_s: float = 3600) -> list[Any]:
    return [await note(text)]


@workflow(name="plan", version="1")
async def takes_longer(text: str, nap_s: float = 3600) -> list[Any]:
    result = await plan.spec.function(text, nap_s)
    return [*result, await other("more")]


@workflow(name="plan", version="2")
async def takes_other_arguments(number: int) -> None: ...


@workflow(name="plan", version="2")
async def reads_other_results(text: str, nap_s: float = 3600) -> None:
    @step(name="note")
    async def counts(text: str) -> int:
        return 1

    await counts(text)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (raises, "the run would fail: builtins.LookupError: waits|the run would fail: LookupError: waits"),
        (ends_early, r"diverged at now#1"),
        (takes_other_arguments, "arguments of workflow plan"),
        (reads_other_results, "result of step note"),
    ],
)
async def test_what_breaks_is_told(url: str, tmp_path: Path, code: Any, told: str) -> None:
    reports = await replayed(await record(url, tmp_path), code, plain, nap)
    (report,) = [report for report in reports if report.run_id == "plan-waits"]
    assert report.verdict == "breaks"
    with pytest.raises(type(report.error), match=told):  # type: ignore[arg-type]
        raise report.error  # type: ignore[misc]


async def test_a_run_that_had_ended_is_to_end_the_same(url: str, tmp_path: Path) -> None:
    file = await record(url, tmp_path)
    longer = found(await replayed(file, takes_longer, plain, nap), "plan-")
    assert longer == {"plan-ended": "breaks", "plan-waits": "fits"}
    (report,) = [r for r in await replayed(file, raises, plain, nap) if r.run_id == "plan-ended"]
    assert "had ended as succeeded, this code ends it as failed" in str(report.error)


async def test_a_workflow_that_is_gone_breaks(url: str, tmp_path: Path) -> None:
    reports = await replayed(await record(url, tmp_path), plan, nap)
    assert found(reports, "plain-") == {"plain-ended": "breaks", "plain-waits": "breaks"}
    assert all("this code has no workflow 'plain'" in str(r.error) for r in reports if not r.ok)


async def test_a_pinned_run_stays_elsewhere(url: str) -> None:
    @workflow(name="pinned", version="1", pin=True)
    async def one() -> None:
        await outlive.sleep(3600)

    @workflow(name="pinned", version="2", pin=True)
    async def two() -> None: ...

    async with Outlive(url, include=[one]) as app:
        await app.start(one, id="pinned")
        journals = [journal async for journal in app.journals(ids=["pinned"])]
    (report,) = await asyncio.to_thread(replay, journals, include=[two])
    assert (report.verdict, report.ok) == ("elsewhere", True)
    assert isinstance(report.error, VersionMissing)
    assert report.error.pinned_to == "1"
    (report,) = await asyncio.to_thread(replay, journals, include=[one])
    assert report.verdict == "fits"


async def test_a_run_with_another_codec_is_told(url: str) -> None:
    async with Outlive(url, include=[nap]) as app:
        await app.run(nap, 0, id="run")
        (journal,) = [journal async for journal in app.journals("workflow:nap status:succeeded")]
    journal.codec = "sealed/1"
    (report,) = await asyncio.to_thread(replay, [journal], include=[nap])
    assert isinstance(report.error, DecodeFailed)


async def test_journals_of_runs_that_are_not_there_are_refused(url: str) -> None:
    async with Outlive(url, worker=False, include=[]) as client:
        with pytest.raises(RunNotFound):
            [journal async for journal in client.journals(ids=["nobody"])]
        with pytest.raises(UsageError, match="sleeping"):
            [journal async for journal in client.journals("status:sleeping")]
        with pytest.raises(UsageError, match="not by both"):
            [journal async for journal in client.journals("status:failed", ids="a")]
        assert [journal async for journal in client.journals()] == []


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "a"}', '{"id": "a", "created_at": 1}', b"\xff", "null"])
def test_a_line_that_is_no_journal_is_named(tmp_path: Path, line: str | bytes) -> None:
    file = tmp_path / "journals.jsonl"
    file.write_bytes(b"\n\n" + (line if isinstance(line, bytes) else line.encode()))
    with pytest.raises(UsageError, match=rf"^{file}, line 3: no journal of a run: .*`outlive runs export`"):
        replay(file, include=[])
    with pytest.raises(UsageError, match=r"^no journal of a run"):
        FrozenJournal.from_line(line)


def test_a_journal_survives_its_line() -> None:
    journal = FrozenJournal(
        id="a", row=1, workflow="w", version=None, status="queued", codec="c", input="", started_at=0
    )
    assert FrozenJournal.from_line(journal.to_line()) == journal
