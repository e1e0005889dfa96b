"""What children are called: the same on every replay, another name in another generation of the parent. Pure."""

from __future__ import annotations

from outlive.codec.payload import digest
from outlive.limits import ID_MAX_CHARS

_DIGEST_CHARS = 17  # a tilde and sixteen digits


def child_id(parent_id: str, key: str, generation: int) -> str:
    """Give the id of the child that a parent starts at a key in a generation."""
    plain = f"{parent_id}/{key}" + (f"@{generation}" if generation else "")
    return plain if len(plain) <= ID_MAX_CHARS else f"{plain[: ID_MAX_CHARS - _DIGEST_CHARS]}~{digest(plain)}"


def closing_reason(parent_id: str) -> str:
    """Give the reason for which children that may not outlive their parent are asked to cancel."""
    return f"its parent {parent_id!r} has ended"


def is_child_id(run_id: str, parent_id: str, key: str) -> bool:
    """Whether a child has its id from its parent, not from whoever wrote the workflow."""
    return run_id.startswith(f"{parent_id}/{key}"[: ID_MAX_CHARS - _DIGEST_CHARS])
