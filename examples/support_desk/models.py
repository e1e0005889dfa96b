"""The model of the desk: one that plays a clerk without any network, or any server that speaks as OpenAI's does.

SUPPORT_DESK_MODEL_URL, SUPPORT_DESK_MODEL and SUPPORT_DESK_MODEL_KEY name a server, a model and a key.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator

from pydantic_ai.messages import ModelMessage, ModelRequest, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from support_desk.servers import FOLDER

PACE_S = float(os.environ.get("SUPPORT_DESK_PACE", "0.05"))  # between two words of the played clerk


def choose_model() -> Model:
    """Give the model that the environment names, or else the one that plays."""
    url = os.environ.get("SUPPORT_DESK_MODEL_URL")
    if not url:
        return FunctionModel(stream_function=play, model_name="played")
    import httpx2
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    sender = httpx2.AsyncClient(timeout=600, limits=httpx2.Limits(max_keepalive_connections=0))
    key = os.environ.get("SUPPORT_DESK_MODEL_KEY", "none")
    client = AsyncOpenAI(base_url=url, api_key=key, http_client=sender)
    name = os.environ.get("SUPPORT_DESK_MODEL", "gpt-5-mini")
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))


async def play(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Say what a clerk would say, from the history alone: what he does next, or the words for what came of it."""
    done = decide(messages, {tool.name for tool in info.function_tools})
    if isinstance(done, ToolCallPart):
        yield {0: DeltaToolCall(done.tool_name, json.dumps(done.args), tool_call_id=done.tool_call_id)}
        return
    for word in re.findall(r"\S+\s*", done):
        await asyncio.sleep(PACE_S)
        yield word


def decide(messages: list[ModelMessage], tools: set[str]) -> ToolCallPart | str:
    """Give the next call of one of the tools, or an answer."""
    parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
    prompts = [place for place, part in enumerate(parts) if isinstance(part, UserPromptPart)]
    said = str(getattr(parts[prompts[-1]], "content", ""))
    results = {
        part.tool_name: part for part in parts[prompts[-1] :] if part.part_kind in ("tool-return", "retry-prompt")
    }
    everything = " ".join(str(getattr(parts[place], "content", "")) for place in prompts)
    call_id = f"call-{sum(part.part_kind in ('tool-return', 'retry-prompt') for part in parts) + 1}"
    if re.search(r"\bpolicy\b|\brules?\b", said, re.IGNORECASE):
        read = results.get("read_text_file")
        if read is None and "read_text_file" in tools:
            return ToolCallPart("read_text_file", {"path": str(FOLDER / "refunds.md")}, tool_call_id=call_id)
        return f"Our policy: {read.content}" if read else "Ask me about an order; I have no policies at hand."
    numbers = re.findall(r"\border (?:number |no\. ?)?#?(\d+)", everything, re.IGNORECASE)
    if not numbers:
        return "I am glad to help. What is the number of your order? Say: order 17."
    order = int(numbers[-1])
    found = results.get("find_order")
    if found is None:
        return ToolCallPart("find_order", {"order": order}, tool_call_id=call_id)
    if not isinstance(found, ToolReturnPart):
        return f"I cannot find order {order}. {found.content}"
    facts = found.content
    assert isinstance(facts, dict)
    if not re.search(r"refund|money|back|broken", said, re.IGNORECASE):
        return f"Order {order} is {facts['item']} for {facts['cents'] / 100:.2f}. Is anything wrong with it?"
    paid = results.get("refund")
    if paid is None:
        return ToolCallPart("refund", {"order": order, "cents": facts["cents"]}, tool_call_id=call_id)
    if not str(paid.content).startswith("refunded"):
        return f"I am sorry, I could not do that: {paid.content}"
    if "send_mail" not in results:
        mail = {"to": facts["to"], "text": f"Dear customer, we have {paid.content}."}
        return ToolCallPart("send_mail", mail, tool_call_id=call_id)
    return f"Your money is on its way: {paid.content}. You have an e-mail that says so."
