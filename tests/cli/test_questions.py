"""Questions on the command line: what is asked, which answers fit, one of them."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

import outlive
from outlive.questions import questions

PATIENCE_S = 30


@outlive.workflow
async def delivery() -> str:
    return str(await outlive.ask_user("Which \x1b[1mdoor?", as_type=Literal["front", "back"]))


@pytest.fixture(autouse=True)
def asked(url):
    """Leave a question that waits; give its id."""

    async def play():
        async with outlive.Outlive(url, include=[delivery]) as app, asyncio.timeout(PATIENCE_S):
            await app.start(delivery, id="parcel 1")
            while not (page := await questions(app).list()).items:
                await asyncio.sleep(0.01)
            return page.items[0].id

    return asyncio.run(play())


def finish(url):
    async def play():
        async with outlive.Outlive(url, include=[delivery]) as app:
            return await (await app.get("parcel 1")).result(PATIENCE_S)

    return asyncio.run(play())


def test_a_question_is_answered(run_cli, url, asked):
    titles, row = run_cli("questions", "ls").stdout.splitlines()
    assert titles.split() == "AGENT QUESTION ANSWER UNTIL (UTC) ID".split()
    assert "Which \\x1b[1mdoor?" in row and '"front"' in row and row.endswith(asked)
    (one,) = run_cli.json("questions", "ls", "--run", "parcel 1")["questions"]
    assert (one["id"], one["question"], one["schema"]) == (asked, "Which \x1b[1mdoor?", {"enum": ["back", "front"]})
    assert not run_cli("questions", "ls", "--limit", "1").stderr  # there is no more
    assert run_cli.json("questions", "ls", "--run", "another") == {"questions": [], "next": None}
    assert "is not one of" in run_cli("questions", "answer", asked, '"roof"', code=4).stderr
    said = run_cli("questions", "answer", asked, '"back"', "--by", "ana", "--why", "the dog")
    assert said.stdout == "the question is answered\n"
    assert "was answered, has expired" in run_cli("questions", "answer", asked, '"front"', code=4).stderr
    assert finish(url) == "back"
    (entry,) = run_cli.json("audit", "parcel 1")["audit"]
    assert (entry["by"], entry["reason"]) == ("ana", "the dog")


def test_a_question_is_declined(run_cli, url, asked):
    assert run_cli("questions", "decline", asked, "--by", "ana").stdout == "the question is declined\n"
    assert "was answered, has expired" in run_cli("questions", "decline", asked, code=4).stderr
    with pytest.raises(outlive.RunFailed, match="ana declined to answer"):
        finish(url)


def test_wrong_usage_ends_with_2(run_cli, asked):
    assert "an answer is JSON" in run_cli("questions", "answer", asked, "back", code=2).stderr
    assert "the id of this question is" in run_cli("questions", "answer", "parcel", "1", code=2).stderr


def test_without_the_extra_there_is_a_way_to_go_on(run_cli, asked, tmp_path):
    (tmp_path / "jsonschema.py").write_text("raise ImportError('not installed')")
    command = run_cli.start("questions", "answer", asked, '"back"')
    _, said = command.communicate(timeout=PATIENCE_S)
    assert (command.returncode, said) == (
        2,
        "outlive: what people answer is checked with jsonschema: pip install 'outlive[agents]'\n",
    )
