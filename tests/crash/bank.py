"""A bank: money moves between accounts, each transfer one transaction and one booking."""

from pathlib import Path

ledger: Path
