"""Tests agents with the oldest Pydantic AI that is supported: `python -m tools.oldest`; `make test` has the newest.

While both are the same release nothing is left to test, and nothing is installed, unless with `--anyway`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-oldest"


def find_oldest() -> str:
    """Give the lower bound of Pydantic AI, "2.68"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = next(one for one in project["optional-dependencies"]["agents"] if one.startswith("pydantic-ai-slim"))
    found = re.search(r">=(\d+\.\d+)", wanted)
    assert found is not None, wanted
    return found[1]


def main(arguments: list[str]) -> int:
    """Test in an environment of its own; give pytest's exit code."""
    oldest, here = find_oldest(), version("pydantic-ai-slim")
    if f"{here}.".startswith(f"{oldest}.") and "--anyway" not in arguments:
        print(f"Pydantic AI {here} is the newest supported release and the oldest: `make test` tests both.")
        return 0
    python = VENV / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pinned = f"pydantic-ai-slim[openai]=={oldest}.*"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[test]", pinned], check=True)
    options = [one for one in arguments if one != "--anyway"]
    return subprocess.call([python, "-m", "pytest", "-n", "2", *(options or ["tests/agents"])], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
