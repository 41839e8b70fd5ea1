"""Levels of audio, frame by frame, and the profile of its recordings that a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Decoded

Doubles = npt.NDArray[np.float64]

FRAME_SECONDS = 0.1  # longer than a period of the lowest tone
MOST_FRAMES = 1000  # whose spectra are computed at once
FEWEST_SAMPLES = 64  # of a frame, where the rate is low
SMALLEST_POWER = 1e-10  # -100 dB of full scale: digital silence must have some logarithm
SILENT_DB = -60.0  # of full scale; a frame below is silent
FLOOR_DB = -70.0  # of full scale: all below counts as equally quiet where levels are compared
LOUD_QUANTILE = 0.95
QUANTILES = np.linspace(0.0, 1.0, 41)  # that stand for a distribution of levels

FEWEST_STARTS = 10  # of clips; of fewer, windows from anywhere are judged by
ONSET_RISE_DB = 10.0  # within ONSET_FRAMES
ONSET_FRAMES = 3
ONSET_BELOW_LOUD_DB = 30.0  # a rise that stays quieter is no onset

WINDOW_SECONDS = 5.0  # the usual length of a generated clip: recordings are measured in windows of it
MOST_SECONDS = 1800.0  # of recordings: half an hour is enough


def frame_size(rate_hz: int) -> int:
    """Return the samples of a frame."""
    return max(FEWEST_SAMPLES, round(FRAME_SECONDS * rate_hz))


def decibels(power: npt.ArrayLike) -> Doubles:
    """Return a power in dB of full scale."""
    levels: Doubles = 10 * np.log10(np.maximum(power, SMALLEST_POWER))
    return levels


@dataclass(frozen=True)
class Frames:
    """The level and the spectrum's centre of each frame.

    Attributes:
        level_db: (..., F) RMS without the mean, in dB of full scale.
        power: (..., F) of the spectrum.
        moment: (..., F) of the spectrum: its power times frequency in Hz.
    """

    level_db: Doubles
    power: Doubles
    moment: Doubles

    @classmethod
    def of(cls, waveforms: npt.NDArray[Any] | Decoded, rate_hz: int) -> Frames:
        """Measure the whole frames of waveforms, (..., T), at this sample rate."""
        size = frame_size(rate_hz)
        n_frames = waveforms.shape[-1] // size
        if n_frames > MOST_FRAMES:  # the spectra of half an hour would take 600 MB
            step = MOST_FRAMES * size
            starts = range(0, n_frames * size, step)
            return cls.joined([cls.of(waveforms[..., start : start + step], rate_hz) for start in starts])
        # (..., T) -> (..., F, size)
        frames = waveforms[..., : n_frames * size].reshape(*waveforms.shape[:-1], n_frames, size)
        spectrum = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=-1)) ** 2
        frequencies = np.fft.rfftfreq(size, 1 / rate_hz)
        return cls(
            decibels(frames.var(axis=-1, dtype=np.float64)),
            spectrum.sum(axis=-1, dtype=np.float64),
            (spectrum * frequencies).sum(axis=-1, dtype=np.float64),
        )

    @classmethod
    def joined(cls, parts: Sequence[Frames]) -> Frames:
        """Return frames one behind the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in vars(parts[0])))

    @property
    def centroid_hz(self) -> float:
        """The centroid of the power spectrum of all frames."""
        return float(self.moment.sum() / max(self.power.sum(), SMALLEST_POWER))

    def __getitem__(self, index: Any) -> Frames:
        return Frames(*(array[index] for array in vars(self).values()))

    def __len__(self) -> int:
        return int(self.level_db.shape[-1])


@dataclass(frozen=True)
class Sound:
    """Figures of a stretch of audio.

    Attributes:
        loud_db: the ``LOUD_QUANTILE`` of its frames' levels, in dB of full scale.
        silent_share: of its frames, those below ``SILENT_DB``.
        distance_db: between the distribution of its levels and the recordings': their Wasserstein distance.
        centroid_hz: of its power spectrum.
    """

    loud_db: float
    silent_share: float
    distance_db: float
    centroid_hz: float

    @classmethod
    def of(cls, frames: Frames, quantiles: Doubles) -> Sound:
        """Measure frames; ``distance_db`` is from the quantiles of the recordings' levels."""
        levels = np.maximum(frames.level_db, FLOOR_DB)
        return cls(
            loud_db=float(np.quantile(levels, LOUD_QUANTILE)),
            silent_share=float(np.mean(frames.level_db < SILENT_DB)),
            # of two distributions on a line, the mean distance of their quantiles
            distance_db=float(np.abs(np.quantile(levels, QUANTILES) - quantiles).mean()),
            centroid_hz=frames.centroid_hz,
        )


