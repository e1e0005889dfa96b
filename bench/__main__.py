"""The command: `make bench`, or `python -m bench` where both environments exist."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from bench import machine
from bench.catalogue import CELLS, FULL, QUICK, SYSTEMS
from bench.children import ROOT, Interpreters
from bench.report import page, table
from bench.session import Results, Session

PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> int:
    options = _parser().parse_args()
    sizes = QUICK if options.quick else FULL
    if options.rounds:
        sizes = dataclasses.replace(sizes, rounds=options.rounds, slow_rounds=min(options.rounds, FULL.slow_rounds))
    cells = [cell for cell in CELLS if any(word in cell.name for word in options.only or [""])]
    systems = SYSTEMS[:1] if options.without_dbos else SYSTEMS
    if not options.without_dbos and not options.dbos_python.exists():
        print(
            f"{options.dbos_python} does not exist: `make bench` makes it, --without-dbos does without", file=sys.stderr
        )
        return 2
    python = options.dbos_python.absolute()  # not resolved: the link is what makes it a virtual environment
    session = Session(sizes, systems, Interpreters(python), lambda line: print(line, flush=True))
    results = session.measure(cells)
    print(f"\n{table(results)}")
    _write(results, options, whole=not (options.quick or options.only or options.without_dbos))
    return 1 if results.failures else 0


def _write(results: Results, options: argparse.Namespace, *, whole: bool) -> None:
    path: Path | None = options.out or (PAGE if whole else None)
    if path is not None:
        path.write_text(page(results, machine.facts()), encoding="utf-8")
        print(f"\nwritten: {path}")
    if options.json is not None:
        figures = {f"{cell} {system}": rounds for (cell, system), rounds in results.figures.items()}
        facts = {"machine": machine.facts(), "versions": results.versions, "fdatasync_ms": results.fdatasync_ms}
        options.json.write_text(json.dumps({**facts, "figures": figures}, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="Measure Outlive beside DBOS.")
    parser.add_argument("--quick", action="store_true", help="two minutes, one round; prints, writes no page")
    parser.add_argument("--rounds", type=int, help="how often each measurement is made")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="cells whose name has one of these words in it")
    parser.add_argument("--without-dbos", action="store_true", help="measure Outlive alone")
    parser.add_argument("--out", type=Path, help="where to write the page (default: docs/benchmarks.md, if complete)")
    parser.add_argument("--json", type=Path, help="write the figures of every round there too")
    parser.add_argument(
        "--dbos-python", type=Path, default=ROOT / ".venv-dbos" / "bin" / "python", help="the Python that has DBOS"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
