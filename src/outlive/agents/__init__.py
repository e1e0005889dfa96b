"""Agents that outlive crashes: a plain Pydantic AI agent becomes durable by one call, `durable(agent)`.

Needs the extra `agents`; `import outlive` loads nothing of it.
"""

from __future__ import annotations

try:
    import pydantic_ai as _pydantic_ai  # noqa: F401
except ImportError as error:
    raise ImportError("outlive.agents needs Pydantic AI: pip install 'outlive[agents]'") from error

from outlive.agents.approvals import Ask, Deny, ToolCall
from outlive.agents.durable import DurableAgent, durable
from outlive.agents.effects import at_most_once, idempotent, inline, pure, transactional, tx
from outlive.agents.inbox import Approval, approvals

__all__ = ["DurableAgent", "durable"]
__all__ += ["at_most_once", "idempotent", "inline", "pure", "transactional", "tx"]  # effect classes of tools
__all__ += ["Approval", "Ask", "Deny", "ToolCall", "approvals"]  # which calls wait for a person
