"""Requests to models: which failures are tried again, and who holds back after a provider has asked for it.

Knows how Pydantic AI tells failures apart, and the memos of the store, which all
processes read; must not know keys or the journal. Invariant: what a provider
wants asked no more for a time is asked by no process of the store before that
time is over, but for what others begin within `HEARD_WITHIN_S` of its word.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from pydantic_ai import exceptions
from pydantic_ai.durable_exec import ModelRequestId
from pydantic_ai.exceptions import (
    FallbackExceptionGroup,
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelServerError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
)
from pydantic_ai.models import Model
from pydantic_ai.models.wrapper import WrapperModel

from outlive.codec.failure import attributes_of
from outlive.engine.bodies import executing_step, patiently
from outlive.engine.roles import Host
from outlive.errors import StepFailed
from outlive.limits import HEARD_WITHIN_S, HOLD_BACK_MAX_S, HOLD_BACK_SPREAD_S
from outlive.model.definition import Retry

log = logging.getLogger("outlive.agents")

_FACTS = (
    *("status_code", "model_name", "body", "headers", "suggested_model_id", "hint"),
    *("provider_error_code", "provider_error_type", "retry_after", "in_stream"),
)
_PASSING = (
    ModelRateLimitError,
    ModelUnavailableError,
    ModelServerError,
    ModelConnectionError,
    ModelRequestTimeout,
    ConnectionError,
    TimeoutError,
)

# When each process saw last that a model may be asked, by its name.
_free_at: WeakKeyDictionary[Host, dict[str, float]] = WeakKeyDictionary()

# About three minutes of an outage, beside what a provider wants waited for.
MODEL_RETRY = Retry(attempts=10, first_delay=0.5)


class RequestRetry(Retry):
    """A Retry of what may pass by itself, unless `on` names something else."""

    def again(self, attempt: int, error: BaseException) -> bool:
        return super().again(attempt, error) and (self.on != MODEL_RETRY.on or may_pass(error))


def may_pass(error: BaseException) -> bool:
    """Say whether the same request may succeed later: after a limit, an outage, a lost connection, a broken answer."""
    if isinstance(error, FallbackExceptionGroup):
        return any(may_pass(member) for member in error.exceptions)
    if isinstance(error, ModelHTTPError) and (hint := error.provider_retry_hint) is not None:
        return hint
    if type(error) is ModelHTTPError:  # of a model that knows no sorts of them
        return error.status_code in (408, 429) or error.status_code >= 500
    # The plain class of what is no sort of its own: the body of the answer is no JSON, or has nothing in it.
    return isinstance(error, _PASSING) or type(error) in (ModelAPIError, UnexpectedModelBehavior)


def wanted_wait_s(error: BaseException) -> float | None:
    """Give how long a provider wants to be left alone, if it has said so; of several models, the first to be ready."""
    if isinstance(error, FallbackExceptionGroup):
        waits = [wanted_wait_s(member) for member in error.exceptions]
        return None if None in waits else min(wait for wait in waits if wait is not None)
    return error.retry_after if isinstance(error, ModelAPIError) else None


def name_model(operation: ModelRequestId, own: Model, others: Mapping[str, Model]) -> str:
    """Give the same name to the same model at the same address: the run's own one, or what it has switched to."""
    chosen = own if operation.model_id is None else others.get(operation.model_id)
    if chosen is None:  # a name such as "openai:gpt-5", or what a capability makes of it
        return f"{operation.model_id} ({operation.model_name})"
    return f"{chosen.system}:{operation.model_name} at {chosen.base_url}"


async def ask(model: str, body: Callable[[], Awaitable[Any]]) -> Any:
    """Ask a model, once nobody has been told to leave it alone; what it says of that is told to all."""
    step = executing_step()
    name, engine = f"model {model}", step.execution.engine
    free_at = _free_at.setdefault(engine, {})
    if engine.main.time() >= free_at.get(name, 0.0) + HEARD_WITHIN_S:
        while (memo := await patiently(step, lambda: engine.store.read_memo(name))) is not None:
            engine.roster.waits_for_others(step.execution)
            await engine.bodies.rest(memo.left_s + engine.chance.random() * HOLD_BACK_SPREAD_S)
        free_at[name] = engine.main.time()
    await engine.bodies.ready(step.execution)
    try:
        return _usable(model, await body())
    except LookupError as error:
        if not _is_of_adapter(error):
            raise
        raise UnexpectedModelBehavior(f"the answer of model {model} cannot be read: {error!r}") from error
    except Exception as error:
        wait_s = wanted_wait_s(error) if may_pass(error) else None
        if wait_s:
            wait_s = min(wait_s, HOLD_BACK_MAX_S)
            log.info("model %s wants to be left alone for %.3g s: %s", model, wait_s, error)
            free_at.pop(name, None)
            told = await patiently(step, lambda: engine.store.read_memo(name))
            if told is None or told.left_s < wait_s:  # who was asked later may have been told of a longer time
                await patiently(step, lambda: engine.store.put_memo(name, "", None, wait_s))
        raise


def _usable(model: str, answer: Any) -> Any:
    """Give an answer that is fit to be recorded: what is done for a call, or decided on it, goes by the call's id."""
    ids = [part["tool_call_id"] for part in answer["parts"] if part["part_kind"] == "tool-call"]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise UnexpectedModelBehavior(f"the answer of model {model} has several calls of the same id: {twice}")
    return answer


def _is_of_adapter(error: BaseException) -> bool:
    """Say whether it was raised where Pydantic AI reads answers: that is how it takes one without content."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and at.tb_frame.f_globals.get("__name__", "").startswith("pydantic_ai.models.")


def leave_retries_to_us(model: Model, settings: Any) -> dict[str, Any]:
    """Give the setting that lets a provider's client not retry by itself, unseen by the others; unless it was set."""
    while isinstance(model, WrapperModel):
        model = model.wrapped
    is_ours = "max_retries" not in (settings or {}) and "max_retries" not in model.unsupported_settings
    return {"max_retries": 0} if is_ours else {}


def revive(failed: StepFailed) -> Exception:
    """Give a recorded refusal of a provider as the error that it was: what chooses another model goes by its class."""
    category = vars(exceptions).get(failed.type.removeprefix("pydantic_ai.exceptions."))
    facts = attributes_of(failed)
    if "status_code" not in facts or not isinstance(category, type) or not issubclass(category, ModelAPIError):
        return failed
    kept = {name: facts[name] for name in _FACTS if name in facts}
    revived = ModelHTTPError.for_category(None if category is ModelHTTPError else category, **kept)  # type: ignore[arg-type]
    vars(revived)["__outlive_traceback__"] = failed.traceback
    revived.__cause__ = failed.__cause__
    return revived
