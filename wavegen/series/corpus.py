"""Series of numbers as a corpus, split and normalized."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from wavegen.audio.read import find_series
from wavegen.config import Config
from wavegen.data.corpus import Corpus, CorpusItem, Progress, Split, split_clips
from wavegen.data.sources import Source, find_sources, list_files, list_sources, nothing_usable
from wavegen.errors import DataError, UsageError
from wavegen.series.files import Values, try_series
from wavegen.text import list_first, pluralize, printable

N_TRAIN, N_VALIDATION, N_TEST = 7000, 2000, 1000  # synthetic series
SYNTHETIC_SEED = 20190905  # of these series alone: a training's seed leaves its data as they are
ROUNDING = 1e-12  # a standard deviation below this share of the largest value is rounding error


@dataclass(frozen=True)
class Series(CorpusItem):
    """One series of numbers, or the first or last part of one; its content is the whole series's values.

    Attributes:
        values: (T,) float64, T >= 1.
    """

    values: Values = field(compare=False, repr=False)

    @classmethod
    def of(cls, name: str, split: Split, values: Values) -> Self:
        """Make a whole series of its values."""
        return cls(name, len(values), None, split, hash_of(values), values)

    def part(self, name: str, split: Split, start: int, stop: int) -> Self:
        """Return the values from start to stop as a series of their own."""
        return replace(self, name=name, n_samples=stop - start, split=split, values=self.values[start:stop])


@dataclass(frozen=True)
class Normalization:
    """The normalization of values: the network sees (x - offset) / scale.

    Args:
        offset: the mean of the training series.
        scale: their standard deviation.
    """

    offset: float
    scale: float

    @classmethod
    def fit(cls, series: Sequence[Values]) -> Normalization:
        """Compute the mean and standard deviation of some series; constant ones have the scale 1."""
        n_values = sum(map(len, series))
        mean = sum(float(values.sum()) for values in series) / n_values
        variance = sum(float(np.square(values - mean).sum()) for values in series) / n_values
        deviation, largest = variance**0.5, max(float(np.abs(values).max()) for values in series)
        return cls(mean, deviation if deviation > ROUNDING * largest else 1.0)

    def normalize(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Return values as the network sees them."""
        return ((values - self.offset) / self.scale).astype(np.float32)

    def denormalize(self, normalized: npt.NDArray[np.floating]) -> Values:
        """Return values in the data's own units."""
        return np.asarray(normalized, dtype=np.float64) * self.scale + self.offset

    def error_scale(self, kind: str) -> float:
        """Return the factor from a squared or absolute error of normalized values to one in the data's own units."""
        return self.scale * self.scale if kind == "squared" else self.scale


def build_normalization(config: Config) -> Normalization:
    """Build the normalization of a configuration whose offset and scale are known."""
    return Normalization(float(config.series.offset), float(config.series.scale))


def with_normalization(config: Config, corpus: Corpus[Series]) -> Config:
    """Return the configuration with the offset and the scale of its corpus, where they are ``auto``."""
    fitted = Normalization.fit([series.values for series in corpus.train])
    given = {"offset": config.series.offset, "scale": config.series.scale}
    decided = {key: getattr(fitted, key) if value == "auto" else value for key, value in given.items()}
    return config.with_values("series", **decided)


def read_corpus(config: Config, progress: Progress | None = None) -> Corpus[Series]:
    """Read or make the series that a configuration names.

    Raises:
        UsageError: the configuration names no folder, or there is none.
        DataError: there is nothing to train on.
    """
    data = config.data
    if config.series.synthetic is not None:
        return build_synthetic_corpus(config.series.points)
    if not data.sources:
        raise UsageError("expected a folder of series: wavegen train DIR, or data.folder in the configuration")
    longer_than = config.output.horizon + config.model.positions.start
    return build_corpus(data.sources, validation=data.validation, longer_than=longer_than, progress=progress)


