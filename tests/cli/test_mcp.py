"""What `outlive mcp` says of a target that it cannot serve. What it serves is in tests/integrations/mcp."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("nothing:server", "no module 'nothing'"),
        ("shop:nothing", "module 'shop' has no 'nothing'"),
        ("shop:app", "not a server; make one with outlive.integrations.mcp.mcp_server(…)"),
        ("shop", "not a server"),
    ],
)
def test_wrong_target_ends_with_2(run_cli, target, sentence):
    assert sentence in run_cli("mcp", target, code=2).stderr
