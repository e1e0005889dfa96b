"""The simulated clerks: agents with programs drawn by chance, tools of every class, approvals, questions, helpers,
budgets.

A program says what the model wants turn by turn; what happened stands in a
ledger outside every process. The model answers with what its tools have said,
so that the output of a run tells what each call came to.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic_ai import Agent, ModelRetry, Tool
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import outlive
from outlive import Outlive, RunRefused
from outlive.agents import (
    Ask,
    Budget,
    Deny,
    ToolCall,
    approvals,
    at_most_once,
    budgets,
    durable,
    idempotent,
    inline,
    pure,
    questions,
    transactional,
    tx,
)
from outlive.errors import PromiseExpired, RunNotFound
from outlive.testing import Simulation, SimWorld
from tests.agents.scripts import results
from tests.sim.insist import insist

RUNS = 6
POOR = 3  # clerks who share a budget that is not enough for all of them
POOR_REQUESTS = 6  # of the nine that they want
MOST_TURNS = 3
MOST_CALLS = 3  # of a turn
UNKNOWN = "OutcomeUnknown"
LATE = "Nobody decided in time"
TOOLS = ("read", "charge", "enter", "flunk", "refund", "mail", "pay", "rest", "ask", "delegate", "hire")
HELPED = ("delegate", "hire")  # by another clerk: in the same run, or in a child of it


class Call(NamedTuple):
    """A call that a program makes; `id` is its own in the whole world."""

    tool: str
    id: str


Program = list[list[Call]]

world_of_test: SimWorld | None = None
programs: dict[str, Program] = {}
ledger: Counter[str] = Counter()  # how often what took effect
keys_of: dict[str, set[str]] = {}  # the idempotency keys that a call has shown
paid: dict[str, int] = {}
verdicts: dict[str, str] = {}  # what the policy said first, by call and cents
decisions: dict[str, dict[str, Any]] = {}  # what a person's decision was, as he was told
answers: dict[str, set[int]] = {}  # what people have answered, or tried to
bills: dict[str, Any] = {}  # what was spent on each account in the end


def draw_program(chance: random.Random, name: str, depth: int = 0) -> None:
    """Draw what a clerk of this name does, and what its helpers do."""
    tools = TOOLS if depth == 0 else [tool for tool in TOOLS if tool not in HELPED]
    programs[name] = [
        [Call(chance.choice(tools), f"{name}-{turn}-{place}") for place in range(chance.randint(1, MOST_CALLS))]
        for turn in range(chance.randint(1, MOST_TURNS))
    ]
    for call in list_calls(name):
        if call.tool in HELPED:
            draw_program(chance, call.id, depth + 1)


def take_program(name: str, turns: Sequence[Sequence[str]]) -> None:
    """Let a clerk of this name do so; whom it delegates to reads something."""
    programs[name] = [
        [Call(tool, f"{name}-{turn}-{place}") for place, tool in enumerate(tools)] for turn, tools in enumerate(turns)
    ]
    for call in list(list_calls(name)):
        if call.tool in HELPED:
            programs[call.id] = [[Call("read", f"{call.id}-0-0")]]


def list_calls(name: str) -> Iterator[Call]:
    return (call for turn in programs[name] for call in turn)


# -- the agent -----------------------------------------------------------------------
def _world() -> SimWorld:
    assert world_of_test is not None
    return world_of_test


async def execute(what: str, call: str, delay_s: float = 0.02) -> None:
    """What each body does first: look whether it may execute at all; then it takes effect, after some time."""
    world, info, loop = _world(), outlive.info(), asyncio.get_running_loop()
    assert isinstance(info, outlive.StepInfo)
    world.log(f"{what} {call} in {info.run_id} {info.key} attempt {info.attempt}")
    process = next(process for process in world.processes if process.loop is loop)
    if (info.run_id, info.key) in world.durable and not process.outrun:
        world.problem(f"{info.run_id} {info.key} executes although its outcome is on disk")
    keys_of.setdefault(call, set()).add(info.idempotency_key)
    await asyncio.sleep(world.chance.expovariate(1 / delay_s))
    ledger[f"{what} {call}"] += 1
    await asyncio.sleep(world.chance.expovariate(1 / delay_s))


async def think(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    prompts = [part.content for message in messages for part in message.parts if isinstance(part, UserPromptPart)]
    name, turn = str(prompts[0]), sum(isinstance(message, ModelResponse) for message in messages)
    await execute("model", f"{name}-{turn}")
    if turn == len(programs[name]):
        return ModelResponse(parts=[TextPart(json.dumps(results(messages)))])
    return ModelResponse(parts=[ToolCallPart(c.tool, {"call": c.id}, tool_call_id=c.id) for c in programs[name][turn]])


def judge(call: ToolCall) -> Ask | Deny | None:
    """Say something else each time: only the first word counts."""
    if call.tool != "pay":
        return None
    verdict = _world().chance.choice((None, Deny("no"), Ask(expires=40.0), Ask(expires=40.0, quorum=2), Ask()))
    asked = f"{call.arguments['call']} {call.arguments.get('cents', 100)}"
    known = verdicts.setdefault(asked, repr(verdict))
    if known != repr(verdict):  # the first one may have died with its process before it was noted
        verdicts[asked] = "several"
    return verdict


def was_refunded(call: str) -> str:
    if not ledger[f"refund {call}"]:
        raise LookupError(call)
    return f"refund {call}"


agent = Agent(FunctionModel(think), name="clerk", retries=100)


@agent.tool_plain(metadata=pure())
async def read(call: str) -> str:
    await execute("read", call)
    return f"read {call}"


@agent.tool_plain(metadata=idempotent())
async def charge(call: str) -> str:
    await execute("charge", call)
    return f"charge {call}"


@agent.tool_plain(metadata=transactional())
async def enter(call: str) -> str:
    await tx().execute("insert into entered (call) values ($1)", call)
    return f"enter {call}"


@agent.tool_plain(metadata=transactional())
async def flunk(call: str) -> str:
    await tx().execute("insert into entered (call) values ($1)", call)
    raise ModelRetry(f"flunk {call}")


@agent.tool_plain(metadata=at_most_once(verify=was_refunded))
async def refund(call: str) -> str:
    await execute("refund", call)
    return f"refund {call}"


@agent.tool_plain
async def mail(call: str) -> str:
    await execute("mail", call)
    return f"mail {call}"


@agent.tool_plain
async def pay(call: str, cents: int = 100) -> str:
    paid[call] = cents
    await execute("pay", call)
    return f"pay {call} {cents}"


@agent.tool_plain(metadata=inline())
async def rest(call: str) -> str:
    await outlive.sleep(0.3)
    return f"rest {call}"


@agent.tool_plain(metadata=inline())
async def ask(call: str) -> str:
    try:
        return f"ask {call} {await outlive.ask_user(call, as_type=int, expires=40.0)}"
    except PromiseExpired:
        return f"ask {call} nobody"


@agent.tool_plain(metadata=inline())
async def delegate(call: str) -> str:
    return str((await clerk.run(call)).output)


@agent.tool_plain(metadata=inline())
async def hire(call: str) -> str:
    return str(await clerk(call))


clerk = durable(agent, policy=judge, budget=Budget(requests=1_000, tools=1_000, account="clerks"))
poor = durable(
    Agent(FunctionModel(think), name="poor", tools=[Tool(read, metadata=pure())]),
    budget=Budget(requests=POOR_REQUESTS, account="poor"),
)


# -- the program ---------------------------------------------------------------------
async def drive(app: Outlive, world: SimWorld) -> None:
    """Start the clerks, and decide what they ask for until they have ended; again from the top after a death."""
    for name in [f"r{number}" for number in range(RUNS)]:
        await insist(lambda name=name: app.start(clerk, name, id=name))
    for name in [f"p{number}" for number in range(POOR)]:
        await insist(lambda name=name: app.start(poor, name, id=name))
    while not await insist(lambda: _all_ended(app)):
        page = await insist(lambda: approvals(app).list(limit=3))
        for one in page.items:
            await decide(app, world, one)
        for asked in (await insist(lambda: questions(app).list(limit=3))).items:
            await answer(app, world, asked)
        await asyncio.sleep(world.chance.uniform(0, 0.5))
    for account in ("clerks", "poor"):
        bills[account] = await insist(lambda account=account: budgets(app).find(account))


def list_runs() -> list[str]:
    return [f"r{number}" for number in range(RUNS)] + [f"p{number}" for number in range(POOR)]


async def _all_ended(app: Outlive) -> bool:
    try:
        return all([(await (await app.get(name)).status()).final for name in list_runs()])
    except RunNotFound:
        return False


async def decide(app: Outlive, world: SimWorld, one: Any) -> None:
    """Decide, and then otherwise: the second decision has to be refused."""
    call, luck = one.call_id, world.chance.random()
    if luck < 0.2:
        return  # another time, or never
    edit = {"call": call, "cents": 7} if luck < 0.5 and one.quorum == 1 else None
    by = "eve" if "ada" in one.votes else "ada"
    decision = {"approve": luck < 0.8, "edit": edit if luck < 0.8 else None}
    votes = decisions.setdefault(call, {"tried": [], "sure": []})
    votes["tried"].append(decision)
    try:
        await insist(lambda: approvals(app).decide(one.id, by=by, digest=one.digest, **decision))
    except RunRefused:
        return  # decided before its reply was lost, or too late
    votes["sure"].append(decision)
    try:
        await insist(lambda: approvals(app).decide(one.id, approve=not decision["approve"], by="mallory"))
    except RunRefused:
        return
    world.problem(f"the approval of {call} is used twice")


async def answer(app: Outlive, world: SimWorld, asked: Any) -> None:
    """Answer a question, and then otherwise: the second answer has to be refused."""
    if world.chance.random() < 0.2:
        return
    number = world.chance.randrange(1_000)
    tried = answers.setdefault(asked.question, set())
    tried.add(number)
    try:
        await insist(lambda: questions(app).answer(asked.id, number, by="ada"))
    except RunRefused:
        return
    try:
        await insist(lambda: questions(app).answer(asked.id, -1, by="mallory"))
    except RunRefused:
        return
    world.problem(f"{asked.question} is answered twice")


# -- what has to be so ---------------------------------------------------------------
def check(world: SimWorld, simulation: Simulation) -> None:
    """Every call came to what its class promises, and its run knows."""
    entered = Counter(call for (call,) in world.sql("select call from entered"))
    for number in range(RUNS):
        run = simulation.runs[f"r{number}"]
        assert run.status == "succeeded", f"{run.id} {run.status} {run.error}"
        _check_program(run.id, json.loads(run.output or "null"), entered, _count_stalls(simulation))
    _check_bills(simulation)
    assert not entered - Counter(call.id for name in programs for call in list_calls(name)), "rows of unknown calls"


def _check_bills(simulation: Simulation) -> None:
    """What was bought was paid for, or is held back as lost; nobody has bought more than there was."""
    of_poor = {f"p{number}": simulation.runs[f"p{number}"] for number in range(POOR)}
    ends = Counter(run.status for run in of_poor.values())
    assert ends.keys() <= {"succeeded", "failed"}, ends
    for run in of_poor.values():
        assert run.status == "succeeded" or "BudgetExceeded" in str(run.error), run.error
    for account, names in (("clerks", programs.keys() - of_poor), ("poor", of_poor.keys())):
        bill = bills[account]
        bought = sum(ledger[f"model {name}-{turn}"] for name in names for turn in range(len(programs[name]) + 1))
        spent, lost, reserved = bill.spent.requests, bill.lost.requests, bill.reserved.requests
        told = f"{account}: {bought} requests bought, {spent} spent, {lost} lost, {reserved} reserved"
        assert spent <= bought <= spent + lost and reserved == 0, told
        if account == "poor":
            assert spent + lost <= POOR_REQUESTS, told
            assert spent >= 3 * ends["succeeded"], told
        else:
            assert spent == sum(len(programs[name]) + 1 for name in names), told


def _count_stalls(simulation: Simulation) -> int:
    """Count how often a process may have lost its runs while it lived, and gone on with their bodies later."""
    return sum(fault.kind in ("freeze", "clock_jump") for fault in simulation.faults)


def _check_program(name: str, output: str, entered: Counter[str], stalls: int) -> None:
    told = json.loads(output)
    calls = list(list_calls(name))
    assert len(told) == len(calls), f"{name} made {len(calls)} calls and heard of {len(told)}"
    for call, result in zip(calls, told, strict=True):
        times, said = ledger[f"{call.tool} {call.id}"], f"{call.tool} {call.id}"
        if call.tool in ("read", "charge"):
            assert (result, times > 0) == (said, True), f"{call}: {result}, executed {times} times"
        elif call.tool in ("enter", "flunk"):
            rows = entered[call.id]
            assert rows == (call.tool == "enter"), f"{call} has {rows} rows"
            assert said in result, f"{call}: {result}"
        elif call.tool == "refund":
            # `verify` cannot know of a call that is still under way in a process that stands still
            assert result == said, f"{call}: {result}"
            assert 1 <= times <= 1 + stalls, f"{call} executed {times} times"
        elif call.tool == "mail":
            _check_at_most_once(call, result, said, times)
        elif call.tool == "pay":
            _check_paid(call, result, times)
        elif call.tool == "rest":
            assert result == said, f"{call}: {result}"
        elif call.tool == "ask":
            heard = {f"{said} {number}" for number in answers.get(call.id, ())}
            assert result in heard | {f"{said} nobody"}, f"{call}: {result}, answered {heard}"
        else:
            _check_program(call.id, result, entered, stalls)
        if call.tool == "charge":
            assert len(keys_of[call.id]) == 1, f"{call} has shown several keys: {keys_of[call.id]}"


def _check_at_most_once(call: Call, result: str, said: str, times: int) -> None:
    assert times <= 1, f"{call} executed {times} times"
    assert UNKNOWN in result or (result, times) == (said, 1), f"{call}: {result}, executed {times} times"


def _check_paid(call: Call, result: str, times: int) -> None:
    """Nothing is paid that nobody allowed, and not what nobody has seen."""
    votes = decisions.get(call.id, {"tried": [], "sure": []})
    approved = [vote for vote in votes["tried"] if vote["approve"]]
    if "denied this call" in result or LATE in result or result == "no" or result.endswith("that is refused: no"):
        assert times == 0, f"{call} was refused, and paid"
        return
    cents = paid.get(call.id, int(result.rsplit(" ", 1)[-1]) if result.startswith("pay ") else 100)
    _check_at_most_once(call, result, f"pay {call.id} {cents}", times)
    first, verdict = verdicts[f"{call.id} 100"], verdicts.get(f"{call.id} {cents}", "unheard")
    assert verdict != "unheard" and not verdict.startswith("Deny"), f"{call}: {cents} cents: the policy is {verdict}"
    if first.startswith("Ask") or verdict.startswith("Ask"):
        assert approved, f"{call} was asked for, and nobody approved it: {result}"
        assert len(approved) > 1 or "quorum=2" not in verdict, f"one person has approved {call}"
        allowed = {7 if vote["edit"] else 100 for vote in approved}
        assert times == 0 or cents in allowed, f"{call}: {cents} cents were paid, approved are {allowed}"


def prepare(world: SimWorld, drawn: Sequence[Sequence[Sequence[str]]] | None = None) -> None:
    """Draw the programs, unless somebody else has: the tools of each turn of each clerk. Make the clerks' table."""
    global world_of_test
    world_of_test = world
    known: tuple[Any, ...] = (programs, ledger, keys_of, paid, verdicts, decisions, answers, bills)
    for each in known:
        each.clear()
    chance = random.Random(world.seed)
    for number in range(RUNS):
        if drawn is None:
            draw_program(chance, f"r{number}")
        else:
            take_program(f"r{number}", drawn[number % len(drawn)])
    for number in range(POOR):
        programs[f"p{number}"] = [[Call("read", f"p{number}-{turn}-0")] for turn in range(2)]
    world.sql("create table entered (call text)")
