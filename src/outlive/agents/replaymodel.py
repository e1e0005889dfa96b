"""A model for tests that gives the answers of a cassette, each to the request that it was given to, and no other.

A request is recognised by its content (see `content`). Invariant: what differs
from every recorded request in anything that a model could see is no hit.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic_ai.durable_exec import JSON_CODEC
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext

from outlive.agents.cassette import Cassette, Redact, redacted
from outlive.agents.content import content_of
from outlive.errors import CassetteMiss


class ReplayModel(Model):
    """Gives the answers of a cassette, or of the file of one: `agent.model = ReplayModel("support.json")`, in a test.

    Each recorded answer is given once, to an equal request; `left` has the keys of those that nobody has asked for
    yet. `redact` is the function with which the cassette was made.
    *Raises* CassetteMiss for any other request, with the difference to the nearest recorded one.
    """

    def __init__(self, cassette: Cassette | str | Path, *, redact: Redact | None = None) -> None:
        super().__init__()
        tape = cassette if isinstance(cassette, Cassette) else Cassette.read(cassette)
        self._recorded = list(tape.requests)
        self._redact = redact
        self._given: set[int] = set()

    @property
    def model_name(self) -> str:
        return "replay"

    @property
    def system(self) -> str:
        return "outlive"

    @property
    def left(self) -> list[str]:
        """The keys of the recorded requests that nobody has made yet."""
        return [one["key"] for at, one in enumerate(self._recorded) if at not in self._given]

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Give the recorded answer. Raises CassetteMiss if there is none."""
        content: dict[str, Any] = content_of(messages, model_settings, model_request_parameters)
        content = redacted(content, self._redact)
        equal = [at for at, one in enumerate(self._recorded) if one["request"] == content]
        for at in equal:
            if at not in self._given:
                self._given.add(at)
                answer: ModelResponse = JSON_CODEC.load(ModelResponse, self._recorded[at]["answer"])
                return answer
        if equal:
            raise CassetteMiss(
                f"the cassette has {len(equal)} answers to this request, and all of them were given: "
                f"{', '.join(self._recorded[at]['key'] for at in equal)}"
            )
        raise CassetteMiss(self._explain(content))

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncIterator[StreamedResponse]:
        """Stream the recorded answer, part by part."""
        answer = await self.request(messages, model_settings, model_request_parameters)
        yield CompletedStreamedResponse(answer, model_request_parameters=model_request_parameters, replay_events=True)

    def _explain(self, content: dict[str, Any]) -> str:
        if not self._recorded:
            return "the cassette has no request at all"
        asked = _lines(content)
        nearest = max(self._recorded, key=lambda one: _likeness(_lines(one["request"]), asked))
        changes = difflib.unified_diff(
            _lines(nearest["request"]), asked, f"recorded: {nearest['key']}", "asked for", n=2, lineterm=""
        )
        return "\n".join(["no recorded request is this one; the nearest differs:", *changes])


def _lines(content: dict[str, Any]) -> list[str]:
    return json.dumps(content, indent=1, ensure_ascii=False).splitlines()


def _likeness(recorded: list[str], asked: list[str]) -> float:
    return difflib.SequenceMatcher(None, recorded, asked, autojunk=False).quick_ratio()
