"""Cassettes: what the agents of a run have asked models and tools, and what they were answered, as readable JSON.

A journal holds answers only. What was asked follows from them: the recorded
journal is rehearsed with the code at hand, and each unit that it asks for is
noted together with its entry. Invariant: making a cassette asks nobody and
writes nothing; the same run and code make the same text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from pydantic_ai.durable_exec import DurableOperationId, ModelRequestId, ToolsetCallToolId

from outlive.agents.content import content_of
from outlive.agents.effects import Effect
from outlive.agents.units import told_of_units
from outlive.app import Outlive
from outlive.codec.payload import Codec, codec_for
from outlive.engine.rehearsal import rehearse
from outlive.engine.roles import Definitions
from outlive.errors import UsageError
from outlive.model.frozen import FrozenJournal

_OF_FORMAT = frozenset({"timestamp", "kind", "part_kind", "state"})  # whose texts are not anybody's

Redact = Callable[[str], str]
Note = Callable[[str, DurableOperationId, tuple[Any, ...], Effect], object]


@dataclass(frozen=True)
class Cassette:
    """What was asked and answered, in the order in which the run's journal has the answers.

    `requests` are those to models: `key` of the entry, `model`, `request`, `answer`. `calls` are those of tools:
    `key`, `tool`, `arguments`, `result`.
    """

    run_id: str
    workflow: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> str:
        """Give it as text for a file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> Cassette:
        """Read such a file. *Raises* UsageError if it is none, or is not there."""
        try:
            return msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except FileNotFoundError:
            why = f"there is no cassette {path}; `outlive agents export MODULE RUN > {path}` writes one"
            raise UsageError(why) from None
        except msgspec.DecodeError as error:
            raise UsageError(f"{path} holds no cassette ({error}); `outlive agents export` writes one") from None


async def cassette(app: Outlive, run_id: str, *, redact: Redact | None = None) -> Cassette:
    """Give what the agents of a run have asked and were answered so far; runs that it has started have their own.

    `redact` gets every text of it, names in what tools have given too, and gives what stands there instead;
    `ReplayModel` takes the same function. Settings of the transport, such as `extra_headers`, are not in it.
    The app has to have the code of the run's workflow. What has failed is not in it.
    *Raises* RunNotFound; ReplayError where the code takes another path than the journal.
    """
    engine = app._engine()
    return await make_cassette(await read_journal(app, run_id), engine.definitions, engine.codec, redact=redact)


async def read_journal(app: Outlive, run_id: str) -> FrozenJournal:
    """Read the journal of a run. *Raises* RunNotFound."""
    (journal,) = [journal async for journal in app.journals(ids=[run_id])]
    return journal


async def make_cassette(
    journal: FrozenJournal, definitions: Definitions, codec: Codec, *, redact: Redact | None = None
) -> Cassette:
    """Rehearse a journal and note what its agents ask for."""
    asked: dict[str, tuple[DurableOperationId, tuple[Any, ...]]] = {}

    def note(key: str, operation: DurableOperationId, details: tuple[Any, ...], _: Effect) -> None:
        asked.setdefault(key, (operation, details))

    await _note_units(journal, definitions, codec, note)
    made = Cassette(redacted(journal.id, redact), journal.workflow)
    reads = codec_for(journal.codec, [codec], what=f"run {journal.id!r}")
    for entry in journal.entries:
        if entry.outcome != "ok" or entry.key not in asked:
            continue
        operation, details = asked[entry.key]
        answer = reads.decode(entry.value or "null", Any, where=f"entry {entry.key}")
        if isinstance(operation, ModelRequestId):
            _, messages, settings, parameters, _ = details
            request = content_of(messages, settings, parameters)
            noted = {"key": entry.key, "model": operation.model_name, "request": request, "answer": _brief(answer)}
            made.requests.append(redacted(noted, redact))
        elif isinstance(operation, ToolsetCallToolId):
            noted = {"key": entry.key, "tool": details[0], "arguments": details[1], "result": answer}
            made.calls.append(redacted(noted, redact))
    return made


async def find_effects(journal: FrozenJournal, definitions: Definitions, codec: Codec) -> dict[str, str]:
    """Give the effect class of each call of a tool in a journal, by its key, as the code at hand declares it.

    *Raises* ReplayError where the code takes another path than the journal.
    """
    found: dict[str, str] = {}

    def note(key: str, operation: DurableOperationId, _: tuple[Any, ...], effect: Effect) -> None:
        if isinstance(operation, ToolsetCallToolId):
            found[key] = effect.name

    await _note_units(journal, definitions, codec, note)
    return found


async def _note_units(journal: FrozenJournal, definitions: Definitions, codec: Codec, note: Note) -> None:
    """Rehearse a journal, and note each unit that its agents ask for."""
    token = told_of_units.set(note)
    try:
        report = await rehearse(journal, definitions, codec)
    finally:
        told_of_units.reset(token)
    if report.error is not None:
        raise report.error


def _brief(answer: dict[str, Any]) -> dict[str, Any]:
    """Give an answer without what it does not have."""
    parts = [{name: value for name, value in part.items() if value is not None} for part in answer["parts"]]
    return {name: value for name, value in answer.items() if value is not None} | {"parts": parts}


def redacted(value: Any, redact: Redact | None) -> Any:
    """Give plain data with every text of it redacted."""
    if redact is None:
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):  # names that could be a field's are taken for one
        return {
            name if name.isidentifier() else redact(name): part if name in _OF_FORMAT else redacted(part, redact)
            for name, part in value.items()
        }
    return [redacted(part, redact) for part in value] if isinstance(value, list) else value
