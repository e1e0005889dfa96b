"""What a model request may use, before it is sent, and what it has used: tokens and dollars.

Knows messages and prices; must not know budgets, runs or the ledger. An estimate
is careful: what the last answer has told of its own tokens is taken as it is, the
rest is counted by its bytes. Prices are those of genai-prices, which Pydantic AI
uses too, unless they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from genai_prices import calc_price
from pydantic_ai.durable_exec import JSON_CODEC
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import BinaryContent, FileUrl, ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.usage import RequestUsage

from outlive.agents.budget import Price
from outlive.model.ledger import to_nano

# English takes 4 bytes for a token, JSON and code 3, other scripts 2 to 3 (tokenizers of 2024 and later).
BYTES_PER_TOKEN = 2
# Images take up to about 6,000 (high detail, 2025); a long document or film may take more, and is counted afterwards.
FILE_TOKENS = 8_000

PriceOf = Callable[[RequestUsage], int]  # in billionths of a dollar


def estimate_input(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> int:
    """Give how many tokens a request sends at most, as far as can be known."""
    told = next((place for place in reversed(range(len(messages))) if _is_measured(messages[place])), None)
    if told is None:
        return _count(messages) + _tokens(len(repr(parameters).encode()))  # longer than the JSON that is sent
    answer = messages[told]
    assert isinstance(answer, ModelResponse)
    more = _count(messages[told + 1 :])
    if answer.run_id is None or answer.run_id != messages[-1].run_id:  # of an agent that may have other tools
        more += _tokens(len(repr(parameters).encode()))
    return answer.usage.input_tokens + answer.usage.output_tokens + more


def _is_measured(message: ModelMessage) -> bool:
    return isinstance(message, ModelResponse) and message.usage.input_tokens > 0


def _count(messages: Sequence[ModelMessage]) -> int:
    files = [
        item for message in messages for part in message.parts for item in _list_files(getattr(part, "content", ()))
    ]
    data = sum(len(item.base64) for item in files if isinstance(item, BinaryContent))
    sent = len(ModelMessagesTypeAdapter.dump_json(list(messages)))
    return _tokens(max(0, sent - data)) + FILE_TOKENS * len(files)


def _list_files(content: Any) -> list[Any]:
    items = content if isinstance(content, list | tuple) else (content,)
    return [item for item in items if isinstance(item, BinaryContent | FileUrl)]


def _tokens(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_TOKEN)


def find_price(model: Model, given: Mapping[str, Price]) -> PriceOf | None:
    """Give what computes the price of requests to a model, None if nobody knows it."""
    price = given.get(model.model_name)
    if price is not None:
        return lambda usage: to_nano(
            (Decimal(str(price.input)) * usage.input_tokens + Decimal(str(price.output)) * usage.output_tokens)
            / 1_000_000
        )
    try:
        _published(model, RequestUsage(input_tokens=1, output_tokens=1))
    except LookupError:
        return None
    return lambda usage: to_nano(_published(model, usage))


def _published(model: Model, usage: RequestUsage) -> Decimal:
    try:
        if model.base_url:
            return calc_price(usage, model.model_name, provider_api_url=model.base_url).total_price
    except (LookupError, AttributeError, UserError):
        pass  # a place that nobody has listed, or no place at all; the provider may be known by its name
    return calc_price(usage, model.model_name, provider_id=model.system).total_price


def estimate_price(price_of: PriceOf, input_tokens: int, output_tokens: int) -> int:
    """Give what a request costs at most; putting the input into a provider's cache may cost more than sending it."""
    plain = price_of(RequestUsage(input_tokens=input_tokens, output_tokens=output_tokens))
    try:
        cached = RequestUsage(input_tokens=input_tokens, cache_write_tokens=input_tokens, output_tokens=output_tokens)
        return max(plain, price_of(cached))
    except ValueError:  # no such price
        return plain


def price_answer(answer: ModelResponse, price_of: PriceOf | None, *, is_given: bool) -> int:
    """Give what an answer has cost: as its provider says, as published for it, or by the price of the request."""
    if answer.usage.cost is not None and not is_given:
        return to_nano(answer.usage.cost)
    if price_of is None:
        return 0
    if not is_given:
        try:
            return to_nano(answer.cost().total_price)
        except (LookupError, ValueError, AssertionError):
            pass  # an answer need not name its model and provider as they are listed
    return price_of(answer.usage)


def price_recorded(answer: Mapping[str, Any]) -> Decimal | None:
    """Give what an answer as a journal has it has cost in dollars, by what is published; None if nobody knows."""
    try:
        recorded: ModelResponse = JSON_CODEC.load(ModelResponse, answer)
        if recorded.usage.cost is not None:
            return recorded.usage.cost
        return recorded.cost().total_price
    except (LookupError, ValueError, AssertionError):
        return None
