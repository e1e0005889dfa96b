"""The command `outlive`: one file per noun, plain text for people, `--json` for programs.

Exit codes: 0 ok, 1 a run failed, 2 wrong usage, 3 not found, 4 conflict, 5 the
database. Whatever a command shows comes from the public API; an error of
Outlive is one sentence on stderr, never a traceback.
"""

from outlive.cli.root import cli, main

__all__ = ["cli", "main"]
