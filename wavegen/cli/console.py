"""Output of all commands: tables and JSON to standard output; errors, notices and progress to standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

if TYPE_CHECKING:
    from wavegen.report.tables import Table


_error_stream: TextIO | None = None  # standard error for error messages while notices are discarded


@contextmanager
def quiet() -> Iterator[None]:
    """Discard standard error, except for error messages."""
    global _error_stream
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        _error_stream = sys.stderr
        try:
            with redirect_stderr(nowhere):
                yield
        finally:
            _error_stream = None


def print_error(text: str) -> None:
    """Print an error, line by line, to standard error."""
    for line in text.splitlines():
        typer.echo(f"error: {line}", file=_error_stream or sys.stderr)


def print_notice(text: str) -> None:
    """Print a notice to standard error; standard output is for results."""
    typer.echo(text, err=True)


def ignore_text(text: str) -> None:
    """Print nothing: in a training of several processes only the main one prints."""


def print_tables(tables: Sequence[Table], file: TextIO | None = None) -> None:
    """Print tables, to standard output by default."""
    from wavegen.report.tables import print_tables

    print_tables(tables, file or sys.stdout)


def print_json(document: Any) -> None:
    """Print a document as JSON; numbers that are not finite, which JSON lacks, become null."""
    typer.echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def data_progress(what: str = "reading recordings", unit: str = "file") -> Any:
    """Return a progress callback that shows a bar from its first call to its last."""
    from wavegen.cli.progress import ProgressBar

    bars: list[ProgressBar] = []

    def progress(done: int, total: int) -> None:
        if not bars:
            bars.append(ProgressBar(what, total, unit=unit))
        bars[0].move_to(done)
        if done >= total:
            bars.pop().__exit__(None, None, None)

    return progress


def shorten_path(path: Any) -> str:
    """Return a path that fits on a line, control characters escaped."""
    text = repr(os.fsdecode(path))[1:-1]
    return text if len(text) <= 200 else f"{text[:200]}..."
