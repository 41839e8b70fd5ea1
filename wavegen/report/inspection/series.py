"""A folder or a file of series of numbers: how many, how long, how large, and what cannot be used."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from wavegen.audio.find import SERIES_ENDINGS, find_audio
from wavegen.errors import DataError
from wavegen.report.inspection.inspection import Inspection, Progress
from wavegen.report.tables import Table, facts, first_rows
from wavegen.series.corpus import find_series, reason_of
from wavegen.series.files import Values, read_series
from wavegen.text import pluralize, printable


def holds_series(path: Path) -> bool:
    """Whether a path is a file of series, or a folder that has some and no audio."""
    if path.is_dir():
        return bool(find_series(path).names) and not find_audio(path).names
    return path.suffix.lower() in SERIES_ENDINGS


def inspect_series(path: Path, progress: Progress | None = None) -> Inspection:
    """Read all series of a folder or a file.

    Args:
        path: of either.
        progress: called with (files read, files in all).

    Raises:
        DataError: a file that was given by name cannot be used, or the folder cannot be listed.
    """
    found = find_series(path) if path.is_dir() else None
    files = {path.name: path} if found is None else {name: path / name for name in found.names}
    unusable = {} if found is None else dict(found.unusable)
    series: dict[str, Values] = {}
    for done, (name, file) in enumerate(files.items(), start=1):
        try:
            whole = read_series(file)
        except DataError as error:
            if found is None:
                raise
            unusable[name] = reason_of(error, file)
            continue
        finally:
            if progress:
                progress(done, len(files))
        series |= {f"{name}[{inside}]" if inside else name: values for inside, values in whole.series.items()}
    lengths = sorted(map(len, series.values()))
    values: dict[str, Any] = {
        "kind": "series",
        "path": str(path),
        "files": len(files),
        "series": [{"name": name, **_facts(each)} for name, each in series.items()],
        "points": sum(lengths),
        "shortest": lengths[0] if lengths else None,
        "median": median(lengths) if lengths else None,
        "longest": lengths[-1] if lengths else None,
        "unusable": [{"name": name, "reason": reason} for name, reason in sorted(unusable.items())],
    }
    return Inspection("series", values, _tables(values))


def _facts(values: Values) -> dict[str, float]:
    return {
        "points": len(values),
        "mean": float(values.mean()),
        "standard_deviation": float(values.std()),
        "lowest": float(values.min()),
        "highest": float(values.max()),
        "last_value_squared_error": float(np.square(np.diff(values)).mean()) if len(values) > 1 else 0.0,
    }


def _tables(found: dict[str, Any]) -> list[Table]:
    n_series, unusable = len(found["series"]), found["unusable"]
    summary = facts(
        printable(found["path"]),
        series=f"{n_series:,}, {found['points']:,} points",
        lengths=f"shortest {found['shortest']:,}, median {found['median']:,.0f}, longest {found['longest']:,}"
        if n_series
        else None,
        unusable=pluralize(len(unusable), "file") if unusable else None,
    )
    rows = [
        (
            printable(each["name"]),
            f"{each['points']:,}",
            *(f"{each[key]:.4g}" for key in ("mean", "standard_deviation", "lowest", "highest")),
            f"{each['last_value_squared_error']:.4g}",
        )
        for each in found["series"]
    ]
    columns = ("series", "points", "mean", "deviation", "lowest", "highest", "last value's error")
    tables = [summary]
    if rows:
        tables.append(first_rows("series", columns, rows))
    if unusable:
        rejected = [(printable(each["name"]), each["reason"]) for each in unusable]
        tables.append(first_rows("cannot be used", ("file", "why"), rejected))
    return tables
