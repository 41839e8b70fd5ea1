"""A folder or a file of series of numbers: their number, lengths, values, and the unusable files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from wavegen.audio.read import SERIES_ENDINGS, find_audio
from wavegen.errors import DataError
from wavegen.inspect.facts import Facts, Progress
from wavegen.inspect.folder import UnusableFile
from wavegen.series.corpus import find_series, reason_of
from wavegen.series.files import Values, read_series


@dataclass(frozen=True)
class OneSeriesFacts:
    """One series; ``last_value_squared_error`` is that of forecasting each value by the one before."""

    name: str
    points: int
    mean: float
    standard_deviation: float
    lowest: float
    highest: float
    last_value_squared_error: float

    @classmethod
    def of(cls, name: str, values: Values) -> OneSeriesFacts:
        """Measure a series."""
        error = float(np.square(np.diff(values)).mean()) if len(values) > 1 else 0.0
        mean, deviation = float(values.mean()), float(values.std())
        return cls(name, len(values), mean, deviation, float(values.min()), float(values.max()), error)


@dataclass(frozen=True, kw_only=True)
class SeriesFacts(Facts):
    """A folder or a file of series; ``shortest``, ``median`` and ``longest`` are lengths in points."""

    kind = "series"
    path: str
    files: int
    series: list[OneSeriesFacts]
    points: int
    shortest: int | None
    median: float | None
    longest: int | None
    unusable: list[UnusableFile]


def holds_series(path: Path) -> bool:
    """Return whether a path is a file of series, or a folder that has some and no audio."""
    if path.is_dir():
        return bool(find_series(path).names) and not find_audio(path).names
    return path.suffix.lower() in SERIES_ENDINGS


def inspect_series(path: Path, progress: Progress | None = None) -> SeriesFacts:
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
    return SeriesFacts(
        path=str(path),
        files=len(files),
        series=[OneSeriesFacts.of(name, values) for name, values in series.items()],
        points=sum(lengths),
        shortest=lengths[0] if lengths else None,
        median=median(lengths) if lengths else None,
        longest=lengths[-1] if lengths else None,
        unusable=[UnusableFile(name, reason) for name, reason in sorted(unusable.items())],
    )