def build_corpus(
    given: Source | Sequence[Source], *, validation: float | str, longer_than: int, progress: Progress | None = None
) -> Corpus[Series]:
    """Read all series of some folders and files, and split them.

    Args:
        given: as ``wavegen.data.sources.find_sources``.
        validation: as ``wavegen.data.recordings.read_recordings``; a share is of the series.
        longer_than: values that each series, and each part of one, is longer than: the horizon, but for strides.
        progress: called with (files done, files in all).

    Raises:
        UsageError: what is given, or what ``validation`` names, does not exist.
        DataError: there is nothing to train on, or nothing to validate on where it was asked for by name.
    """
    sources = find_sources(given, find_series)
    files, unusable, n_ignored = list_files(sources, validation, find_series)
    found: list[Series] = []
    notes: list[str] = []
    for done, file in enumerate(files, start=1):
        whole = try_series(file.path, takes_forecasts=False)
        if progress:
            progress(done, len(files))
        if isinstance(whole, str):
            unusable[file.name] = whole
            continue
        if whole.left_out:
            columns = [f"'{printable(name)}'" for name in whole.left_out]
            what = f"{pluralize(len(columns), 'column is')} left out, without numbers"
            notes.append(f"{printable(file.name)}: {what}: {list_first(columns)}.")
        for name, values in whole.named(file.name).items():
            if len(values) > longer_than:
                found.append(Series.of(name, file.split, values))
            else:
                unusable[name] = f"too short: {len(values):,} values, expected {longer_than + 1:,} or more"
    if not found:
        raise DataError(nothing_usable(list_sources(given), "series of numbers (.npy, .csv)", unusable, n_ignored))
    series, more = split_clips(found, validation, sources.root, "series", longer_than + 1)
    return Corpus(sources.root, tuple(series), tuple(sorted(unusable.items())), notes=(*notes, *more))


def build_synthetic_corpus(n_points: int) -> Corpus[Series]:
    """Make the training and validation series; the test series are not in the corpus."""
    series = [
        Series.of(f"waves[{i}]", "train" if i < N_TRAIN else "validation", values)
        for i, values in enumerate(make_sine_mixtures(n_points)[: N_TRAIN + N_VALIDATION])
    ]
    note = "Synthetic series; wavegen evaluate --test scores others than the held-out ones."
    return Corpus(Path("waves"), tuple(series), notes=(note,))


def synthetic_test_series(n_points: int) -> list[tuple[str, Values]]:
    """Make the synthetic test series, each with its name."""
    return [(f"waves[{i}]", row) for i, row in enumerate(make_sine_mixtures(n_points)) if i >= N_TRAIN + N_VALIDATION]


def make_sine_mixtures(n_points: int, n_series: int = N_TRAIN + N_VALIDATION + N_TEST) -> Values:
    """Make the synthetic series, the same at every call: sums of two sines and noise, as in a textbook on time series.

        x(t) = 0.5 sin((t - o1) (10 f1 + 10)) + 0.2 sin((t - o2) (20 f2 + 20)) + 0.1 (u - 0.5)

    with f1, f2, o1 and o2 uniform in [0, 1) for each series, u for each point, and t from 0 to 1. (A. Géron,
    "Hands-On Machine Learning with Scikit-Learn, Keras, and TensorFlow", 2nd edition, 2019, chapter 15.)

    Args:
        n_points: length of each series.
        n_series: how many of them.

    Returns:
        (n_series, n_points): those to train on, then those to validate on, then those to test on.
    """
    rng = np.random.Generator(np.random.Philox(SYNTHETIC_SEED))
    f1, f2, o1, o2 = rng.random((4, n_series, 1))
    t = np.linspace(0.0, 1.0, n_points)
    waves = 0.5 * np.sin((t - o1) * (10 * f1 + 10)) + 0.2 * np.sin((t - o2) * (20 * f2 + 20))
    noise: Values = 0.1 * (rng.random((n_series, n_points)) - 0.5)
    return np.asarray(waves + noise)


def series_in(paths: Sequence[Path], longer_than: int, notice: Callable[[str], None]) -> Iterator[tuple[str, Values]]:
    """Read the series of some files and folders.

    Args:
        paths: to read.
        longer_than: values that each series is longer than.
        notice: called with what is left out, and why.

    Yields:
        Each series with its name.

    Raises:
        UsageError: there is nothing at a path, or a file that was given by name has another ending.
        DataError: a folder cannot be listed.
    """
    for path in paths:
        found = find_series(path) if path.is_dir() else None
        for name, reason in () if found is None else found.unusable:
            notice(f"left out: {printable(path / name)}: {reason}")
        for file in [path] if found is None else [path / name for name in found.names]:
            whole = try_series(file, takes_forecasts=found is None)
            if isinstance(whole, str):
                notice(f"left out: {printable(file)}: {whole}")
                continue
            for name, values in whole.named(str(file)).items():
                if len(values) > longer_than:
                    yield name, values
                else:
                    few = f"expected {longer_than + 1:,} values or more, found {len(values):,}"
                    notice(f"left out: {printable(name)}: {few}")


def hash_of(values: Values) -> str:
    """Return the SHA-256 of a series's values in hexadecimal; the file's format and name do not change it."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
