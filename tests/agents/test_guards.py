"""The loop around an agent: when it ends, what the agent hears, what a person decides, what replay repeats."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.usage import UsageLimits

import outlive
from outlive import GuardRefused, Outlive, RunRefused, UsageError, workflow
from outlive.agents import Guarded, NoRepeats, Review, Verifier, durable, guarded, pure, reviews
from outlive.limits import TREE_MAX_BYTES
from tests.agents.fixer import (
    BARE,
    CONFIGURATION,
    FILES,
    RIGHT,
    TESTS,
    WRONG,
    Play,
    call,
    fixer,
    hide,
    lay_out,
    write,
)
from tests.agents.scripts import scripted
from tests.agents.test_durable import LIMIT_S, leave_memory, waits_for

OTHER = WRONG.replace("a - b", "a * b")
HALF = WRONG.replace("a - b", "a if b == 0 else 0")


class Loop:
    """A workflow in which an agent plays, and what it heard and did."""

    def __init__(self, folder: Path, plays: Sequence[Play], **settings: Any) -> None:
        self.workspace = lay_out(folder / "project")
        self.told: list[str] = []
        self.feedback: list[str] = []
        self.agent = fixer(self.workspace, plays, heard=self.told.append)
        self.options: dict[str, Any] = {}
        self.settings = {"check": Verifier(environment=BARE), "workspace": self.workspace, **settings}

    def workflow(self) -> Any:
        @workflow(name="fix")
        async def fix(waits: bool = False) -> Guarded:
            numbers = itertools.count()

            async def attempt(feedback: str) -> None:
                self.feedback.append(feedback)
                await self.agent.run(str(next(numbers)), **self.options)

            done = await guarded(attempt, **self.settings)
            if waits:
                await outlive.receive("go on")
            return done

        return fix


@pytest.fixture
def loop(tmp_path: Path) -> Callable[..., Loop]:
    return lambda *plays, **settings: Loop(tmp_path, plays, **settings)


async def stopped(app: Outlive) -> Review:
    """Give the review that waits, once there is one."""
    async with asyncio.timeout(LIMIT_S):
        while not (page := await reviews(app).list()).items:
            await asyncio.sleep(0.01)
    (review,) = page.items
    return review


def verdicts(attempts: Sequence[Any]) -> list[str]:
    return [one["verdict"] if isinstance(one, dict) else one.verdict for one in attempts]


async def test_an_agent_corrects_itself_until_the_check_passes(url: str, loop: Any, tmp_path: Path) -> None:
    check = Verifier(hidden=hide(tmp_path / "hidden"), environment=BARE)
    played = loop(
        [write("calc.py", OTHER)],
        [write("calc.py", WRONG.replace("a - b", "3 if b == 2 else a"))],
        [write("calc.py", RIGHT), write("notes.md", "done")],
        check=check,
    )
    async with Outlive(url) as app:
        run = await app.start(played.workflow(), False)
        done = await run.result(timeout=LIMIT_S)
        keys = [entry.key for entry in await run.entries()]
    assert verdicts(done.attempts) == ["failed", "failed", "passed"]
    assert sorted(done.attempts[0].faults) == ["tests/test_calc.py::test_add", "tests/test_calc.py::test_add_zero"]
    assert list(done.attempts[1].faults) == ["<hidden>/test_more.py::test_other_numbers"]
    assert sorted(done.changes) == done.attempts[2].changed == ["calc.py", "notes.md"]
    assert done.accepted_by is None
    first, second, third = played.feedback
    assert first == ""
    assert "assert 2 == 3" in second
    assert "those that you do not know" in third
    assert "other_numbers" not in third
    assert "<hidden>" not in third
    loops = [key.removeprefix("guarded#1/") for key in keys if "/guard." in key]
    assert loops == ["guard.pin#1", *(f"guard.{what}#{n}" for n in (1, 2, 3) for what in ("prepare", "check"))]


async def test_replay_makes_no_attempt_and_checks_nothing(url: str, loop: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    noting = f"with open({str(ledger)!r}, 'a') as file:\n    file.write('checked\\n')\n"
    check = Verifier(environment=BARE, writable=[tmp_path])
    played = loop([write("calc.py", OTHER)], [write("calc.py", RIGHT)], check=check)
    lay_out(played.workspace, FILES | {"tests/test_calc.py": TESTS + noting})
    async with Outlive(url) as app:
        run = await app.start(played.workflow(), True)
        await waits_for(run, "receive")
        before, checks = list(played.told), ledger.read_text()
        lay_out(played.workspace)  # what is there now is nobody's business
        await leave_memory(app)
        await run.send("go on", None)
        done = await run.result(timeout=LIMIT_S)
    assert verdicts(done.attempts) == ["failed", "passed"]
    assert done.changes["calc.py"].content.decode() == RIGHT
    assert checks.splitlines() == ["checked"] * 3
    assert ledger.read_text() == checks
    assert played.told == before
    assert (played.workspace / "calc.py").read_text() == WRONG


@pytest.mark.parametrize(
    ("plays", "settings", "reason"),
    [
        ([OTHER, HALF, WRONG + "#"], {"attempts": 3}, "3 attempts were made, and none has passed"),
        (
            [OTHER, OTHER + "#", OTHER + "##"],
            {},
            "no progress: in 2 attempts there are no fewer faults than the 2 before",
        ),
        ([OTHER, HALF, OTHER], {}, "no progress: attempt 3 made the same change as attempt 1"),
    ],
    ids=["attempts", "no fewer faults", "same change"],
)
async def test_a_loop_that_gets_nowhere_asks_a_person(
    url: str, loop: Any, plays: list[str], settings: dict[str, Any], reason: str
) -> None:
    played = loop(*([write("calc.py", text)] for text in plays), **settings)
    async with Outlive(url) as app:
        run = await app.start(played.workflow(), False)
        review = await stopped(app)
        assert (review.run_id, review.what, review.reason) == (run.id, "guarded loop", reason)
        assert verdicts(review.facts["attempts"]) == ["failed"] * 3
        await leave_memory(app)
        await reviews(app).decide(review.id, "reject", by="ana", why="start over")
        with pytest.raises(GuardRefused, match="ana rejected it: start over") as caught:
            await run.result(timeout=LIMIT_S)
        assert (caught.value.reason, caught.value.by, caught.value.why) == (reason, "ana", "start over")
        with pytest.raises(RunRefused, match="it was decided, has expired, or never was"):
            await reviews(app).decide(review.id, "accept", by="bob")
        (note,) = [note for note in await app.audit(run.id) if note.action == "settle"]
        assert (note.by, note.reason, note.facts["decided"]) == ("ana", "start over", "reject")
    assert [line for line in played.told if line.startswith("model")] == [
        f"model {n}.{turn}" for n in range(3) for turn in (0, 1)
    ]


async def test_a_person_lets_the_agent_go_on_or_accepts_what_is_there(url: str, loop: Any) -> None:
    played = loop([write("tests/test_calc.py", "")], [write("calc.py", OTHER)], [write("calc.py", HALF)], attempts=2)
    async with Outlive(url) as app:
        run = await app.start(played.workflow(), False)
        review = await stopped(app)
        assert review.reason == "attempt 1 is refused: tests/test_calc.py is protected, and was changed"
        await reviews(app).decide(review.id, "again", by="ana", why="Leave the tests alone.")
        review = await stopped(app)
        assert review.reason == "2 attempts were made, and none has passed"
        assert verdicts(review.facts["attempts"]) == ["refused", "failed", "failed"]
        assert (played.workspace / "tests/test_calc.py").read_text() == TESTS
        await reviews(app).decide(review.id, "accept", by="bob")
        done = await run.result(timeout=LIMIT_S)
    assert done.accepted_by == "bob"
    assert done.changes["calc.py"].content.decode() == HALF
    heard = next(text for text in played.feedback if text)  # replays hear all of it again
    assert heard.startswith("Leave the tests alone.\n\nYour change was checked and does not pass.")
    assert "Refused: tests/test_calc.py is protected" in heard


async def test_nobody_decides_in_time(url: str, loop: Any) -> None:
    played = loop([write("tests/new.py", "")], expires=0.05)
    async with Outlive(url) as app:
        run = await app.start(played.workflow(), False)
        with pytest.raises(GuardRefused, match="nobody reviewed it in time"):
            await run.result(timeout=LIMIT_S)
        assert (await reviews(app).list()).items == []


async def test_an_impossible_task_never_passes(url: str, loop: Any) -> None:
    """The canary of the guard itself: if this passes, the guard is broken."""
    impossible = TESTS + "\n\ndef test_add_again():\n    assert add(1, 2) == 4\n"
    clever = WRONG.replace("a - b", "next(calls)").replace("def add", "calls = iter([3, 4, 4, 4])\n\n\ndef add", 1)
    plays = [[write("calc.py", text)] for text in (RIGHT, HALF, clever.replace("3, 4, 4, 4", "4, 3, 4"))]
    played = loop(*plays, attempts=3, patience=9, expires=0.05)
    lay_out(played.workspace, FILES | {"tests/test_calc.py": impossible})
    async with Outlive(url) as app:
        run = await app.start(played.workflow(), False)
        with pytest.raises(GuardRefused, match="3 attempts were made"):
            await run.result(timeout=LIMIT_S)


async def test_an_agent_that_goes_round_in_circles_is_stopped(url: str, loop: Any) -> None:
    circling = [write("calc.py", OTHER), *[call("reset") for _ in range(9)]]
    played = loop(circling)
    played.options = {"capabilities": [NoRepeats(times=3)]}
    async with Outlive(url) as app:
        run = await app.start(played.workflow(), False)
        review = await stopped(app)
        assert review.reason.startswith(
            "attempt 1 came to a limit: the last 3 calls, of reset at last, were made before"
        )
        assert review.facts["attempts"][0]["error"].startswith("RepeatedAction: ")
        await reviews(app).decide(review.id, "reject", by="ana")
        with pytest.raises(GuardRefused):
            await run.result(timeout=LIMIT_S)
    assert played.told[-1] == "model 0.4"


async def test_a_person_may_say_the_same_again(url: str) -> None:
    """Whoever asks four times gets four answers, and another one to another question."""
    asking = [[call("look")], "on its way"] * 4
    agent = Agent(scripted(*asking, "good-bye"), name="clerk", capabilities=[NoRepeats(times=3)])

    @agent.tool_plain(metadata=pure())
    async def look() -> str:
        return "on its way"

    @workflow
    async def talks() -> str:
        history: Any = None
        for _ in range(4):
            result = await clerk.run("Where is it?", message_history=history)
            history = result.all_messages()
        return (await clerk.run("Bye.", message_history=history)).output

    clerk = durable(agent)
    async with Outlive(url) as app:
        assert await app.run(talks) == "good-bye"


async def test_of_half_a_tree_nothing_is_taken(url: str, loop: Any) -> None:
    """What was not read is not deleted, though a person accepts."""
    played = loop([write("big.txt", "x" * TREE_MAX_BYTES), write("calc.py", RIGHT)])
    async with Outlive(url) as app:
        run = await app.start(played.workflow(), False)
        review = await stopped(app)
        assert "'calc.py' does not fit" in review.reason and "deleted" not in review.reason
        await reviews(app).decide(review.id, "accept", by="ana")
        done = await run.result(timeout=LIMIT_S)
    assert done.changes == {}


async def test_new_answers_are_no_repetition(url: str, loop: Any) -> None:
    there_and_back = [write("calc.py", OTHER), write("calc.py", HALF), call("reset"), write("calc.py", RIGHT)]
    played = loop([*there_and_back, *there_and_back])
    played.options = {"capabilities": [NoRepeats(times=5)]}
    async with Outlive(url) as app:
        done = await app.run(played.workflow(), False)
    assert verdicts(done.attempts) == ["passed"]


async def test_an_attempt_that_ends_badly_is_checked_all_the_same(url: str, loop: Any) -> None:
    played = loop([write("calc.py", OTHER), *[call("reset")] * 3], [write("calc.py", RIGHT), *[call("nothing")] * 3])
    played.options = {"usage_limits": UsageLimits(request_limit=2)}
    async with Outlive(url) as app:
        done = await app.run(played.workflow(), False)
    assert verdicts(done.attempts) == ["failed", "passed"]
    assert done.attempts[1].error.startswith("UsageLimitExceeded: ")


async def test_a_workspace_that_is_gone_is_written_anew(url: str, loop: Any) -> None:
    played = loop([write("calc.py", OTHER), write("more.py", "MORE = 1\n")], [write("calc.py", RIGHT)], attempts=1)
    async with Outlive(url) as app:
        run = await app.start(played.workflow(), False)
        review = await stopped(app)
        shutil.rmtree(played.workspace)  # the run goes on where there never was one
        await reviews(app).decide(review.id, "again", by="ana")
        done = await run.result(timeout=LIMIT_S)
    assert verdicts(done.attempts) == ["failed", "passed"]
    assert sorted(done.changes) == ["calc.py", "more.py"]
    assert (played.workspace / "pyproject.toml").read_text() == CONFIGURATION


async def test_what_is_no_project_is_refused_before_an_attempt(url: str, loop: Any, tmp_path: Path) -> None:
    def bare(played: Loop) -> None:
        lay_out(played.workspace, {"calc.py": WRONG, "tests/data.txt": ""})

    def linked(played: Loop) -> None:
        (played.workspace / "link").symlink_to("/etc")

    refused: list[tuple[dict[str, Any], Callable[[Loop], None], str]] = [
        ({}, linked, "'link' is a symbolic link"),
        ({}, bare, "cannot be executed before the first attempt"),
        ({"check": Verifier(protect=["tests", "test"])}, lambda _: None, "'test' protects nothing in"),
        ({"check": Verifier(hidden=tmp_path / "nowhere")}, lambda _: None, "nowhere' is no folder"),
        ({"attempts": 0}, lambda _: None, r"guarded\(attempts=…\) is a whole number of at least 1, not 0"),
        ({"patience": 1.5}, lambda _: None, r"guarded\(patience=…\) is a whole number"),
        ({"patience": True}, lambda _: None, r"guarded\(patience=…\) is a whole number of at least 1, not True"),
    ]
    async with Outlive(url) as app:
        for settings, change, why in refused:
            played = loop([], **settings)
            change(played)
            run = await app.start(played.workflow(), False)
            with pytest.raises(UsageError, match=why):
                await run.result(timeout=LIMIT_S)
            assert played.feedback == []


async def test_wrong_use_is_refused_where_it_is_written() -> None:
    with pytest.raises(UsageError, match=r"Verifier\(tests=…\) is a list of paths"):
        Verifier(tests="tests")
    with pytest.raises(UsageError, match=r"Verifier\(protect=…\) is a list of paths"):
        Verifier(protect=[])
    with pytest.raises(UsageError, match="list of folders"):
        Verifier(writable="data")
    for path in ("/tests", "../tests", 7):
        with pytest.raises(UsageError, match=r"Verifier\(protect=…\) takes paths within the workspace"):
            Verifier(protect=[path])  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"NoRepeats\(times=…\)"):
        NoRepeats(times=0)
    with pytest.raises(UsageError, match="guarded is for workflow bodies"):
        await guarded(lambda _: asyncio.sleep(0), check=Verifier(), workspace=".")


async def test_an_agent_that_may_write_tests_writes_more_of_them_and_takes_none_away(url: str, loop: Any) -> None:
    """With `protect` narrower than the tests: what is new counts, what is gone or asserts less is refused."""
    path = "tests/test_calc.py"
    more = f"{TESTS}\n\ndef test_more():\n    assert add(7, 8) == 15\n"
    check = Verifier(protect=["pyproject.toml"], environment=BARE)
    played = loop(
        [write("calc.py", RIGHT.replace("a + b", "a + b + (a == 7)")), write(path, more)],
        [write("calc.py", RIGHT)],
        check=check,
    )
    async with Outlive(url, include=[played.workflow()]) as app:
        done = await (await app.start("fix")).result(timeout=LIMIT_S)
    assert verdicts(done.attempts) == ["failed", "passed"]
    assert any("test_more" in name for name in done.attempts[0].faults)
    assert sorted(done.changes) == ["calc.py", path]


@pytest.mark.parametrize(
    ("fewer", "why"),
    [
        (TESTS.replace("assert add(1, 2) == 3", "assert add(1, 2)"), "test_add: assert add(1, 2) == 3 is gone"),
        (TESTS.replace("def test_add()", "def _test_add()"), "test_add"),
        (
            f"import pytest\n{TESTS.replace('def test_add()', '@pytest.mark.skip' + chr(10) + 'def test_add()')}",
            "skipped",
        ),
    ],
    ids=["weakened", "gone", "skipped"],
)
async def test_an_agent_that_may_write_tests_weakens_none(url: str, loop: Any, fewer: str, why: str) -> None:
    check = Verifier(protect=["pyproject.toml"], environment=BARE)
    played = loop([write("calc.py", RIGHT), write("tests/test_calc.py", fewer)], check=check)
    async with Outlive(url, include=[played.workflow()]) as app:
        run = await app.start("fix")
        review = await stopped(app)
        assert why in review.reason
        await reviews(app).decide(review.id, "reject", by="ana", why="tests stay")
        with pytest.raises(GuardRefused):
            await run.result(timeout=LIMIT_S)
