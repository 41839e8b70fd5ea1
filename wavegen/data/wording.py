"""How messages count and list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SHOWN = 5  # names or reasons in one message


def count_of(things: Sequence[str], noun: str) -> str:
    """How many things there are, up to the verb."""
    return f"1 {noun} is" if len(things) == 1 else f"{len(things)} {noun}s are"


def first_few(lines: Iterable[str]) -> str:
    """The first few, and how many more there are."""
    lines = list(lines)
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more
