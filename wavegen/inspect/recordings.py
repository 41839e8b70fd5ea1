"""Folders of recordings, by headers and on request by levels; folders and files of series of numbers."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from wavegen.audio.read import IS_GENERATED, SERIES_ENDINGS, AudioInfo, find_audio, find_series, probe
from wavegen.data.corpus import Progress, features_path
from wavegen.data.sources import Source, find_sources, list_sources
from wavegen.device import ThreadPool
from wavegen.errors import AudioError, UsageError
from wavegen.inspect.audio import ClipLevels, FolderLevels, Levels, Spread, measure_clip
from wavegen.series.files import Values, read_series, try_series
from wavegen.text import printable

T = TypeVar("T")

# Headers come at 16,000 a second from memory with any number of threads; from a disk or a network that has to be waited
# for, threads wait side by side.
THREADS = 8


@dataclass(frozen=True)
class FormatFacts:
    """Files of one format.

    Attributes:
        container, encoding: libsndfile's names.
        bits: per sample; None for lossy encodings.
    """

    container: str
    encoding: str
    bits: int | None
    rate_hz: int
    channels: int
    files: int
    minutes: float


@dataclass(frozen=True)
class FileFacts:
    """A file that can be used; its levels are known where it was decoded."""

    name: str
    seconds: float | None
    rate_hz: int
    channels: int
    level: Levels | None


@dataclass(frozen=True)
class UnusableFile:
    """A file that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class FolderFacts:
    """A folder of recordings.

    Attributes:
        ignored_entries: no audio, or hidden.
        feature_files: recordings that have a file of features beside them.
        minutes: of the files of known length together.
        seconds: of each of them.
        formats: the one with most minutes first.
        levels: of all files together, where they were decoded.
    """

    kind = "folder"
    path: str
    usable_files: int
    unusable_files: int
    ignored_entries: int
    feature_files: int
    files_of_unknown_length: int
    minutes: float
    seconds: Spread | None
    formats: list[FormatFacts]
    unusable: list[UnusableFile]
    files: list[FileFacts]
    levels: FolderLevels | None


def inspect_folder(
    given: Source | Sequence[Source], progress: Progress | None = None, *, decode: bool = False
) -> FolderFacts:
    """Read the headers of recordings.

    Args:
        given: as ``wavegen.data.sources.find_sources``.
        progress: called with (files read, files in all); where the files are decoded, for each of the two passes.
        decode: decode every file too, and measure its levels.

    Raises:
        UsageError: there is nothing at a place.
        DataError: a folder cannot be listed.
    """
    sources = find_sources(given)
    folder, found = sources.root, sources.found
    headers, unreadable = read_files(_read_header, folder, found.names, progress)
    reasons, clips = {**dict(found.unusable), **unreadable}, dict[str, ClipLevels]()
    if decode:
        clips, damaged = read_files(measure_clip, folder, list(headers), progress, min(THREADS, os.cpu_count() or 1))
        reasons |= damaged
        headers = {name: headers[name] for name in clips}
    files = []
    for name, header in headers.items():
        seconds, levels = (clips[name].seconds, clips[name].levels) if decode else (header.seconds, None)
        files.append(FileFacts(name, seconds, header.rate_hz, header.channels, levels))
    known = [file.seconds for file in files if file.seconds is not None]
    return FolderFacts(
        path=str(given) if isinstance(given, str | Path) else list_sources(given),
        usable_files=len(files),
        unusable_files=len(reasons),
        ignored_entries=found.n_ignored,
        feature_files=sum(features_path(folder / file.name).is_file() for file in files),
        files_of_unknown_length=len(files) - len(known),
        minutes=sum(known) / 60,
        seconds=Spread.of(known),
        formats=_formats(files, list(headers.values())),
        unusable=[UnusableFile(name, reason) for name, reason in sorted(reasons.items())],
        files=files,
        levels=FolderLevels.of(clips) if decode else None,
    )


def _formats(files: Sequence[FileFacts], headers: Sequence[AudioInfo]) -> list[FormatFacts]:
    groups: dict[tuple[str, str, int | None, int, int], list[float]] = defaultdict(list)
    for file, header in zip(files, headers, strict=True):
        shared = (header.container, header.encoding, header.bits, header.rate_hz, header.channels)
        groups[shared].append(file.seconds or 0.0)
    formats = [FormatFacts(*shared, len(lengths), sum(lengths) / 60) for shared, lengths in groups.items()]
    return sorted(formats, key=lambda each: (-each.minutes, -each.files, repr(each)))


def read_files(
    read: Callable[[Path], T | str],
    folder: Path,
    names: Sequence[str],
    progress: Progress | None,
    threads: int = THREADS,
) -> tuple[dict[str, T], dict[str, str]]:
    """Read files of a folder side by side.

    Returns:
        What was read of each file, by its name, and why the others cannot be used.
    """

    def attempt(name: str) -> T | str:
        try:
            return read(folder / name)
        except (AudioError, UsageError) as error:
            return str(error).removeprefix(f"{printable(folder / name)}: ")

    results: list[T | str] = []
    with ThreadPool(threads, "files") as pool:
        for result in pool.map(attempt, names):
            results.append(result)
            if progress:
                progress(len(results), len(names))
    by_name = dict(zip(names, results, strict=True))
    unusable = {name: result for name, result in by_name.items() if isinstance(result, str)}
    return {name: result for name, result in by_name.items() if not isinstance(result, str)}, unusable


def _read_header(path: Path) -> AudioInfo | str:
    header = probe(path)
    if header.is_generated:
        return IS_GENERATED
    return "no audio in it (0 samples)" if header.frames == 0 else header


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
class SeriesFacts:
    """A folder or a file of series; ``shortest``, ``median`` and ``longest`` are lengths in points."""

    kind = "series"
    path: str
    files: int
    series: list[OneSeriesFacts]
    points: int
    lengths: Spread | None
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
        whole = read_series(file) if found is None else try_series(file, takes_forecasts=False)
        if progress:
            progress(done, len(files))
        if isinstance(whole, str):
            unusable[name] = whole
        else:
            series |= whole.named(name)
    lengths = list(map(len, series.values()))
    return SeriesFacts(
        path=str(path),
        files=len(files),
        series=[OneSeriesFacts.of(name, values) for name, values in series.items()],
        points=sum(lengths),
        lengths=Spread.of(lengths),
        unusable=[UnusableFile(name, reason) for name, reason in sorted(unusable.items())],
    )
