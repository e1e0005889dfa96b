"""An agent with a tool of each effect class, in a process that is killed: `python -m tests.agents.shop URL`.

What really happened stands in a ledger, a file that belongs to no database: it is the judge. Which spans have ended
stands in another one beside it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from pydantic_ai import Agent
from pydantic_ai.capabilities import Instrumentation
from pydantic_ai.models.instrumented import InstrumentationSettings

import outlive
from outlive import Outlive, hooks
from outlive.agents import at_most_once, durable, idempotent, inline, pure, transactional, tx
from tests.agents.scripts import call, scripted
from tests.support.size import CALM_LEASE_S

LEDGER = "OUTLIVE_TEST_LEDGER"
DIES = "OUTLIVE_TEST_DIES"  # "point number": where in this process a SIGKILL comes, points counted from 1
_passed: dict[str, itertools.count[int]] = {}


def book(line: str) -> None:
    """Enter what happened, durably."""
    with Path(os.environ[LEDGER]).open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def pass_point(point: str) -> None:
    """Die here, if this is where this process is to die."""
    where, _, number = os.environ.get(DIES, "").partition(" ")
    if point == where and next(_passed.setdefault(point, itertools.count(1))) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def effect(name: str) -> Iterator[None]:
    """Take effect in the middle of a tool: a process may die before, and after, which is before the entry."""
    pass_point(f"before-{name}")
    book(name)
    yield
    pass_point(f"after-{name}")


def hear(turn: int) -> None:
    """Note that the model is asked, and may die of it."""
    pass_point("before-model")
    book(f"model {turn}")
    pass_point("after-model")


def look_up(order: str) -> str:
    """Say what the ledger knows of a refund."""
    if f"refund {order}" not in Path(os.environ[LEDGER]).read_text().splitlines():
        raise LookupError(order)
    return f"refunded {order}, says the bank"


class Spans(SpanExporter):
    """Enters spans as they end: a request to the model by how many messages it sent, a call by its tool."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with Path(os.environ[LEDGER] + ".spans").open("a") as file:
            for span in spans:
                facts = span.attributes or {}
                sent = json.loads(str(facts.get("gen_ai.input.messages", "[]")))
                file.write(f"{span.name.split()[0]} {facts.get('gen_ai.tool.name', len(sent))}\n")
        return SpanExportResult.SUCCESS


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(Spans()))

agent = Agent(
    scripted(
        [call("read", "r1"), call("charge", "c1"), call("enter", "e1")],
        [call("refund", "f1", order="o-1")],
        [call("mail", "m1")],
        [call("bare", "b1")],
        [call("wait", "w1")],
        "{results}",
        heard=hear,
    ),
    name="shop",
    capabilities=[Instrumentation(InstrumentationSettings(tracer_provider=provider))],
)


@agent.tool_plain(metadata=pure())
async def read() -> str:
    with effect("read"):
        return "read"


@agent.tool_plain(metadata=idempotent())
def charge() -> str:
    info = outlive.info()
    assert isinstance(info, outlive.StepInfo)
    with effect(f"charge {info.idempotency_key}"):
        pass
    pass_point("after-charge")
    return "charged"


@agent.tool_plain(metadata=transactional())
async def enter() -> str:
    await tx().execute("create table if not exists shop_entries (number integer)")
    await tx().execute("insert into shop_entries values (1)")
    ((rows,),) = await tx().fetch("select count(*) from shop_entries")
    assert rows == 1, "rows of an interrupted transaction are there"
    with effect("enter"):
        return "entered"


@agent.tool_plain(metadata=at_most_once(verify=look_up))
async def refund(order: str) -> str:
    pass_point("before-refund")
    book(f"refund {order}")
    pass_point("after-refund")
    return f"refunded {order}"


@agent.tool_plain(metadata=at_most_once())
async def mail() -> str:
    with effect("mail"):
        return "mailed"


@agent.tool_plain
async def bare() -> str:
    with effect("bare"):
        return "done"


@agent.tool_plain(metadata=inline())
async def wait() -> str:
    await outlive.sleep(0.01)
    return "waited"


seller = durable(agent)


async def main(url: str) -> None:
    hooks.arm(pass_point)
    async with Outlive(url, lease=CALM_LEASE_S) as app:
        run = await app.start(seller, "sell", id="sale")
        print(await run.result(timeout=30), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
