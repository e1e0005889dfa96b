"""The policies of the shop, read through an MCP filesystem server, if there is one.

SUPPORT_DESK_FILES is its command, such as "npx @modelcontextprotocol/server-filesystem"; the folder is added. Its tools
are used only while they are, word for word, what a person has read; `outlive pins approve support_desk.desk:desk`
writes it into the file SUPPORT_DESK_PINS.
"""

import os
import shlex
from pathlib import Path
from typing import Any

from outlive.agents import pure

FOLDER = Path(__file__).with_name("policies")
READERS = ("list_directory", "read_text_file")


def make_tools() -> list[Any]:
    """Give the toolset of the server, of which the agent may only read; none without a command."""
    command = os.environ.get("SUPPORT_DESK_FILES")
    if not command:
        return []
    from fastmcp.client.transports import StdioTransport

    from outlive.agents.mcp import PinnedMCPToolset

    words = shlex.split(command)
    transport = StdioTransport(words[0], [*words[1:], str(FOLDER)], env=dict(os.environ))
    files = PinnedMCPToolset(transport, id="policies", pins=os.environ.get("SUPPORT_DESK_PINS", "pins.json"))
    return [files.filtered(lambda _, tool: tool.name in READERS)]


POLICY_TOOLS = make_tools()
POLICY_EFFECTS = dict.fromkeys(READERS, pure()) if POLICY_TOOLS else {}
