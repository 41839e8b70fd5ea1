"""What all commands say alike: notices and complaints on standard error, tables, bars of progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

import typer

if TYPE_CHECKING:
    from wavegen.report.tables import Table


def complain(text: str) -> None:
    """Say what went wrong."""
    for line in text.splitlines():
        typer.echo(f"error: {line}", err=True)


def notice(text: str) -> None:
    """Say what the user should know; standard output is for results."""
    typer.echo(text, err=True)


def silence(text: str) -> None:
    """Say nothing: another process does."""


def show(tables: Sequence[Table], file: TextIO | None = None) -> None:
    """Print tables."""
    from wavegen.report.tables import print_tables

    print_tables(tables, file or sys.stdout)


def data_progress(what: str = "reading recordings", unit: str = "file") -> Any:
    """A progress callback that shows a bar only where there is something to wait for."""
    from wavegen.report.terminal import ProgressBar

    bars: list[ProgressBar] = []

    def progress(done: int, total: int) -> None:
        if not bars:
            bars.append(ProgressBar(what, total, unit=unit))
        bars[0].move_to(done)
        if done >= total:
            bars.pop().__exit__(None, None, None)

    return progress


def shortened(path: Any) -> str:
    """A path that fits on a line."""
    text = repr(os.fsdecode(path))[1:-1]  # control characters escaped
    return text if len(text) <= 200 else f"{text[:200]}..."
