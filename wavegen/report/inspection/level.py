"""Level of audio as it streams by: peak, RMS, clipping, DC offset, silence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.read import AudioInfo, Floats

PIECE_SECONDS = 0.01  # level is followed in pieces of this length
SILENCE_DB = 60.0  # below the loudest piece: what librosa, and so `audio.trim_db`, takes for silence by default

# The largest amplitude of telephone companding is below 1 (ITU-T G.711, tables 1a and 2a).
LARGEST = {"ULAW": 32124 / 32768, "ALAW": 32256 / 32768}


class LevelMeter:
    """Level of a stream of blocks.

    Args:
        info: the header of the file that they come from.

    Attributes:
        n_frames: samples per channel so far.
    """

    def __init__(self, info: AudioInfo) -> None:
        self.n_frames = 0
        self._rate_hz = info.rate_hz
        self._full_scale = _full_scale(info)
        self._peak = 0.0
        self._n_clipped = 0
        self._sums = np.zeros(info.channels)
        self._piece_length = max(1, round(PIECE_SECONDS * info.rate_hz))
        self._energies: list[npt.NDArray[np.float64]] = []  # sums of squares, a number for each whole piece
        self._rest: Floats = np.empty((0, info.channels), dtype=np.float32)  # the piece that is not whole yet

    def hear(self, block: Floats) -> None:
        """Add a (T, channels) block."""
        magnitude = np.abs(block)
        self.n_frames += len(block)
        self._peak = max(self._peak, float(magnitude.max()))
        self._n_clipped += int(np.count_nonzero(magnitude >= self._full_scale))
        self._sums += block.sum(axis=0, dtype=np.float64)
        joined = np.concatenate([self._rest, block])
        n_whole = len(joined) // self._piece_length * self._piece_length
        self._energies.append(energy(joined[:n_whole].reshape(-1, self._piece_length * block.shape[1])))
        self._rest = joined[n_whole:]

    def facts(self) -> dict[str, Any]:
        """The level of all that was heard."""
        rest = [energy(self._rest.reshape(1, -1))] if len(self._rest) else []
        energies = np.concatenate([*self._energies, *rest])
        n_values = self.n_frames * len(self._sums)
        means = self._sums / self.n_frames
        leading, trailing, share = self._silence(energies)
        return {
            "peak_dbfs": decibels(self._peak),
            "rms_dbfs": decibels(math.sqrt(float(energies.sum()) / n_values)),
            "dc_offset": float(means[np.argmax(np.abs(means))]),
            "clipped_samples": self._n_clipped,
            "clipped_share": self._n_clipped / n_values,
            "silence_threshold_db": SILENCE_DB,
            "leading_silence_seconds": leading,
            "trailing_silence_seconds": trailing,
            "silent_share": share,
        }

    def _silence(self, energies: npt.NDArray[np.float64]) -> tuple[float, float, float]:
        """Seconds of silence at the start and at the end (all at the start where nothing is loud), and its share."""
        lengths = np.full(len(energies), self._piece_length)
        lengths[-1] = len(self._rest) or self._piece_length
        powers = energies / lengths
        is_loud = powers > powers.max() * 10 ** (-SILENCE_DB / 10)
        loud = np.flatnonzero(is_loud)
        if not len(loud):
            return self.n_frames / self._rate_hz, 0.0, 1.0
        start, end = int(loud[0]) * self._piece_length, (int(loud[-1]) + 1) * self._piece_length
        silent_share = float(lengths[~is_loud].sum() / lengths.sum())
        return start / self._rate_hz, max(0, self.n_frames - end) / self._rate_hz, silent_share


def _full_scale(info: AudioInfo) -> float:
    """The magnitude from which on a sample counts as clipped."""
    if info.encoding.startswith("PCM_") and info.bits is not None:
        return 1.0 - 2.0 ** (1 - info.bits)  # the largest positive one; the negative one is 1
    return LARGEST.get(info.encoding, 1.0)


def energy(rows: Floats) -> npt.NDArray[np.float64]:
    """Sum of squares of each row of (n, T) samples."""
    energies: npt.NDArray[np.float64] = np.square(rows, dtype=np.float64).sum(axis=1)
    return energies


def decibels(amplitude: float) -> float | None:
    """An amplitude in dB of full scale; None for 0."""
    return 20 * math.log10(amplitude) if amplitude > 0 else None
