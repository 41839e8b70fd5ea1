"""Mel spectrograms, the input of a vocoder.

The convention, which is that of most neural vocoders (Tacotron 2's and HiFi-GAN's but for the padding):

    S[f, k] = |sum_n w[n] x[f hop - (n_fft - hop) / 2 + n] e^(-2 pi i k n / n_fft)|     w: Hann, n_fft samples
    m[f, b] = ln max(sum_k M[k, b] S[f, k], 1e-5)                                      M: Slaney's mel filters, area 1

Frame f stands for the samples f hop .. (f + 1) hop - 1 and its window has them in its middle. A clip of T samples has
ceil(T / hop) frames, the last one in part; before and after it there is silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Floats, Quantizer
from wavegen.errors import UsageError

FLOOR = 1e-5
LOWEST = math.log(FLOOR)
HIGHEST = 10.0  # a mel magnitude of 22,000: no waveform in [-1, 1] has that with any window in use
# Speech and music lie around -5: the network's input is about 0, and rarely beyond -2 and 2.
MIDDLE, SPREAD = -5.0, 4.0


class Frames(Protocol):
    """A clip's mel frames; slices are computed or read on demand."""

    def __len__(self) -> int:
        """Return their number."""

    def __getitem__(self, frames: slice) -> Floats:
        """Return some of them, (n, n_mels) float32."""

    @property
    def n_samples(self) -> int:
        """Samples of the clip: those of whole frames, or fewer where the last frame stands for less."""


@dataclass(frozen=True)
class MelSpectrogram:
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

    def __str__(self) -> str:
        return (
            f"{self.n_mels} bands from {self.f_min:g} to {self.f_max:g} Hz, windows of {self.n_fft} samples, "
            f"a frame every {self.hop_length} samples at {self.sample_rate_hz:,} Hz"
        )

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of a clip."""
        return -(-n_samples // self.hop_length)

    def read(self, path: Path) -> Frames:
        """Map a ``.npy`` file of frames, such as another program wrote, and check that it follows this convention.

        Raises:
            UsageError: it is no such file, or its shape, type or values are not those of this convention.
        """
        expected = f"{path}: expected mel frames as numpy.save writes a float array (F, {self.n_mels})"
        begin = b""
        try:
            with path.open("rb") as file:
                begin = file.read(256)
            if not begin.startswith(b"\x93NUMPY"):
                raise ValueError
            frames = np.lib.format.open_memmap(path, mode="r")  # unlike numpy.load, looks at no pickles and archives
        except Exception as error:  # damaged files make numpy fail in many ways
            if isinstance(error, OSError) and error.strerror:
                raise UsageError(f"{expected}, found none: {error.strerror}") from None
            raise UsageError(f"{expected}, found {_content(begin)}; write them with numpy.save(FILE, frames)") from None
        return self.checked(frames, str(path))

    def checked(self, frames: npt.ArrayLike | Frames, where: str) -> Frames:
        """Return frames of this convention: those of a clip as they are, and arrays after a check.

        Args:
            frames: of a clip, or (F, n_mels) as an array or nested lists.
            where: they come from.

        Raises:
            UsageError: they do not follow this convention, as far as that can be seen.
        """
        if isinstance(frames, _StoredFrames):
            frames = frames.frames
        if isinstance(frames, ClipFrames):
            if frames.mel != self:
                raise UsageError(f"{where}: expected mel frames of {self}, found those of {frames.mel}")
            return frames
        try:
            array = np.asarray(frames)
        except (ValueError, TypeError, RuntimeError):  # rows of unequal length; a tensor that is not on the CPU
            raise UsageError(
                f"{where}: expected mel frames (F, {self.n_mels}), found a {type(frames).__name__} that makes no array;"
                " its rows have to be numbers on the CPU, equally many in each"
            ) from None
        self._check(array, where)
        return _StoredFrames(array, self.hop_length)

    def _check(self, frames: npt.NDArray[Any], where: str) -> None:
        expected = f"{where}: expected mel frames (F, {self.n_mels})"
        if frames.ndim != 2 or not len(frames) or frames.shape[1] != self.n_mels:
            turned = frames.ndim == 2 and frames.shape[0] == self.n_mels
            advice = "; transpose them" if turned else f"; this model's are {self}"
            raise UsageError(f"{expected}, found {frames.shape}{advice}")
        if frames.dtype.kind != "f":
            raise UsageError(f"{expected} of floating point numbers, found {frames.dtype}")
        lowest, highest = math.inf, -math.inf
        for begin in range(0, len(frames), 4096):  # a mapped file need not fit into memory
            part = frames[begin : begin + 4096]
            if not np.isfinite(part).all():
                raise UsageError(f"{expected} of finite numbers, found some that are not")
            lowest, highest = min(lowest, float(part.min())), max(highest, float(part.max()))
        if lowest < LOWEST - 1e-2 or highest > HIGHEST:
            raise UsageError(
                f"{expected} of natural logarithms of magnitudes, {LOWEST:.2f} (silence, ln {FLOOR:g}) to {HIGHEST:g}, "
                f"found {lowest:.2f} to {highest:.2f}; decibels, powers and decimal logarithms have to be converted"
            )


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip, computed on demand and not kept.

    Args:
        mel: the convention.
        n_samples: of the clip.
        samples: gives the (stop - start,) float32 samples from start to stop, both within the clip.
    """

    mel: MelSpectrogram
    n_samples: int
    samples: Callable[[int, int], Floats]

    def __len__(self) -> int:
        return self.mel.n_frames(self.n_samples)

    def __getitem__(self, frames: slice) -> Floats:
        first, stop, _ = frames.indices(len(self))
        if stop <= first:
            return np.zeros((0, self.mel.n_mels), np.float32)
        # Frame f lies in the middle of its window of n_fft samples, which begins margin samples before f hop.
        hop = self.mel.hop_length
        margin = (self.mel.n_fft - hop) // 2
        begin, end = first * hop - margin, stop * hop + margin
        inside = self.samples(max(begin, 0), min(end, self.n_samples))
        silence = (max(-begin, 0), max(end - self.n_samples, 0))
        return _log_mel(self.mel)(np.pad(np.asarray(inside, np.float32), silence))


