"""Tables for the terminal."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from wavegen.text import printable

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
    rows: Sequence[Sequence[str]] = field(default_factory=tuple)
    more: str = ""


def facts(title: str, **values: object) -> Table:
    """Return a table of named values; underscores in the names become spaces, None values are left out."""
    return Table(
        title, (), [(name.replace("_", " "), str(value)) for name, value in values.items() if value is not None]
    )


def first_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], limit: int = ROWS) -> Table:
    """Return a table of at most ``limit`` rows, with the number of rows left out."""
    left_out = len(rows) - limit
    return Table(title, columns, rows[:limit], f"and {left_out:,} more" if left_out > 0 else "")


def print_tables(tables: Sequence[Table], file: TextIO) -> None:
    """Print tables to a stream, each with an empty line below.

    Bold and dim text only on a terminal without NO_COLOR; as wide as the terminal or $COLUMNS.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    plain = bool(os.environ.get("NO_COLOR"))
    console = Console(file=file, highlight=False, soft_wrap=False, color_system=None if plain else "auto")
    console.width = max(console.width, NARROWEST)
    with console.capture() as capture:
        for table in tables:
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
        columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
        numeric = [_is_numeric(cells) for cells in columns]
        longest = [max(map(len, (heading, *cells))) for heading, cells in zip(table.columns, columns, strict=True)]
        needed = sum(n if is_number else min(n, 16) for n, is_number in zip(longest, numeric, strict=True))
        tight = needed + 3 * len(columns) > width
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0 if tight else 1))
        for heading, is_number in zip(table.columns, numeric, strict=True):
            drawn.add_column(
                heading.replace(" ", "\n") if tight else heading,
                justify="right" if is_number else "left",
                no_wrap=is_number,
                overflow="fold",
            )
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def _is_numeric(cells: Sequence[str]) -> bool:
    return all(_NUMBER.fullmatch(cell) for cell in cells)


def as_yaml(value: Any) -> str:
    """Return the value of a key on one line."""
    return printable(value) if isinstance(value, str) else json.dumps(value)
