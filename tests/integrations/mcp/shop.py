"""A shop whose workflows are tools of an MCP server: over HTTP `make_web`, over stdio `server`.

What it does to the world is in a ledger, a file of its own.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from mcp.server import Server
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl, BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import outlive
from outlive import Outlive, StepFailed, step, workflow
from outlive.agents import Ask, ToolCall, durable, question_tool
from outlive.integrations.mcp import mcp_server

LEDGER = "MCP_SHOP_LEDGER"


@dataclass
class Item:
    name: str
    price: int = 1


@dataclass
class Size:
    size: int


@dataclass
class User:
    username: str
    email: str


class Address(BaseModel):
    street: str


@dataclass
class Receipt:
    order: str
    cents: int
    sent_to: Address | None = None


class OutOfStock(Exception):
    def __init__(self, order: str) -> None:
        super().__init__(f"order {order} is out of stock")


@step
def write(line: str) -> None:
    if LEDGER in os.environ:
        with Path(os.environ[LEDGER]).open("a") as ledger:
            ledger.write(f"{line}\n")


async def note(line: str) -> None:
    """Write to the ledger, once."""
    await asyncio.to_thread(write, line)


@workflow
async def buy(
    order: str,
    items: list[Item],
    coupon: Annotated[str, msgspec.Meta(description="lowers the price")] = "",
    *,
    to: Address | None = None,
) -> Receipt:
    """Buy things.

    The receipt says what they cost.
    """
    await note(f"buy {order}")
    return Receipt(order, sum(item.price for item in items) - (coupon != ""), to)


@workflow
async def ship(order: str) -> str:
    """Ship an order, which takes as long as it takes."""
    await note(f"pack {order}")
    await outlive.publish("progress", "packed")
    where = await outlive.receive("go")
    await outlive.publish("progress", {"progress": 2, "total": 2, "message": f"sent to {where}"})
    await outlive.receive("end")
    await note(f"send {order}")
    return f"{order} is in {where}"


@workflow
async def measure(order: str) -> str:
    """Ask for the size."""
    await note(f"measure {order}")
    try:
        size: Size = await outlive.ask_user(f"Which size is {order}?", as_type=Size)
    except StepFailed as refused:
        return str(refused.text)
    colour = await outlive.ask_user("Which colour?")
    return f"{order}: {size.size}, {colour}"


@workflow
async def collect(order: str) -> str:
    """Ask for more than a form can hold."""
    items = await outlive.ask_user("Which items?", as_type=list[Item])
    return f"{order}: {', '.join(item.name for item in items)}"


@workflow
async def look_alike(order: str) -> str:
    """Wait for promises of the user's own that have topics of Outlive."""
    question = await outlive.promise(topic="question", about={"message": order})
    said = await question
    approval = await outlive.promise(topic="approval", about=[order])
    return f"{said}, {await approval}"


@workflow
async def sell_out(order: str) -> None:
    """Fail, always."""
    await note(f"fail {order}")
    raise OutOfStock(order)


@workflow(name="test_simple_text")
async def simple_text() -> str:
    """Say something; asked for by the conformance suite of MCP, as the two below."""
    return "This is a simple text response for testing."


@workflow(name="test_error_handling")
async def error_handling() -> None:
    """Fail."""
    raise ValueError("This tool intentionally returns an error for testing")


@workflow(name="test_elicitation")
async def elicitation(message: str) -> str:
    """Ask."""
    return f"User response: {await outlive.ask_user(message, as_type=User)}"


@workflow
async def find(order: str) -> None:
    """Ask a run that is not there."""
    await outlive.send(order, "hello", None)


async def _answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    if len(messages) == 1:
        return ModelResponse(parts=[ToolCallPart("refund", {"cents": 20_000}, tool_call_id="call-1")])
    return ModelResponse(parts=[TextPart(str(messages[-1].parts[0].content))])  # type: ignore[union-attr]


def support(role: str | None = None, quorum: int = 1) -> Any:
    """Give an agent that asks before it refunds."""
    agent = Agent(FunctionModel(_answer), name="support" if role is None else f"support-{role}")

    @agent.tool_plain
    async def refund(cents: int) -> str:
        await note(f"refund {cents}")
        return f"refunded {cents}"

    def policy(call: ToolCall) -> Ask:
        return Ask(role=role, quorum=quorum)

    return durable(agent, policy=policy)


def curious() -> Any:
    """Give an agent that asks its user something."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse([ToolCallPart("ask_user", {"question": "What is broken?"}, "ask-1")])
        return ModelResponse([TextPart(f"sorry about {messages[-1].parts[0].content}")])  # type: ignore[union-attr]

    return durable(Agent(FunctionModel(answer), name="curious", tools=[question_tool()]))


class Tokens:
    """Knows two people: `ana` of finance, and `bob`."""

    async def verify_token(self, token: str) -> AccessToken | None:
        scopes = {"ana": ["shop", "finance"], "bob": ["shop"]}
        if token not in scopes:
            return None
        return AccessToken(token=token, client_id="desk", scopes=scopes[token], subject=token)


TOOLS = [
    buy,
    ship,
    measure,
    collect,
    look_alike,
    sell_out,
    support(),
    support("finance"),
    curious(),
    find,
    simple_text,
    error_handling,
    elicitation,
]


def make_server(app: Outlive) -> Server[Any]:
    return mcp_server(app, TOOLS, name="shop", version="7", instructions="Buy something.")


def make_web() -> Any:
    if "MCP_SHOP_AUTH" not in os.environ:
        return server.streamable_http_app()
    here = AnyHttpUrl("http://127.0.0.1/")
    settings = AuthSettings(issuer_url=here, resource_server_url=None, required_scopes=["shop"])
    return server.streamable_http_app(auth=settings, token_verifier=Tokens())


server = make_server(Outlive(os.environ.get("OUTLIVE_URL", "sqlite://"), include=TOOLS))
