"""What all commands say alike: notices and complaints on standard error, tables, bars of progress."""

from __future__ import annotations

import json
import math
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


def show_json(document: Any) -> None:
    """Print a document for programs; numbers that are not finite, which JSON has no word for, are null."""
    typer.echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


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
