"""Reads Markdown pages: fenced blocks with their place, and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.house.source import ROOT

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One fenced block; `title` names the file that it is the content of."""

    language: str
    title: str | None
    info: str
    body: str
    line: int


def pages() -> list[Path]:
    """List every page for readers, README first."""
    top = [path for path in sorted(ROOT.glob("*.md")) if path.name != "README.md"]
    return [ROOT / "README.md", *top, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        indent, info = len(match["indent"]), match["info"].strip()
        body = "\n".join(line[indent:] for line in match["body"].splitlines()) + "\n"
        title = _TITLE.search(info)
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(info.split(" ")[0], title[1] if title else None, info, body, line))
    return found


def links(page: Path) -> list[str]:
    """List the targets of links outside code."""
    return _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
