"""What a journal tells of agents: who said what, which tools were called, what people decided, what it came to.

Knows the keys and payloads that `outlive.agents` writes, as data: it needs neither the
agents' code nor the extra. Pure. Invariant: what it does not understand it leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from outlive.model.agentkeys import AGENT, APPROVAL, CHAT, MODEL, QUESTION, TOOL
from outlive.run import Entry

_LABEL = re.compile(r"\(([^/]*)\)#\d+$")
_ASKED = re.compile(rf"({APPROVAL}|{TOOL}|{QUESTION}):([^/(]+)\(([^/]*)\)#\d+$")
_DONE = ("tool_return", "tool_content_result")

Kind = Literal["prompt", "text", "thinking", "call", "result", "decision", "failure"]


@dataclass(frozen=True)
class Line:
    """One thing that was said or done, in the order of the journal.

    A `prompt` is said to an agent; `text` and `thinking` by it. A `call` is what its model asked for, a `result` what
    the tool gave: `state` is ok, retry, failed or open (it has begun, without an outcome). A `decision` is that of a
    person or policy on a call. `attempts`: how often it was begun.
    """

    kind: Kind
    agent: str
    key: str | None = None
    at: datetime | None = None
    text: str | None = None
    tool: str | None = None
    call_id: str | None = None
    effect: str | None = None
    value: Any = None
    state: str | None = None
    by: str | None = None
    attempts: int = 1


@dataclass(frozen=True)
class Usage:
    """What models have answered so far: how often, in how many tokens; and how many calls of tools have an outcome."""

    requests: int = 0
    tokens: int = 0
    tools: int = 0


def is_answer(entry: Entry) -> bool:
    """Say whether an entry is the answer of a model."""
    return (
        entry.name in MODEL
        and bool(entry.scope)
        and entry.outcome == "ok"
        and isinstance(entry.value, Mapping)
        and entry.value.get("kind") == "response"
    )


def is_tool(entry: Entry) -> bool:
    """Say whether an entry is the call of an agent's tool."""
    return entry.name.startswith(f"{TOOL}:") and bool(entry.scope) and entry.kind in ("step", "transaction")


def agent_of(scope: str) -> str:
    """Give the agent to which a scope belongs: `support` of `support#1`."""
    return scope.rpartition("/")[2].rpartition("#")[0]


def agents_in(entries: Iterable[Entry]) -> list[str]:
    """List the agents that have asked a model or called a tool, in the order in which they began."""
    named = (agent_of(entry.scope) for entry in entries if entry.name in MODEL or is_tool(entry))
    return list(dict.fromkeys(filter(None, named)))


def sum_usage(entries: Iterable[Entry]) -> Usage:
    """Add up what the agents of a journal have used."""
    requests = tokens = tools = 0
    for entry in entries:
        if is_answer(entry):
            used = entry.value.get("usage") or {}
            requests += 1
            tokens += (used.get("input_tokens") or 0) + (used.get("output_tokens") or 0)
        elif is_tool(entry) and entry.outcome != "started":
            tools += 1
    return Usage(requests, tokens, tools)


def read_lines(
    workflow: str, given: Any, entries: Sequence[Entry], effects: Mapping[str, str], signed: Mapping[str, str]
) -> list[Line]:
    """Give what a journal tells, in its order.

    `effects` are the classes of calls by key, where code has told them; `signed` is who has settled promises, by key.
    """
    told = [line for entry in entries for line in _read(entry, effects, signed)]
    return [*_read_input(workflow, given), *told]


def _read_input(workflow: str, given: Any) -> Iterator[Line]:
    args = (given or {}).get("args") or []
    kind, _, agent = workflow.partition(".")
    if kind == AGENT and args:
        yield Line("prompt", agent, text=args[0] if isinstance(args[0], str) else str(args[0]))
    elif kind == CHAT and args and isinstance(args[0], list):
        for message in args[0]:
            for part in message.get("parts") or []:
                yield from _read_part(agent, part)


