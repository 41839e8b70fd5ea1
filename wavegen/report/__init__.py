"""Reports: tables for the terminal, here; what fills them, plots, and a page about a run in the modules."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

from wavegen.text import first, pluralize, printable

if TYPE_CHECKING:
    from rich.table import Table as RichTable

ROWS = 12  # of a table that could be long
NARROWEST = 40  # characters: below, columns would be cut off or left out
_NUMBER = re.compile(r"[-+]?\d[\d,.:]*(e[-+]?\d+)?( ?%| [a-zA-Z/]+)?|-|")


@dataclass(frozen=True)
class Table:
    """A table to print.

    Args:
        title: one line above.
        columns: headings; empty for a table of facts, whose first column names them.
        rows: texts; as many in each as there are columns.
        more: one line below, such as how many rows were left out.
    """

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    more: str = ""


def facts(title: str, **values: object) -> Table:
    """Return a table of named values; underscores in the names become spaces, None values are left out."""
    rows = [(name.replace("_", " "), str(value)) for name, value in values.items() if value is not None]
    return Table(title, (), rows)


def first_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], limit: int = ROWS) -> Table:
    """Return a table of at most ``limit`` rows, with the number of rows left out."""
    shown, left_out = first(rows, limit)
    return Table(title, columns, shown, f"and {left_out:,} more; --full lists them" if left_out else "")


def counted(count: int, noun: str) -> str | None:
    """Return a count with its noun; None for 0."""
    return pluralize(count, noun) if count else None


def print_tables(tables: Sequence[Table], file: TextIO | None = None) -> None:
    """Print tables, to standard output by default, each with an empty line below; those without rows are left out.

    Bold and dim text only on a terminal without NO_COLOR; as wide as the terminal or $COLUMNS.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    file = file or sys.stdout
    plain = bool(os.environ.get("NO_COLOR"))
    console = Console(file=file, highlight=False, soft_wrap=False, color_system=None if plain else "auto")
    console.width = max(console.width, NARROWEST)
    with console.capture() as capture:
        for table in (table for table in tables if table.rows):
            console.print(Text(table.title, style="bold"))
            console.print(Padding(_draw(table, console.width), (0, 0, 0, 1)))
            if table.more:
                console.print(Padding(Text(table.more, style="dim"), (0, 0, 0, 2)))
            console.print()
    file.write(re.sub(r" +$", "", capture.get(), flags=re.MULTILINE))


def _draw(table: Table, width: int) -> RichTable:
    """Lay a table out for a terminal's width. Texts are wrapped, numbers never."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    if not table.columns:
        drawn = RichTable(box=None, show_header=False)
        drawn.add_column(style="dim", no_wrap=True)
        drawn.add_column(overflow="fold")
    else:
        columns = list(zip(table.columns, zip(*table.rows, strict=True), strict=True))
        numeric = [all(map(_NUMBER.fullmatch, cells)) for _, cells in columns]
        longest = [max(map(len, (heading, *cells))) for heading, cells in columns]
        needed = sum(n if is_number else min(n, 16) for n, is_number in zip(longest, numeric, strict=True))
        tight = needed + 3 * len(columns) > width
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0 if tight else 1))
        # names are kept in one piece where there is room
        named = max((len(word) for row in table.rows for word in row[0].split()), default=0) if width >= 80 else 0
        for (heading, _), is_number in zip(columns, numeric, strict=True):
            justify: Literal["left", "right"] = "right" if is_number else "left"
            name = heading.replace(" ", "\n") if tight else heading
            least = None if drawn.columns else min(named, 32)
            drawn.add_column(name, justify=justify, no_wrap=is_number, overflow="fold", min_width=least)
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def as_yaml(value: Any) -> str:
    """Return the value of a key on one line."""
    return printable(value) if isinstance(value, str) else json.dumps(value)