def typical_event_seconds(clips: Sequence[Doubles]) -> float | None:
    """Return the time from an onset to the next one, or to the end: half of the audio lies in longer events.

    Args:
        clips: (F,) levels of each clip's frames, in dB of full scale.

    Returns:
        Seconds, or None without an onset.
    """
    measured = [levels for levels in clips if len(levels)]
    if not measured:
        return None
    audible = np.quantile(np.concatenate(measured), LOUD_QUANTILE) - ONSET_BELOW_LOUD_DB
    lengths: list[int] = []
    for levels in measured:
        padded = np.concatenate([np.full(ONSET_FRAMES, SILENT_DB - ONSET_RISE_DB), levels])
        # (F + ONSET_FRAMES,) -> (F,): the quietest of the frames before each one
        lowest = np.lib.stride_tricks.sliding_window_view(padded[:-1], ONSET_FRAMES).min(axis=1)
        rises = (levels > audible) & (levels > lowest + ONSET_RISE_DB)
        onsets = np.flatnonzero(rises & ~np.concatenate([[False], rises[:-1]]))
        lengths += np.diff(onsets, append=len(levels)).tolist()
    if not lengths:
        return None
    lengths.sort()
    middle = int(np.searchsorted(np.cumsum(lengths), sum(lengths) / 2))
    return lengths[middle] * FRAME_SECONDS


@dataclass(frozen=True)
class RecordingProfile:
    """Figures of recordings, prepared as a model was trained on them.

    Attributes:
        level_quantiles: of their frames' levels, in dB of full scale.
        whole: all of them together.
        lowest, highest: of windows of ``WINDOW_SECONDS`` that begin where clips begin: the 2nd and the 98th percentile
            of each figure.
        clip_seconds: the shortest, the median and the longest clip.
        labels: the profile of each label's recordings, where there are labels.
    """

    level_quantiles: list[float]
    whole: Sound
    lowest: Sound
    highest: Sound
    clip_seconds: list[float]
    labels: dict[str, RecordingProfile] = field(default_factory=dict)

    def of_label(self, name: str | None) -> RecordingProfile:
        """Return the profile of a label's recordings, or this one where there is none."""
        return self if name is None else self.labels.get(name, self)

    @classmethod
    def of(cls, clips: Sequence[npt.NDArray[Any] | Decoded], rate_hz: int) -> RecordingProfile | None:
        """Measure recordings; None where they have no whole frame.

        Args:
            clips: (T,) waveforms, prepared.
            rate_hz: their sample rate.
        """
        each = [frames for clip in clips if len(frames := Frames.of(clip, rate_hz))]
        if not each:
            return None
        frames, size = Frames.joined(each), round(WINDOW_SECONDS / FRAME_SECONDS)
        quantiles = np.quantile(np.maximum(frames.level_db, FLOOR_DB), QUANTILES)
        # As a generated clip does, a window begins where a clip begins, and continues into the next one if that one is
        # shorter. A window from the middle of a long decay, for instance, would not resemble a clip.
        starts = np.cumsum([0, *map(len, each[:-1])])
        if len(starts) < FEWEST_STARTS:
            starts = np.arange(0, len(frames), max(1, size // 2))
        whole_windows = starts[starts + size <= len(frames)].tolist() or [0]
        windows = [Sound.of(frames[start : start + size], quantiles) for start in whole_windows]
        figures = np.array([list(vars(window).values()) for window in windows])
        low, high = np.quantile(figures, [0.02, 0.98], axis=0).tolist()
        lengths = np.array([len(clip) for clip in clips]) / rate_hz
        whole = Sound.of(frames, quantiles)
        return cls(
            quantiles.round(1).tolist(),
            whole,
            Sound(*low),
            Sound(*high),
            np.quantile(lengths, [0, 0.5, 1]).round(2).tolist(),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the profile as a checkpoint stores it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> RecordingProfile:
        """Build a profile from the result of ``as_dict``."""
        sounds = {name: Sound(**stored[name]) for name in ("whole", "lowest", "highest")}
        labels = {name: cls.from_dict(each) for name, each in stored.get("labels", {}).items()}
        return cls(**{**stored, **sounds, "labels": labels})
