"""Approvals, in the run: which tool calls wait for a person, and what his decision binds.

A call that a policy wants approved waits for a promise of the topic `approval`,
which tells who is asked about what; `outlive.approvals` is the other side. Invariant: a
decision counts for one call of one run with the arguments and the tool that
the person has seen; the check is an entry, so replay repeats it. What is executed
is what the policy allows, or those whom it names have approved, edited or not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import msgspec
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolRequests, ToolApproved, ToolDefinition, ToolDenied

from outlive.agents.places import name_call, within
from outlive.ambient import gather
from outlive.approvals import TOPIC, Decision
from outlive.clock import Duration, seconds
from outlive.codec.payload import digest
from outlive.engine.invoke import record
from outlive.engine.roles import LiveRun
from outlive.errors import PromiseExpired, StepFailed, UsageError
from outlive.limits import ASK_FOR_S
from outlive.messages import await_or_withdraw, promise
from outlive.model.agentkeys import APPROVAL
from outlive.model.options import check_count

POLICY_KEY = "outlive"  # of what the policy says, in the metadata of a deferred call


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for, as a policy sees it: arguments are validated; `deps` are those of the agent."""

    agent: str
    tool: str
    arguments: Mapping[str, Any]
    deps: Any = None


@dataclass(frozen=True)
class Deny:
    """A policy's answer: the call is not executed, and the model reads why."""

    reason: str


@dataclass(frozen=True)
class Ask:
    """A policy's answer: so many people of a role have to approve the call, each on his own, in time.

    Nobody's answer in time is a denial, unless there is somebody else to `escalate` to.
    """

    role: str | None = None
    quorum: int = 1
    expires: Duration = ASK_FOR_S
    escalate: Ask | None = None

    def __post_init__(self) -> None:
        check_count("Ask(quorum=…)", self.quorum)
        if self.role is not None and not isinstance(self.role, str):
            raise UsageError(f"Ask(role=…) is a text, not {self.role!r}")
        if self.escalate is not None and not isinstance(self.escalate, Ask):
            raise UsageError(f"Ask(escalate=…) is an Ask, not {self.escalate!r}")
        if not isfinite(seconds(self.expires)):
            raise UsageError("Ask(expires=…) is a time after which nobody is asked any more, not for ever")


Policy = Callable[[ToolCall], Ask | Deny | None]
AskAgain = Callable[[ToolCallPart, Mapping[str, Any]], Ask | Deny | None]


def ask_policy(run: LiveRun, policy: Policy, call: ToolCall, call_id: str) -> Ask | Deny | None:
    """Give what a policy says of a call, None if it passes; noted: another policy has no say in what is past."""

    def make(_: str) -> tuple[str, tuple[()]]:
        verdict = policy(call)
        if verdict is not None and not isinstance(verdict, Ask | Deny):
            raise UsageError(f"a policy gives Ask(…), Deny(…) or None, not {verdict!r}")
        return json.dumps(_to_facts(verdict)), ()

    noted = record(run, "policy", name_call(call.tool, call_id), None, make, keeps_errors=True)
    verdict: Ask | Deny | None = _from_facts(json.loads(noted))
    return verdict


def _to_facts(verdict: Ask | Deny | None) -> dict[str, Any] | None:
    if isinstance(verdict, Deny):
        return {"deny": verdict.reason}
    if verdict is None:
        return None
    terms = {"role": verdict.role, "quorum": verdict.quorum, "expires_s": seconds(verdict.expires)}
    return {"ask": {**terms, "escalate": _to_facts(verdict.escalate)}}


def _from_facts(facts: Any) -> Any:
    if facts is None:
        return None
    if "deny" in facts:
        return Deny(facts["deny"])
    ask = facts["ask"]
    return Ask(ask["role"], ask["quorum"], ask["expires_s"], _from_facts(ask["escalate"]))


def version_of_tool(tool: ToolDefinition | None) -> str:
    """Give what changes when a tool is described otherwise than to who approved its call."""
    if tool is None:
        return ""
    return digest(json.dumps([tool.name, tool.description, tool.parameters_json_schema], sort_keys=True))