def clip_frames(mel: MelSpectrogram, quantizer: Quantizer, classes: npt.NDArray[np.integer]) -> ClipFrames:
    """Return the frames of a clip's quantized samples, which are what the model sees.

    Args:
        mel: the convention.
        quantizer: the companding of the classes.
        classes: (T,) of the clip; may be mapped into memory.
    """
    return ClipFrames(mel, len(classes), lambda first, stop: quantizer.decode(classes[first:stop]))


def normalized(frames: Floats) -> Floats:
    """Return frames as the network sees them: around 0."""
    return (np.asarray(frames, np.float32) - np.float32(MIDDLE)) / np.float32(SPREAD)


@dataclass(frozen=True)
class _StoredFrames:
    """Frames of another program, in memory or mapped into it.

    Args:
        frames: (F, n_mels).
        hop_length: samples that each stands for.
    """

    frames: npt.NDArray[np.floating]
    hop_length: int

    @property
    def n_samples(self) -> int:
        return len(self.frames) * self.hop_length

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frames: slice) -> Floats:
        return np.asarray(self.frames[frames], np.float32)


def _content(begin: bytes) -> str:
    """Describe a file that is no array of numbers, by its first bytes."""
    kinds = {b"\x93NUMPY": "a damaged .npy file", b"PK": "an .npz archive", b"\x80": "a pickle, which is not loaded"}
    if b"'|O'" in begin:
        return "an array of Python objects, which are not loaded"
    otherwise = "something else" if begin else "nothing"
    return next((what for key, what in kinds.items() if begin.startswith(key)), otherwise)


@lru_cache(maxsize=8)
def _log_mel(mel: MelSpectrogram) -> Callable[[Floats], Floats]:
    """Return torchaudio's transform without padding, whose window and filters are made once."""
    import torch
    from torchaudio.transforms import MelSpectrogram as Transform

    transform = Transform(
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

    def log_mel(waveform: Floats) -> Floats:
        with torch.no_grad():
            bands = transform(torch.from_numpy(waveform)).clamp_min(FLOOR).log()  # (T,) -> (n_mels, F)
        frames: Floats = np.ascontiguousarray(bands.t().numpy())  # (F, n_mels)
        return frames

    return log_mel
