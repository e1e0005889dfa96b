"""Who calls, and what his client can do: read off a request, for it alone.

Invariant: what one caller started is nobody else's, as far as the transport tells callers apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import principal_components
from mcp.server.context import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

TASKS = "io.modelcontextprotocol/tasks"


@dataclass(frozen=True)
class Caller:
    """A caller: `identity` is None where nothing says who he is, `roles` are the scopes of his access token."""

    name: str
    identity: list[str | None] | None
    roles: frozenset[str]
    answers_forms: bool
    takes_tasks: bool
    is_modern: bool


def caller_of(ctx: ServerRequestContext[Any, Any]) -> Caller:
    """Give the caller of a request."""
    token = get_access_token()
    known = ctx.session.client_capabilities
    forms = known.elicitation if known is not None else None
    is_modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
    return Caller(
        name="mcp" if token is None else token.subject or token.client_id,
        identity=None if token is None else list(principal_components(token)),
        roles=frozenset(token.scopes if token is not None else ()),
        answers_forms=forms is not None and (forms.form is not None or forms.url is None),
        takes_tasks=is_modern and known is not None and TASKS in (known.extensions or {}),
        is_modern=is_modern,
    )