def digest_of_arguments(arguments: Mapping[str, Any]) -> str:
    """Give what stands for the arguments of a call: SHA-256, for whoever chooses them may want two to look alike."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()


async def resolve(
    run: LiveRun, agent: str, tools: Mapping[str, ToolDefinition], requests: DeferredToolRequests, ask_again: AskAgain
) -> dict[str, bool | ToolApproved | ToolDenied]:
    """Wait until each of these calls is approved or denied; all wait at the same time. `ask_again`: about an edit."""

    def resolve_one(call: ToolCallPart) -> Awaitable[ToolApproved | ToolDenied]:
        verdict = requests.metadata.get(call.tool_call_id, {}).get(POLICY_KEY)
        return _resolve(run, agent, call, tools.get(call.tool_name), verdict or Ask(), ask_again)

    answers = await gather(*map(resolve_one, requests.approvals))
    return {call.tool_call_id: one for call, one in zip(requests.approvals, answers, strict=True)}


async def _resolve(
    run: LiveRun, agent: str, call: ToolCallPart, tool: ToolDefinition | None, verdict: Ask | Deny, ask_again: AskAgain
) -> ToolApproved | ToolDenied:
    if isinstance(verdict, Deny):
        return ToolDenied(verdict.reason)
    with within(run, f"{APPROVAL}:{name_call(call.tool_name, call.tool_call_id)}"):
        return await _ask(run, agent, call, tool, verdict, ask_again)


async def _ask(
    run: LiveRun, agent: str, call: ToolCallPart, tool: ToolDefinition | None, ask: Ask, ask_again: AskAgain
) -> ToolApproved | ToolDenied:
    given = call.args_as_dict()
    first, arguments, votes, asked_at = ask, given, list[str](), _asked_at(run)
    version, schema = version_of_tool(tool), {} if tool is None else tool.parameters_json_schema
    while True:
        about = {
            "agent": agent, "tool": call.tool_name, "call_id": call.tool_call_id, "arguments": arguments,
            "digest": digest_of_arguments(arguments), "version": version, "role": ask.role, "quorum": ask.quorum,
            "votes": votes, "asked_at": asked_at, "schema": schema,
        }  # fmt: skip
        try:
            left_s = max(0.001, asked_at + seconds(ask.expires) - run.loop.time())  # a vote gives no more time
            settled = await await_or_withdraw(await promise(left_s, topic=TOPIC, about=about))
        except PromiseExpired:
            if ask.escalate is None:
                return ToolDenied("Nobody decided in time whether this call is approved, so it was not executed.")
            ask, votes, asked_at = ask.escalate, [], _asked_at(run)
            continue
        except StepFailed as rejected:
            return ToolDenied(f"This call was not approved: {rejected}")
        decision = _read(run, settled, about)
        if decision is None:
            ask, arguments, votes, asked_at = first, given, [], _asked_at(run)  # nobody is to decide on less terms
            continue
        if not decision.approve:
            return ToolDenied(f"{decision.by} denied this call{f': {decision.why}' if decision.why else '.'}")
        if decision.edit is not None and decision.edit != arguments:
            # What others have approved was something else.
            arguments, votes, asked_at = decision.edit, [], _asked_at(run)
            verdict = ask_again(call, arguments)
            if isinstance(verdict, Deny):
                return ToolDenied(f"{decision.by} edited this call into one that is refused: {verdict.reason}")
            if verdict is not None and verdict.role not in (None, ask.role):
                ask = verdict  # others are to be asked about that
                continue
            ask = verdict or ask
        votes = [*votes, decision.by]
        if len(votes) >= ask.quorum:
            return ToolApproved(override_args=arguments if arguments != given else None)


def _asked_at(run: LiveRun) -> float:
    """Give the time of a question that is asked now; in another generation of the run it is another question."""
    asked_at: float = run.loop.time() + run.generation * 1e-6
    return asked_at


def _read(run: LiveRun, settled: Any, about: Mapping[str, Any]) -> Decision | None:
    """Give a decision on the call and the tool as they are now, else None; noted, for a release may change the tool.

    It is noted for the run: a fork asks anew. Before, it was noted as true.
    """
    try:
        decision = msgspec.convert(settled, Decision)
    except msgspec.ValidationError:  # whoever has the token may settle the promise with anything
        return None
    binds = (decision.digest, decision.version) == (about["digest"], about["version"])
    noted = record(run, "approval", "approval", None, lambda _: (json.dumps(run.id if binds else False), ()))
    return decision if json.loads(noted) in (run.id, True) else None
