"""Workflows and agents as tools of the Model Context Protocol, and their runs as tasks that outlive the server.

Needs the extra `mcp`; `import outlive` loads nothing of it.
"""

from __future__ import annotations

try:
    import mcp as _mcp  # noqa: F401
except ImportError as error:
    raise ImportError("outlive.integrations.mcp needs the MCP SDK: pip install 'outlive[mcp]'") from error

from outlive.integrations.mcp.server import mcp_server, serve_stdio

__all__ = ["mcp_server", "serve_stdio"]
