"""Agents that outlive crashes: a plain Pydantic AI agent becomes durable by one call, `durable(agent)`.

Needs the extra `agents`; `import outlive` loads nothing of it.
"""

from __future__ import annotations

try:
    import pydantic_ai as _pydantic_ai  # noqa: F401
except ImportError as error:
    raise ImportError("outlive.agents needs Pydantic AI: pip install 'outlive[agents]'") from error

from outlive.agents.approvals import Ask, Deny, ToolCall
from outlive.agents.budget import Budget, Price
from outlive.agents.cassette import Cassette, cassette
from outlive.agents.conversation import Conversation, conversation
from outlive.agents.durable import DurableAgent, durable
from outlive.agents.effects import annotated, at_most_once, idempotent, inline, pure, transactional, tx
from outlive.agents.events import AgentEvent, StepText, events, texts
from outlive.agents.guards import (
    Agreement,
    Attempt,
    Calibration,
    Comparison,
    File,
    Grade,
    Guarded,
    Judge,
    Labelled,
    NoRepeats,
    Pair,
    Places,
    Preference,
    Verifier,
    Vote,
    calibrate,
    guarded,
    validated,
)
from outlive.agents.links import ApprovalLinks, approval_links
from outlive.agents.questions import question_tool
from outlive.agents.replaymodel import ReplayModel
from outlive.agents.streams import StreamReset
from outlive.agents.turns import Answered, BrokenOff, Listening, Said
from outlive.approvals import Approval, approvals
from outlive.budgets import budgets
from outlive.errors import CassetteMiss
from outlive.questions import Question, ask_user, questions
from outlive.reviews import Review, reviews

__all__ = ["DurableAgent", "durable"]
__all__ += ["annotated"]  # what servers say of theirs
__all__ += ["at_most_once", "idempotent", "inline", "pure", "transactional", "tx"]  # effect classes of tools
__all__ += ["Approval", "Ask", "Deny", "ToolCall", "approvals"]  # which calls wait for a person
__all__ += ["Budget", "Price", "budgets"]  # what agents may use
__all__ += ["Attempt", "File", "Guarded", "NoRepeats", "Verifier", "guarded", "validated"]  # loops against a check
__all__ += ["Comparison", "Grade", "Judge", "Preference", "Vote"]  # models that grade
__all__ += ["Agreement", "Calibration", "Labelled", "Pair", "Places", "calibrate"]  # how far a judge agrees with people
__all__ += ["Review", "reviews"]  # what waits for a person when a guard has stopped it
__all__ += ["ApprovalLinks", "approval_links"]  # links to approvals
__all__ += ["Question", "ask_user", "question_tool", "questions"]  # what people are asked
__all__ += ["AgentEvent", "StepText", "StreamReset", "events", "texts"]  # what is shown while it works
__all__ += ["Answered", "BrokenOff", "Conversation", "Listening", "Said", "conversation"]  # turn by turn
__all__ += ["Cassette", "CassetteMiss", "ReplayModel", "cassette"]  # records of runs, for tests
