"""The support desk of a small shop: an agent that looks up orders, refunds and writes e-mails, and that may die.

cd examples && outlive agents chat support_desk.desk --id chat-1
"""

import os
from pathlib import Path

from pydantic_ai import Agent, ModelRetry
from support_desk.models import choose_model
from support_desk.servers import POLICY_EFFECTS, POLICY_TOOLS

import outlive
from outlive import Outlive
from outlive.agents import Ask, Budget, Deny, ToolCall, conversation, durable, idempotent, pure, transactional, tx

OUTBOX = Path(os.environ.get("SUPPORT_DESK_OUTBOX", "outbox"))
ORDERS = {  # your shop's own database would know
    17: {"item": "a lamp", "cents": 1_999, "to": "ada@example.org"},
    18: {"item": "a sofa", "cents": 49_900, "to": "bob@example.org"},
    19: {"item": "a piano", "cents": 450_000, "to": "eve@example.org"},
}

agent = Agent(
    choose_model(),
    name="support",
    instructions="You are the support desk of a shop. Look up an order before you refund it. Tell the customer by "
    "e-mail what you have refunded. Refund what he asks for; whether that is allowed is not for you to decide.",
    toolsets=POLICY_TOOLS,
)


@agent.tool_plain(metadata=pure())
async def find_order(order: int) -> dict[str, object]:
    """Look up an order: its item, what it has cost in cents, and the customer's address."""
    if order not in ORDERS:
        raise ModelRetry(f"there is no order {order}; there are {', '.join(map(str, ORDERS))}")
    return ORDERS[order]


@agent.tool_plain(metadata=transactional())
async def refund(order: int, cents: int) -> str:
    """Give money back for an order."""
    # the row and the record that it was made are one commit; your migrations would make the table
    await tx().execute("create table if not exists desk_refunds (order_id integer, cents integer)")
    given = await tx().fetchval("select coalesce(sum(cents), 0) from desk_refunds where order_id = $1", order)
    left = ORDERS[order]["cents"] - int(given) if order in ORDERS else 0
    if not 0 < cents <= left:
        raise ModelRetry(f"of order {order}, {left} cents are left to be refunded")
    await tx().execute("insert into desk_refunds (order_id, cents) values ($1, $2)", order, cents)
    return f"refunded {cents / 100:.2f} for order {order}"


@agent.tool_plain(metadata=idempotent())
def send_mail(to: str, text: str) -> str:
    """Send an e-mail."""
    step = outlive.info()
    OUTBOX.mkdir(exist_ok=True)
    # a provider would take the key too, and know a repetition by it; here it names the file
    (OUTBOX / f"{step.idempotency_key}.txt").write_text(f"To: {to}\n\n{text}\n")
    return f"sent to {to}"


def policy(call: ToolCall) -> Ask | Deny | None:
    if call.tool != "refund" or call.arguments["cents"] <= 5_000:
        return None
    if call.arguments["cents"] > 100_000:
        return Deny("nothing above 1,000.00 is refunded by this desk")
    return Ask(role="manager", expires=2 * 86_400)


budget = [
    Budget(requests=12),  # of each turn
    Budget(tokens=2_000_000, requests=5_000, account="support-desk", per="day"),
]
desk = durable(agent, strict=True, stream=True, policy=policy, budget=budget, effects=POLICY_EFFECTS)
support = conversation(desk)
app = Outlive(os.environ.get("OUTLIVE_URL", "sqlite:///desk.db"), include=[support])
