"""Feature files of a corpus: ``name.npy`` beside ``name.wav``, checked, and their columns' mean and deviation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.frames import CHECKED_AT_ONCE, Features, StoredFrames, map_array
from wavegen.config import Config
from wavegen.errors import DataError, UsageError
from wavegen.text import group_names, list_first, pluralize, printable

ROUND = 2**10 * 5**2  # a round number of samples has many factors in common with it
CONSTANT = 1e-6  # a column whose deviation is this part of its mean says nothing


@dataclass(frozen=True)
class ClipFeatures:
    """The features of a clip.

    Attributes:
        path: of the file, which may hold more than those of this clip.
        shape: of the file's array, (F, D) or (F,).
        content_hash: SHA-256 of the file's bytes, in hexadecimal.
        hop_length: samples of a frame.
        n_samples: of the clip.
        first: the clip's first frame.
    """

    path: Path
    shape: tuple[int, ...]
    content_hash: str
    hop_length: int
    n_samples: int
    first: int = 0

    @property
    def columns(self) -> int:
        """Columns D of a frame."""
        return columns_of(self.shape)

    def part(self, start: int, stop: int) -> ClipFeatures:
        """Return the features of the clip's samples from start, a multiple of the hop, to stop."""
        return replace(self, n_samples=stop - start, first=self.first + start // self.hop_length)

    def frames(self) -> StoredFrames:
        """Map the features into memory.

        Raises:
            DataError: the file was removed or changed since it was checked.
        """
        try:
            array = map_array(self.path)
        except ValueError as error:
            raise DataError(f"{printable(self.path)}: expected the features of before, found {error}") from None
        if array.shape != self.shape:
            raise DataError(f"{printable(self.path)}: expected the shape {self.shape} of before, found {array.shape}")
        stop = self.first + -(-self.n_samples // self.hop_length)
        frames = array.reshape(len(array), -1)[self.first : stop]
        return StoredFrames(frames, min(len(frames) * self.hop_length, self.n_samples))


def columns_of(shape: Sequence[int]) -> int:
    """Return the columns D of an array (F, D) or (F,)."""
    return shape[1] if len(shape) > 1 else 1


def features_path(recording: Path) -> Path:
    """Return the path of a recording's features."""
    return recording.with_suffix(".npy")


def read_features(
    recordings: Sequence[tuple[str, Path, int]], config: Config
) -> tuple[dict[str, ClipFeatures], dict[str, str], list[str]]:
    """Read and check the features of a corpus.

    Args:
        recordings: name, path and samples of each.
        config: with ``features.columns`` and ``features.hop``, a number or auto.

    Returns:
        The features by name, the reasons why others cannot be used, and a note on each kind of reason.
    """
    shapes, reasons, found = dict[str, tuple[int, ...]](), dict[str, str](), dict[str, ClipFeatures]()
    for name, path, _ in recordings:
        try:
            shape = map_array(features_path(path)).shape
            if len(shape) not in (1, 2) or 0 in shape:
                raise ValueError(f"the shape {shape}")
            shapes[name] = shape
        except ValueError as error:
            reasons[name] = f"expected features (F, D) in a .npy file of the same name, found {error}"
    if shapes:
        columns, hop = config.features.columns, config.features.hop
        if columns == "auto":
            columns = columns_of(next(iter(shapes.values())))
        if hop == "auto":
            hop = _hop_of([(n_samples, shapes[name][0]) for name, _, n_samples in recordings if name in shapes])
        ones = (1.0,) * (columns or 1)
        source = Features(config.audio.sample_rate_hz, hop, ones, ones)
        for name, path, n_samples in recordings:
            if name in shapes:
                where = features_path(path)
                try:
                    source.of_clip(map_array(where), n_samples, "features")
                    with where.open("rb") as content:
                        digest = hashlib.file_digest(content, "sha256").hexdigest()
                except (ValueError, OSError, UsageError) as error:
                    reasons[name] = str(error).removeprefix("features: ")
                else:
                    found[name] = ClipFeatures(where, shapes[name], digest, hop, n_samples)
    kinds = group_names((name, reason.partition(", found")[0]) for name, reason in sorted(reasons.items()))
    notes = [
        f"{pluralize(len(names), 'file is')} left out, {kind}: {list_first(names)}." for kind, names in kinds.items()
    ]
    return found, reasons, notes


def _hop_of(lengths: Sequence[tuple[int, int]]) -> int:
    """Return the hop that fits the (samples, frames) of most clips."""
    samples, frames = np.array(lengths).T
    typical = np.median(samples / (frames - 0.5))
    hops = np.arange(max(1, int(0.9 * typical)), int(1.1 * typical) + 2)
    # F is T / hop rounded up, or librosa's 1 + T // hop; in both cases (F - 1) hop <= T <= F hop
    n_fitting = np.array([np.sum(((frames - 1) * hop <= samples) & (samples <= frames * hop)) for hop in hops])
    # several fit where all clips are short or equally long: the roundest of them, such as 80, 256 or 400
    return int(max(hops[n_fitting == n_fitting.max()], key=lambda hop: math.gcd(hop, ROUND)))


def with_features(config: Config, train: Sequence[ClipFeatures]) -> Config:
    """Return the configuration with its features' columns, hop, means and deviations.

    Args:
        config: of a model that is conditioned on features.
        train: of the training split; one or more.
    """
    values: dict[str, Any] = {"columns": train[0].columns, "hop": train[0].hop_length}
    if "auto" in (config.features.mean, config.features.scale):
        n_frames = max(1, sum(len(clip.frames()) for clip in train))
        mean = sum((part.sum(axis=0) for part in _parts(train)), np.zeros(train[0].columns)) / n_frames
        squares = sum((np.square(part - mean).sum(axis=0) for part in _parts(train)), np.zeros(train[0].columns))
        deviation = np.sqrt(squares / n_frames)
        is_constant = deviation <= CONSTANT * np.maximum(np.abs(mean), 1e-20)
        for key, numbers in (("mean", mean), ("scale", np.where(is_constant, 1.0, deviation))):
            if getattr(config.features, key) == "auto":
                values[key] = [float(f"{number:.6g}") for number in numbers]
    return config.with_values("features", **values)


def _parts(clips: Sequence[ClipFeatures]) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the frames of clips, some at a time."""
    for clip in clips:
        frames = clip.frames()
        for begin in range(0, len(frames), CHECKED_AT_ONCE):
            yield frames[begin : begin + CHECKED_AT_ONCE].astype(np.float64)
