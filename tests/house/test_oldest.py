"""The oldest Pydantic AI that is supported is tested where the newest is: by one target that CI executes."""

from __future__ import annotations

import re
import tomllib

from tests.house.source import ROOT
from tools.oldest import find_oldest


def test_ci_tests_the_lower_bound() -> None:
    assert "oldest" in (ROOT / ".ci" / "run").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        one for extra in project["optional-dependencies"].values() for one in extra if one.startswith("pydantic-ai")
    ]
    bounds = {re.sub(r".*>=|,.*", "", one) for one in wanted}
    assert bounds == {find_oldest()}, "all extras have one bound"
    assert f"{find_oldest()} is the first release" in (ROOT / "docs/decisions/0001-dependencies.md").read_text()
