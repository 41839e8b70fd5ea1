"""Audio of any length in as few numbers as a picture has columns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FFT_SECONDS = 0.032  # resolves the harmonics of a voice and still its syllables
LOWEST_DB, HIGHEST_DB = -90.0, -10.0  # what the colours span
FRAMES_AT_ONCE = 4096  # bounds the memory of long recordings


@dataclass(frozen=True)
class Spectrogram:
    """Power over time and frequency.

    Attributes:
        level_db: (frequencies, columns); 0 dB is a full-scale sine, so that pictures of different clips compare.
        fft_size: samples in a frame.
        hop: samples from one column to the next.
    """

    level_db: Floats
    fft_size: int
    hop: int


def spectrogram(waveform: Floats, sample_rate_hz: int, most_columns: int) -> Spectrogram:
    """Short-time Fourier transform with a Hann window; where there are more frames than columns, their mean power.

    Args:
        waveform: (T,) in [-1, 1].
        sample_rate_hz: of the waveform.
        most_columns: of the picture.
    """
    import librosa

    fft_size = max(32, 2 ** round(math.log2(FFT_SECONDS * sample_rate_hz)))
    hop = fft_size // 4
    n_frames = 1 + len(waveform) // hop
    per_column = -(-n_frames // most_columns)
    padded = np.pad(waveform, (fft_size // 2, fft_size // 2 + hop))
    step = max(1, FRAMES_AT_ONCE // per_column) * per_column
    columns = []
    for first in range(0, n_frames, step):
        last = min(first + step, n_frames)
        piece = padded[first * hop : (last - 1) * hop + fft_size]
        power = np.square(np.abs(librosa.stft(piece, n_fft=fft_size, hop_length=hop, center=False)))
        starts = np.arange(0, power.shape[1], per_column)
        sizes = np.diff(starts, append=power.shape[1])
        columns.append(np.add.reduceat(power, starts, axis=1) / sizes)
    full_scale = (fft_size / 4) ** 2  # of a sine's magnitude under the window, whose sum is fft_size / 2
    level_db = 10.0 * np.log10(np.maximum(np.concatenate(columns, axis=1) / full_scale, 1e-12))
    return Spectrogram(level_db.astype(np.float32), fft_size, hop * per_column)


def envelope(waveform: Floats, most_columns: int) -> tuple[Floats, Floats]:
    """The lowest and the highest sample of each column.

    Args:
        waveform: (T,), one sample or more.
        most_columns: of the picture.

    Returns:
        Two (columns,) arrays; columns are equally long, but for the last.
    """
    starts = np.arange(0, len(waveform), -(-len(waveform) // most_columns))
    return np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
