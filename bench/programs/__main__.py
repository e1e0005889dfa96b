"""Runs one scenario on one system: `python -m bench.programs SYSTEM SCENARIO JSON`. Started by the runner."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys

from bench.programs import scenarios
from bench.programs.system import System
from bench.programs.talk import Talk


async def main(name: str, scenario: str, arguments: str) -> None:
    talk = Talk()
    system: System = importlib.import_module(f"bench.programs.{name}_side").make()
    talk.say(versions=system.versions())
    module = scenarios if hasattr(scenarios, scenario) else importlib.import_module("bench.programs.crowds")
    await getattr(module, scenario)(system, talk, **json.loads(arguments))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
    os._exit(0)  # threads that a system leaves behind are not waited for
