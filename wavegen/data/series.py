"""Series of numbers as a corpus: which are used, for what, and which are not and why."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.finding import FoundAudio, find_files
from wavegen.data.corpus import Clip, Corpus, Split
from wavegen.data.listing import File, list_files, look_up
from wavegen.data.series_files import ENDINGS, Values, read_series
from wavegen.data.split import split_clips
from wavegen.data.waves import N_TRAIN, N_VALIDATION, make_waves
from wavegen.errors import DataError
from wavegen.text import list_first, pluralize, printable

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StoredSeries:
    """A whole series in memory.

    Attributes:
        values: (T,) float64.
        content_hash: SHA-256 of the values, in hexadecimal.
    """

    values: Values = field(compare=False)
    content_hash: str

    @property
    def n_samples(self) -> int:
        """Its length."""
        return len(self.values)

    @property
    def peak(self) -> float:
        """The largest absolute value."""
        return float(np.abs(self.values).max())

    def classes(self) -> Values:
        """The values."""
        return self.values


def values_of(clip: Clip) -> Values:
    """The (n_samples,) values of a clip that is a series."""
    values: npt.NDArray[Any] = clip.classes()
    return np.asarray(values, dtype=np.float64)


def find_series(folder: Path) -> FoundAudio:
    """List the files of series in a folder; as ``wavegen.audio.finding.find_files``."""
    return find_files(folder, ENDINGS, frozenset(), "series (.npy, .csv)")


def build_series_corpus(
    folder: Path, *, validation: float | str, horizon: int, progress: Progress | None = None
) -> Corpus:
    """Read all series of a folder, or of one file, and split them.

    Args:
        folder: searched with all folders below it.
        validation: as ``wavegen.data.recordings.build_corpus``; a share is of the series.
        horizon: values that are forecast; a series has one more at least, and so has each part of one.
        progress: called with (files done, files in all).

    Raises:
        UsageError: the folder, or what ``validation`` names, does not exist.
        DataError: there is nothing to train on, or nothing to validate on where it was asked for by name.
    """
    held_out = None if isinstance(validation, int | float) else look_up(Path(validation), folder)
    unusable: dict[str, str] = {}
    if folder.is_file():
        files, n_ignored = [File(folder.name, folder, "train", "", False)], 0
    else:
        files, unusable, n_ignored = list_files(folder, held_out, find_series)
    clips: list[Clip] = []
    notes: list[str] = []
    for done, file in enumerate(files, start=1):
        try:
            whole = read_series(file.path)
        except DataError as error:
            unusable[file.name] = reason_of(error, file.path)
            continue
        finally:
            if progress:
                progress(done, len(files))
        if whole.left_out:
            columns = [f"'{printable(name)}'" for name in whole.left_out]
            what = f"{pluralize(len(columns), 'column is')} left out, without numbers"
            notes.append(f"{printable(file.name)}: {what}: {list_first(columns)}.")
        for name, values in whole.series.items():
            full_name = f"{file.name}[{name}]" if name else file.name
            if len(values) <= horizon:
                unusable[full_name] = (
                    f"too short: {len(values):,} values, to forecast {horizon:,} takes {horizon + 1:,}"
                )
            else:
                clips.append(_clip(full_name, values, file.split))
    if not clips:
        raise DataError(_nothing_usable(folder, unusable, n_ignored))
    clips, more = split_clips(clips, validation, folder, "series", horizon + 1)
    return Corpus(
        folder=folder,
        sample_rate_hz=1,
        clips=tuple(clips),
        unusable=tuple(sorted(unusable.items())),
        shortened=(),
        n_ignored=n_ignored,
        notes=(*notes, *more),
    )


def build_waves_corpus(n_points: int) -> Corpus:
    """The made-up series to train and to validate on; those to test on are no part of it."""
    splits: tuple[tuple[Split, int, int], ...] = (
        ("train", 0, N_TRAIN),
        ("validation", N_TRAIN, N_TRAIN + N_VALIDATION),
    )
    waves = _waves(n_points)
    return Corpus(
        folder=Path("waves"),
        sample_rate_hz=1,
        clips=tuple(_clip(f"waves[{i}]", waves[i], split) for split, start, stop in splits for i in range(start, stop)),
        unusable=(),
        shortened=(),
        n_ignored=0,
        notes=("Made-up series; wavegen evaluate --test scores others than the held-out ones.",),
    )


def waves_to_test(n_points: int) -> list[tuple[str, Values]]:
    """The made-up series to test on, by name."""
    waves = _waves(n_points)
    return [(f"waves[{i}]", waves[i]) for i in range(N_TRAIN + N_VALIDATION, len(waves))]


@functools.lru_cache(maxsize=1)
def _waves(n_points: int) -> Values:
    waves = make_waves(n_points)
    waves.setflags(write=False)
    return waves


def series_in(paths: Sequence[Path], horizon: int) -> Iterator[tuple[str, Values] | str]:
    """The series of some files and folders.

    Args:
        paths: to read.
        horizon: values that are forecast.

    Yields:
        Each series with its name, or a sentence on what is left out.

    Raises:
        UsageError: there is nothing at a path, or a file that was given by name has another ending.
        DataError: a folder cannot be listed.
    """
    for path in paths:
        found = find_series(path) if path.is_dir() else None
        files = [path] if found is None else [path / name for name in found.names]
        for name, reason in () if found is None else found.unusable:
            yield f"left out: {printable(path / name)}: {reason}"
        for file in files:
            try:
                whole = read_series(file)
            except DataError as error:
                yield f"left out: {error}"
                continue
            for name, values in whole.series.items():
                full_name = f"{file}[{name}]" if name else str(file)
                if len(values) > horizon:
                    yield full_name, values
                else:
                    few = f"expected more values than the {horizon} of a forecast, found {len(values)}"
                    yield f"left out: {printable(full_name)}: {few}"


def _clip(name: str, values: Values, split: Split) -> Clip:
    stored = StoredSeries(values, hash_of(values))
    return Clip(name, len(values), None, split, stored.content_hash, 0.0, stored)


def hash_of(values: Values) -> str:
    """SHA-256 of a series's values, in hexadecimal; it depends neither on the file's format nor on its name."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def reason_of(error: DataError, path: Path) -> str:
    """An error without the file's name."""
    reason = str(error).removeprefix(printable(path))
    return f"line {reason[1:]}" if not reason.startswith(": ") else reason[2:]


def _nothing_usable(folder: Path, unusable: dict[str, str], n_ignored: int) -> str:
    where = printable(folder)
    if not unusable:
        return f"{where}: expected series of numbers (.npy, .csv), found none; {n_ignored} other entries were ignored"
    reasons = [f"{printable(name)}: {reason}" for name, reason in sorted(unusable.items())]
    return f"{where}: none of {len(reasons)} can be used: {list_first(reasons)}"