def _read(entry: Entry, effects: Mapping[str, str], signed: Mapping[str, str]) -> Iterator[Line]:
    agent = agent_of(entry.scope)
    if is_answer(entry):
        lines = [line for part in entry.value["parts"] for line in _read_part(agent, part)]
        yield from (replace(line, key=entry.key, at=entry.finished_at, attempts=entry.attempts) for line in lines)
    elif is_tool(entry):
        yield _read_call(agent, entry, effects)
    elif entry.name in MODEL and entry.scope and entry.outcome == "error":
        yield Line("failure", agent, entry.key, entry.finished_at, _problem(entry), attempts=entry.attempts)
    elif entry.kind == "policy" and isinstance(entry.value, Mapping) and "deny" in entry.value:
        tool, _, rest = entry.name.partition("(")
        reason = entry.value["deny"]
        yield Line(
            "decision", agent, entry.key, entry.finished_at, reason, tool, rest[:-1], state="denied", by="policy"
        )
    elif entry.outcome == "started":
        return  # a wait: what it waits for is in an inbox
    elif entry.kind == "receive" and isinstance(entry.value, Mapping) and isinstance(entry.value.get("say"), str):
        yield Line("prompt", "", entry.key, entry.finished_at, entry.value["say"])
    elif entry.kind in ("wait", "expire") and (asked := _ASKED.search(entry.scope)):
        yield replace(_read_decision(entry, *asked.groups()), by=signed.get(entry.name))


def _read_part(agent: str, part: Mapping[str, Any]) -> Iterator[Line]:
    kind, content = part.get("part_kind"), part.get("content")
    tool, call_id = part.get("tool_name"), part.get("tool_call_id")
    if kind == "user-prompt":
        yield Line("prompt", "", text=content if isinstance(content, str) else str(content))
    elif kind in ("text", "thinking") and content:
        yield Line("text" if kind == "text" else "thinking", agent, text=content)
    elif kind == "tool-call":
        yield Line("call", agent, tool=tool, call_id=call_id, value=part.get("args"))
    elif kind in ("tool-return", "retry-prompt") and tool:
        state = "retry" if kind == "retry-prompt" else "ok"
        yield Line("result", agent, tool=tool, call_id=call_id, value=content, state=state)


def _read_call(agent: str, entry: Entry, effects: Mapping[str, str]) -> Line:
    label = _LABEL.search(entry.key)
    known = "transactional" if entry.kind == "transaction" else effects.get(entry.key)
    line = Line(
        "result", agent, entry.key, entry.finished_at or entry.started_at, tool=entry.name.removeprefix(f"{TOOL}:"),
        call_id=label[1] if label else None, effect=known, attempts=entry.attempts,
    )  # fmt: skip
    if entry.outcome == "started":
        return replace(line, state="open")
    if entry.outcome != "ok" or not isinstance(entry.value, Mapping):
        return replace(line, state="failed", text=_problem(entry))
    given = entry.value
    state = "ok" if given.get("kind") in _DONE else "retry" if given.get("kind") == "model_retry" else "failed"
    return replace(line, state=state, value=given.get("result", given.get("message")))


def _read_decision(entry: Entry, what: str, tool: str, call_id: str) -> Line:
    agent = agent_of(entry.scope.rpartition("/")[0])
    line = Line("decision", agent, entry.key, entry.finished_at, tool=tool, call_id=call_id)
    value = entry.value
    if entry.outcome != "ok":
        state = "expired" if entry.kind == "expire" else "declined"
        return replace(line, state=state, text=_problem(entry))
    if what != APPROVAL or not isinstance(value, Mapping):
        return replace(line, state="answered", value=value)
    state = "approved" if value.get("approve") else "denied"
    return replace(line, state=state, text=value.get("why"), value=value.get("edit"))


def _problem(entry: Entry) -> str:
    error = entry.error or {}
    return f"{error.get('type', 'error')}: {error.get('text', '')}"
