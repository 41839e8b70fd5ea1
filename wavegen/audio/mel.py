"""Mel spectrograms, the input of a vocoder.

The convention, which is that of most neural vocoders (Tacotron 2's and HiFi-GAN's but for the padding):

    S[f, k] = |sum_n w[n] x[f hop - (n_fft - hop) / 2 + n] e^(-2 pi i k n / n_fft)|     w: Hann, n_fft samples
    m[f, b] = ln max(sum_k M[k, b] S[f, k], 1e-5)                                      M: Slaney's mel filters, area 1

Frame f stands for the samples f hop .. (f + 1) hop - 1 and its window has them in its middle. A clip of T samples has
ceil(T / hop) frames, the last one in part; before and after it there is silence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.frames import Frames, FrameSource
from wavegen.audio.quantize import Floats, Samples
from wavegen.errors import UsageError

if TYPE_CHECKING:
    import torch

FLOOR = 1e-5
LOWEST = math.log(FLOOR)
HIGHEST = 10.0  # a mel magnitude of 22,000: no waveform in [-1, 1] has that with any window in use
# Speech and music lie around -5: the network's input is about 0, and rarely beyond -2 and 2.
MIDDLE, SPREAD = -5.0, 4.0


@dataclass(frozen=True)
class MelSpectrogram(FrameSource):
    """A convention of mel spectrograms.

    Args:
        sample_rate_hz: of the waveforms.
        n_mels: bands.
        n_fft: samples in a window.
        hop_length: samples that a frame stands for.
        f_min: lowest frequency in Hz.
        f_max: highest frequency in Hz.
    """

    sample_rate_hz: int
    n_mels: int
    n_fft: int
    hop_length: int
    f_min: float
    f_max: float

    name, noun, kind, guide = "mel", "mel frames", "mel spectrograms", "vocoder"

    def __str__(self) -> str:
        return (
            f"{self.n_mels} bands from {self.f_min:g} to {self.f_max:g} Hz, windows of {self.n_fft} samples, "
            f"a frame every {self.hop_length} samples at {self.sample_rate_hz:,} Hz"
        )

    @property
    def width(self) -> int:
        """Bands."""
        return self.n_mels

    def normalize(self, frames: Floats) -> Floats:
        """Return frames as the network sees them: around 0."""
        return normalized(frames)

    def checked(self, frames: npt.ArrayLike | Frames, where: str) -> Frames:
        """Return frames of this convention: those of a clip as they are, and others after a check.

        Raises:
            UsageError: they do not follow this convention, as far as that can be seen.
        """
        if not isinstance(frames, ClipFrames):
            return super().checked(frames, where)
        if frames.mel != self:
            raise UsageError(f"{where}: expected mel frames of {self}, found those of {frames.mel}")
        return frames

    def _check_range(self, lowest: float, highest: float, expected: str) -> None:
        if lowest < LOWEST - 1e-2 or highest > HIGHEST:
            raise UsageError(
                f"{expected} of natural logarithms of magnitudes, {LOWEST:.2f} (silence, ln {FLOOR:g}) to {HIGHEST:g}, "
                f"found {lowest:.2f} to {highest:.2f}; decibels, powers and decimal logarithms have to be converted"
            )


@dataclass(frozen=True)
class MelWindows(MelSpectrogram):
    """A convention in which the samples of its window stand for a frame: ``DeviceFrames`` computes frames of them."""

    @property
    def width(self) -> int:
        """Samples."""
        return self.n_fft

    def normalize(self, frames: Floats) -> Floats:
        """Return the samples as they are."""
        return frames


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip, computed on demand and not kept.

    Args:
        mel: the convention.
        samples: (T,) of the clip; of a quantized one the decoded classes, which are what the model sees.
    """

    mel: MelSpectrogram
    samples: Samples

    @property
    def n_samples(self) -> int:
        """Length of the clip."""
        return len(self.samples)

    def __len__(self) -> int:
        return (self.n_samples + self.mel.hop_length - 1) // self.mel.hop_length

    def __getitem__(self, frames: slice) -> Floats:
        first, stop, _ = frames.indices(len(self))
        if stop <= first:
            return np.zeros((0, self.mel.width), np.float32)
        # Frame f lies in the middle of its window of n_fft samples, which begins margin samples before f hop.
        hop = self.mel.hop_length
        margin = (self.mel.n_fft - hop) // 2
        begin, end = first * hop - margin, stop * hop + margin
        inside = self.samples[max(begin, 0) : min(end, self.n_samples)]
        silence = (max(-begin, 0), max(end - self.n_samples, 0))
        padded = np.pad(np.asarray(inside, np.float32), silence)
        if isinstance(self.mel, MelWindows):
            return np.lib.stride_tricks.sliding_window_view(padded, self.mel.n_fft)[::hop]
        import torch

        with torch.no_grad():
            bands = _transform(self.mel)(torch.from_numpy(padded)).clamp_min(FLOOR).log()  # (T,) -> (n_mels, F)
        return np.ascontiguousarray(bands.t().numpy())  # (F, n_mels)


def normalized(frames: Floats) -> Floats:
    """Return frames as the network sees them: around 0."""
    return (np.asarray(frames, np.float32) - np.float32(MIDDLE)) / np.float32(SPREAD)


class DeviceFrames:
    """Computes normalized mel frames on a device, from the samples of their windows.

    Args:
        mel: the convention.
        device: on which the samples lie.
    """

    def __init__(self, mel: MelSpectrogram, device: torch.device) -> None:
        transform = _transform(mel)
        self.window = transform.spectrogram.window.to(device)  # (n_fft,)
        self.filters = transform.mel_scale.fb.to(device)  # (n_fft / 2 + 1, n_mels)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Map (..., n_fft) samples to (..., n_mels)."""
        import torch

        bands = torch.fft.rfft(windows * self.window).abs() @ self.filters
        frames: torch.Tensor = (bands.clamp_min(FLOOR).log() - MIDDLE) / SPREAD
        return frames


@lru_cache(maxsize=8)
def _transform(mel: MelSpectrogram) -> Any:
    """Return torchaudio's transform without padding, whose window and filters are made once."""
    from torchaudio.transforms import MelSpectrogram as Transform

    return Transform(
        sample_rate=mel.sample_rate_hz,
        n_fft=mel.n_fft,
        hop_length=mel.hop_length,
        f_min=mel.f_min,
        f_max=mel.f_max,
        n_mels=mel.n_mels,
        power=1.0,
        center=False,
        norm="slaney",
        mel_scale="slaney",
    )
