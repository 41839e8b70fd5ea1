"""Texts of messages: plurals, lists, paths, durations and sizes."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def pluralize(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: 1 file, 1,234 files.

    Args:
        count: of the things.
        noun: for one of them, with a verb where one follows: ``"file"``, ``"file is"``.
        plural: for any other number; by default the noun with an s, and "are" for "is".
    """
    if plural is None:
        plural = f"{noun.removesuffix(' is')}s are" if noun.endswith(" is") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


_in_full = False  # are lists


def list_in_full(wanted: bool) -> None:
    """Let the lists of all messages and tables have all their items, or the first ones."""
    global _in_full
    _in_full = wanted


def first(items: Iterable[T], limit: int) -> tuple[list[T], int]:
    """Return the first items, and how many more there are; all items after ``list_in_full(True)``."""
    every = list(items)
    shown = every if _in_full else every[:limit]
    return shown, len(every) - len(shown)


def evenly(items: Sequence[T], most: int) -> list[T]:
    """Return the first item, the last, and others evenly spread between them: ``most`` in all, 2 or more."""
    last = len(items) - 1
    return list(items) if last < most else [items[round(i * last / (most - 1))] for i in range(most)]


def list_first(items: Iterable[str], limit: int = 3, separator: str = "; ") -> str:
    """Return the first items on a line, and how many more there are."""
    shown, n_more = first(items, limit)
    return separator.join([*shown, *([f"and {n_more:,} more"] if n_more else [])])


def group_names(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Group printable names by what they share: of (name, shared)."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name, shared in names:
        groups[shared].append(printable(name))
    return groups


def group_by_reason(reasons: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join the names of what shares a reason: (names, reason) of (name, reason)."""
    return [
        (names[0] if len(names) == 1 else f"{len(names):,} files: {list_first(names)}", reason)
        for reason, names in group_names(reasons).items()
    ]


def expand_home(path: str | Path) -> Path:
    """Return a path, with the home folder for a leading ~ or ~user, as a shell does it."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path's fails where there is no such home)


def printable(path: str | Path) -> str:
    """Return a path as one line of valid text: line breaks, control characters and undecodable bytes are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in str(path)
    )


def guide(name: str = "") -> Path:
    """Return where a guide is installed, by its name: ``"sound"``; the folder of all of them by default."""
    folder = Path(__file__).parent / "docs"
    return folder / f"{name}.md" if name else folder


def describe_kind(path: Path) -> str:
    """Describe the kind of a path that is not a regular file."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        return f"a broken link ({error.strerror})" if path.is_symlink() else f"cannot be read ({error.strerror})"
    return f"{'a folder' if is_folder else 'a pipe, a socket or a device'}, not a file"


def format_duration(seconds: float) -> str:
    """Return a duration: 4.2 s, 3:07 min, 5:12 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02d} min"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d} h"


def format_bytes(n_bytes: int) -> str:
    """Return the size of a file: 812 bytes, 83.2 KiB, 310 MiB, 1.2 GiB."""
    if n_bytes < 1024:
        return f"{n_bytes} bytes"
    power, unit = next((p, u) for p, u in ((1, "KiB"), (2, "MiB"), (3, "GiB")) if n_bytes < 1023.5 * 1024**p or p == 3)
    size = n_bytes / 1024**power
    return f"{size:.1f} {unit}" if size < 99.95 else f"{size:,.0f} {unit}"
