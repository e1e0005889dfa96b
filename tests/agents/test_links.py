"""Links by which people decide: a real server on loopback, real requests; only what a signature covers counts."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx2 as httpx
import pytest
import uvicorn
from fastapi import FastAPI
from pydantic_ai import Agent
from pydantic_ai.models.function import FunctionModel

import outlive
from outlive import Outlive, hooks
from outlive.agents import Approval, ApprovalLinks, Ask, approval_links, approvals, durable
from outlive.integrations import fastapi
from tests.agents.scripts import call, scripted
from tests.agents.test_approvals import asks, refunder, waiting
from tests.agents.test_durable import LIMIT_S, Told
from tests.support.faults import PointFault, arm_faults

SECRET, OLDER = "s" * 40, "o" * 40
APPROVE, DENY = {"decision": "approve", "why": ""}, {"decision": "deny", "why": "not today"}


@asynccontextmanager
async def serving(
    url: str, *agents: Any, secret: Any = SECRET
) -> AsyncIterator[tuple[Outlive, ApprovalLinks, httpx.AsyncClient]]:
    """Serve links below a prefix of an application, in a server of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = Outlive(url, include=agents)
    links = approval_links(app, secret, url=f"http://127.0.0.1:{listener.getsockname()[1]}/ops/approvals")
    web = FastAPI(lifespan=fastapi.lifespan(app))
    web.mount("/ops/approvals", links)
    server = uvicorn.Server(uvicorn.Config(web, log_level="error", ws="none"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(LIMIT_S):
            while not server.started:
                assert not task.done(), task
                await asyncio.sleep(0.01)
        async with httpx.AsyncClient(timeout=LIMIT_S, trust_env=False) as client:
            yield app, links, client
    finally:
        server.should_exit = True
        await task


async def test_a_call_is_decided_by_its_link(url: str) -> None:
    agent = refunder(told := Told(), asks(role="finance"))
    async with serving(url, agent) as (app, links, client):
        run = await app.start(agent, "refund", id="run 1")
        (one,) = await waiting(app)
        link = links.url(one, by="ana")
        shown = await client.get(link)
        assert shown.status_code == 200
        for words in ("ana, the agent clerk asks to call refund", "&quot;cents&quot;: 17", "You decide as finance."):
            assert words in shown.text
        done = await client.post(link, data={"decision": "approve", "why": "known for years"})
        assert (done.status_code, "You have approved this call of refund" in done.text) == (200, True)
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"
        (entry,) = await app.audit(run.id)
        assert (entry.by, entry.reason) == ("ana", "known for years")
    assert told == ["model 0", "refund 17", "model 1"]


async def test_a_call_is_denied_by_its_link(url: str) -> None:
    agent = refunder(told := Told(), asks())
    async with serving(url, agent) as (app, links, client):
        run = await app.start(agent, "refund")
        (one,) = await waiting(app)
        assert (await client.post(links.url(one, by="ana"), data=DENY)).status_code == 200
        assert "ana denied this call: not today" in await run.result(timeout=LIMIT_S)
    assert told == ["model 0", "model 1"]


async def test_opening_a_link_decides_nothing(url: str) -> None:
    """Scanners of mail, previews of chats and browsers that look ahead open every link."""
    agent = refunder(told := Told(), asks())
    async with serving(url, agent) as (app, links, client):
        await app.start(agent, "refund")
        (one,) = await waiting(app)
        link = links.url(one, by="ana")
        for address in (link, f"{link}&decision=approve", f"{link}&decision=approve&why="):
            assert (await client.get(address)).status_code == 200
            head = await client.head(address)
            assert (head.status_code, head.content) == (200, b"")
        assert await waiting(app) == [one]
    assert told == ["model 0"]


async def test_a_link_is_used_once(url: str) -> None:
    agent = refunder(told := Told(), asks())
    async with serving(url, agent) as (app, links, client):
        run = await app.start(agent, "refund")
        (one,) = await waiting(app)
        ana, bob = links.url(one, by="ana"), links.url(one, by="bob")
        clicks = await asyncio.gather(*(client.post(link, data=APPROVE) for link in (ana, bob, ana, bob)))
        first, *others = sorted(click.status_code for click in clicks)
        assert first == 200
        assert set(others) <= {409, 410}
        for again in (await client.post(ana, data=DENY), await client.get(bob)):
            assert (again.status_code, "waits for nobody any more" in again.text) == (410, True)
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"
        assert len(await app.audit(run.id)) == 1
    assert told.count("refund 17") == 1


def swapped(link: str) -> str:
    """Change one character in the middle of what a link carries."""
    middle = (link.index("=") + link.index(".", link.index("="))) // 2
    return link[:middle] + ("A" if link[middle] != "A" else "B") + link[middle + 1 :]


FORGERIES: dict[str, Callable[[str, str], str]] = {
    "none": lambda link, _: link.partition("?")[0],
    "empty": lambda link, _: link.partition("=")[0] + "=",
    "altered": lambda link, _: swapped(link),
    "unsigned": lambda link, _: link.rpartition(".")[0],
    "empty signature": lambda link, _: link.rpartition(".")[0] + ".",
    "signature altered": lambda link, _: link[:-2] + ("A" if link[-2] != "A" else "B") + link[-1],
    "signature cut": lambda link, _: link[:-1],
    "signature of another link": lambda link, other: link.rpartition(".")[0] + "." + other.rpartition(".")[2],
    "no letters": lambda link, _: link + quote("é\0"),
    "twice": lambda link, other: f"{link.partition('?')[0]}?link=x&{other.partition('?')[2]}",
}


async def test_a_forged_link_is_refused(url: str) -> None:
    agent = refunder(told := Told(), asks())
    async with serving(url, agent) as (app, links, client):
        await app.start(agent, "refund")
        (one,) = await waiting(app)
        for name, forge in FORGERIES.items():
            forged = forge(links.url(one, by="ana"), links.url(one, by="bob"))
            for answer in (await client.get(forged), await client.post(forged, data=APPROVE)):
                assert (answer.status_code, "This link is not valid" in answer.text) == (403, True), name
        assert await waiting(app) == [one]
    assert told == ["model 0"]


async def test_a_link_of_another_secret_is_refused(url: str) -> None:
    agent = refunder(Told(), asks())
    async with serving(url, agent) as (app, links, client):
        await app.start(agent, "refund")
        (one,) = await waiting(app)
        forged = approval_links(app, OLDER, url=links.url(one, by="ana").partition("?")[0]).url(one, by="ana")
        assert (await client.post(forged, data=APPROVE)).status_code == 403
        assert await waiting(app) == [one]


async def test_secrets_are_replaced_while_links_are_out(url: str) -> None:
    agent = refunder(Told(), asks(quorum=2))
    async with serving(url, agent, secret=[SECRET, OLDER]) as (app, links, client):
        run = await app.start(agent, "refund")
        (one,) = await waiting(app)
        base = links.url(one, by="ana").partition("?")[0]
        before = approval_links(app, OLDER, url=base).url(one, by="ana")
        assert (await client.post(before, data=APPROVE)).status_code == 200
        async with asyncio.timeout(LIMIT_S):
            while not (found := (await approvals(app).list()).items):
                await asyncio.sleep(0.01)
        assert links.url(found[0], by="bob") == approval_links(app, SECRET, url=base).url(found[0], by="bob")
        assert (await client.post(links.url(found[0], by="bob"), data=APPROVE)).status_code == 200
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"


async def test_a_link_expires(url: str) -> None:
    agent = refunder(Told(), asks())
    async with serving(url, agent) as (app, links, client):
        await app.start(agent, "refund")
        (one,) = await waiting(app)
        link = links.url(one, by="ana", expires=0)
        for answer in (await client.get(link), await client.post(link, data=APPROVE)):
            assert (answer.status_code, "has expired" in answer.text) == (410, True)
        assert await waiting(app) == [one]
        assert links.url(one, by="ana", expires=365 * 86_400) == links.url(one, by="ana"), "longer than the question"


async def test_a_link_is_void_when_the_call_has_other_arguments(url: str) -> None:
    """What Ana approves is what Ana was sent: after a rewind the model may want something else at the same place."""
    cents = [17]

    async def answer(messages: Any, info: Any) -> Any:
        return await scripted([call("refund", "c1", cents=cents[0])], "{results}").function(messages, info)  # type: ignore[misc]

    told = Told()
    agent = Agent(FunctionModel(answer), name="clerk")

    @agent.tool_plain
    async def refund(cents: int) -> str:
        told.append(f"refund {cents}")
        return f"refunded {cents}"

    clerk = durable(agent, policy=lambda _: Ask(role="finance"))
    async with serving(url, clerk) as (app, links, client):
        run = await app.start(clerk, "refund")
        (first,) = await waiting(app)
        link = links.url(first, by="ana")
        for cents[0], status in ((1_700, 409), (17, 410)):
            await run.rewind("clerk#1/model#1")
            again = await asked_after(app, first)
            assert again.id == first.id
            for refused in (await client.get(link), await client.post(link, data=APPROVE)):
                assert (refused.status_code, "Ask for a new one" in refused.text) == (status, True)
        assert told == []
        assert (await client.post(links.url(again, by="ana"), data=APPROVE)).status_code == 200
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"


async def test_a_link_that_was_used_is_void_when_the_question_is_asked_again(url: str) -> None:
    """After a rewind that keeps what led to it: the time of the run is the same as it was."""
    agent = refunder(told := Told(), asks())
    async with serving(url, agent) as (app, links, client):
        run = await app.start(agent, "refund")
        (one,) = await waiting(app)
        link = links.url(one, by="ana")
        assert (await client.post(link, data=DENY)).status_code == 200
        await run.result(timeout=LIMIT_S)
        (key,) = [entry.key for entry in await run.entries() if entry.kind == "promise"]
        await run.rewind(key)
        again = await asked_after(app, one)
        for refused in (await client.get(link), await client.post(link, data=APPROVE)):
            assert (refused.status_code, "asked for again" in refused.text) == (410, True)
        assert "refund 17" not in told
        assert (await client.post(links.url(again, by="ana"), data=APPROVE)).status_code == 200
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"


async def asked_after(app: Outlive, before: Approval) -> Approval:
    """Give the approval that waits in the place of one."""
    async with asyncio.timeout(LIMIT_S):
        while not (found := (await approvals(app).list()).items) or found[0].created_at <= before.created_at:
            await asyncio.sleep(0.01)
    return found[0]


async def test_a_second_vote_needs_a_second_person(url: str) -> None:
    agent = refunder(Told(), asks(quorum=2))
    async with serving(url, agent) as (app, links, client):
        run = await app.start(agent, "refund")
        (one,) = await waiting(app)
        assert (await client.post(links.url(one, by="ana"), data=APPROVE)).status_code == 200
        second = await asked_after(app, one)
        assert "Approved by 1 of 2" in (await client.get(links.url(second, by="bob"))).text
        again = await client.post(links.url(second, by="ana"), data=APPROVE)
        assert (again.status_code, "ana has approved this call" in again.text) == (409, True)
        assert (await client.post(links.url(second, by="bob"), data=APPROVE)).status_code == 200
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"


async def test_two_people_get_their_links_at_one_time(url: str) -> None:
    """The vote of one makes another promise of the call; the link of the other leads to that."""
    agent = refunder(Told(), asks(quorum=2, role="finance"))
    async with serving(url, agent) as (app, links, client):
        run = await app.start(agent, "refund")
        (one,) = await waiting(app)
        ana, bob = (links.url(one, by=name) for name in ("ana", "bob"))
        assert (await client.post(ana, data=APPROVE)).status_code == 200
        second = await asked_after(app, one)
        again = await client.post(ana, data=APPROVE)
        assert (again.status_code, "ana has approved this call" in again.text) == (409, True)
        denied = await client.post(ana, data=DENY)
        assert (denied.status_code, "a link is used once" in denied.text) == (410, True)
        assert await approvals(app).find(one.id) is None
        assert await approvals(app).find(one.id, digest=one.digest) == second
        assert "Approved by 1 of 2" in (await client.get(bob)).text
        assert (await client.post(bob, data=APPROVE)).status_code == 200
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"
        assert (await client.post(bob, data=APPROVE)).status_code == 410


async def test_a_link_counts_no_vote_on_a_call_that_was_asked_for_anew(url: str) -> None:
    told = Told()
    agent = refunder(told, asks(quorum=2))
    async with serving(url, agent) as (app, links, client):
        run = await app.start(agent, "refund")
        (one,) = await waiting(app)
        ana, bob = (links.url(one, by=name) for name in ("ana", "bob"))
        await run.rewind("clerk#1/model#1")
        again = await asked_after(app, one)
        assert (await client.post(links.url(again, by="cleo"), data=APPROVE)).status_code == 200
        await asked_after(app, again)
        for link in ana, bob:
            refused = await client.post(link, data=APPROVE)
            assert (refused.status_code, "asked for again" in refused.text) == (410, True)
        assert "refund 17" not in told


async def test_nothing_that_a_model_writes_is_html(url: str) -> None:
    """Arguments are written by a model, or by whoever wrote what the model has read."""
    hostile = "</pre><script>alert(1)</script>\u202e'\"><form action=//evil>&amp;"
    agent = Agent(scripted([call("mail", "c1", text=hostile)], "{results}"), name="clerk")

    @agent.tool_plain
    async def mail(text: str) -> str:
        return "sent"

    clerk = durable(agent, policy=lambda _: Ask(role="<b>boss"))
    async with serving(url, clerk) as (app, links, client):
        await app.start(clerk, "mail", id="<i>run")
        (one,) = await waiting(app)
        shown = await client.get(links.url(one, by="<u>ana"))
        body = re.sub(r"<style>.*?</style>", "", shown.text, flags=re.DOTALL)
        tags = "!doctype body button button form head html label meta meta meta p p pre textarea title"
        assert " ".join(sorted(re.findall(r"<([!\w]+)", body))) == tags
        assert "&lt;/pre&gt;&lt;script&gt;alert(1)" in body
        assert "\u202e" not in body and "\\u202e" in body
        for name, value in {
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "content-type": "text/html; charset=utf-8",
        }.items():
            assert shown.headers[name] == value
        policy = shown.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "form-action 'self'" in policy


NO_FORMS: list[tuple[int, dict[str, Any]]] = [
    (405, {"method": "PUT"}),
    (405, {"method": "DELETE"}),
    (415, {"method": "POST"}),
    (415, {"method": "POST", "json": APPROVE}),
    (400, {"method": "POST", "data": {"why": "yes"}}),
    (400, {"method": "POST", "data": {"decision": "maybe"}}),
    (400, {"method": "POST", "data": {**APPROVE, "why": "a\0b"}}),
    (413, {"method": "POST", "data": {**APPROVE, "why": "long " * 4_000}}),
    (400, {"method": "POST", "data": {**APPROVE, **{str(n): "" for n in range(20)}}}),
]


async def test_what_is_no_form_of_the_page_decides_nothing(url: str) -> None:
    agent = refunder(Told(), asks())
    async with serving(url, agent) as (app, links, client):
        await app.start(agent, "refund")
        (one,) = await waiting(app)
        for status, request in NO_FORMS:
            answer = await client.request(url=links.url(one, by="ana"), **request)
            assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store"), request
        assert await waiting(app) == [one]


async def test_a_form_that_is_cut_off_decides_nothing(url: str) -> None:
    agent = refunder(Told(), asks())
    async with serving(url, agent) as (app, links, _):
        await app.start(agent, "refund")
        (one,) = await waiting(app)
        link = httpx.URL(links.url(one, by="ana"))
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        head = f"POST {link.raw_path.decode()} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
        form = "Content-Type: application/x-www-form-urlencoded\r\n\r\ndecision=approve"
        writer.write((head + form).encode())
        writer.write_eof()
        await reader.read()
        writer.close()
        assert await waiting(app) == [one]


async def test_a_decision_whose_reply_was_lost_has_counted(url: str) -> None:
    agent = refunder(Told(), asks())
    async with serving(url, agent) as (app, links, client):
        run = await app.start(agent, "refund")
        (one,) = await waiting(app)
        arm_faults([PointFault("settle.after", "lose_reply")])
        try:
            lost = await client.post(links.url(one, by="ana"), data=APPROVE)
        finally:
            hooks.arm(None)
        assert (lost.status_code, "may have counted" in lost.text) == (503, True)
        assert (await client.get(links.url(one, by="ana"))).status_code == 410
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": "short"},
        {"secret": []},
        {"secret": [SECRET, "short"]},
        {"secret": [SECRET.encode()]},
        {"url": "/approvals"},
        {"url": "https://shop/approvals?tenant=1"},
    ],
    ids=str,
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    settings = {"secret": SECRET, "url": "https://shop/approvals", **wrong}
    with pytest.raises(outlive.UsageError):
        approval_links(Outlive("sqlite://"), **settings)


async def test_a_link_to_nobody(url: str) -> None:
    agent = refunder(Told(), asks())
    async with Outlive(url) as app:
        await app.start(agent, "refund")
        (one,) = await waiting(app)
        with pytest.raises(outlive.UsageError, match="says who it is"):
            approval_links(app, SECRET, url="https://shop/approvals").url(one, by="")
