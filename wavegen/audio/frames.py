"""Frames: numbers that describe a clip at every hop. Features are read from files, mel spectrograms computed.

The convention of mel spectrograms is that of most neural vocoders (Tacotron 2's and HiFi-GAN's but for the padding):

    S[f, k] = |sum_n w[n] x[f hop - (n_fft - hop) / 2 + n] e^(-2 pi i k n / n_fft)|     w: Hann, n_fft samples
    m[f, b] = ln max(sum_k M[k, b] S[f, k], 1e-5)                                      M: Slaney's mel filters, area 1

Frame f stands for the samples f hop .. (f + 1) hop - 1 and its window has them in its middle. A clip of T samples has
ceil(T / hop) frames, the last one in part; before and after it there is silence.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Floats, Samples
from wavegen.errors import UsageError

if TYPE_CHECKING:
    import torch

LARGEST = 1e30  # a size whose square float64 still holds
CHECKED_AT_ONCE = 4096  # frames: a mapped file need not fit into memory


@dataclass(frozen=True)
class StoredFrames:
    """Frames in memory, or mapped into it.

    Args:
        frames: (F, D).
        n_samples: of their clip: those of whole frames, or fewer where the last frame stands for less.
    """

    frames: npt.NDArray[Any]
    n_samples: int

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frames: slice) -> Floats:
        return np.asarray(self.frames[frames], np.float32)


class FrameSource(ABC):
    """A convention of frames: how many numbers, how often, of what kind.

    Attributes:
        name: of the parameter and the option that gives frames.
        noun: of the frames, in the plural.
        kind: what a model is conditioned on, in the plural.
        guide: that explains them.
        dtypes: numpy's kinds of the numbers in a file.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    kind: ClassVar[str]
    guide: ClassVar[str]
    dtypes: ClassVar[str] = "f"
    hop_length: int

    @property
    @abstractmethod
    def width(self) -> int:
        """Columns D of a frame."""

    @abstractmethod
    def normalize(self, frames: Floats) -> Floats:
        """Return frames as the network sees them: around 0."""

    def read(self, path: Path) -> Frames:
        """Map a ``.npy`` file of frames, such as another program wrote, and check that it follows this convention.

        Raises:
            UsageError: it is no such file, or its shape, type or values are not those of this convention.
        """
        try:
            frames = map_array(path)
        except ValueError as error:
            expected = f"expected {self.noun} as numpy.save writes a float array (F, {self.width})"
            raise UsageError(f"{path}: {expected}, found {error}") from None
        return self.checked(frames, str(path))

    def checked(self, frames: npt.ArrayLike | Frames, where: str) -> Frames:
        """Return frames of this convention, after a check.

        Args:
            frames: (F, D) as an array, nested lists or what this returned before.
            where: they come from.

        Raises:
            UsageError: they do not follow this convention, as far as that can be seen.
        """
        if isinstance(frames, StoredFrames):
            frames = frames.frames
        try:
            array = np.asarray(frames)
        except (ValueError, TypeError, RuntimeError):  # rows of unequal length; a tensor that is not on the CPU
            raise UsageError(
                f"{where}: expected {self.noun} (F, {self.width}), found a {type(frames).__name__} that makes no array;"
                " its rows have to be numbers on the CPU, equally many in each"
            ) from None
        if array.ndim == 1 and self.width == 1:
            array = array[:, None]
        expected = f"{where}: expected {self.noun} (F, {self.width})"
        if array.ndim != 2 or not len(array) or array.shape[1] != self.width:
            turned = array.ndim == 2 and array.shape[0] == self.width
            advice = "; transpose them" if turned else f"; this model's are {self}"
            raise UsageError(f"{expected}, found {array.shape}{advice}")
        if array.dtype.kind not in self.dtypes:
            raise UsageError(f"{expected} of floating point numbers, found {array.dtype}")
        lowest, highest = math.inf, -math.inf
        for begin in range(0, len(array), CHECKED_AT_ONCE):
            part = array[begin : begin + CHECKED_AT_ONCE]
            if not np.isfinite(part).all():
                raise UsageError(f"{expected} of finite numbers, found some that are not")
            lowest, highest = min(lowest, float(part.min())), max(highest, float(part.max()))
        self._check_range(lowest, highest, expected)
        return StoredFrames(array, len(array) * self.hop_length)

    def _check_range(self, lowest: float, highest: float, expected: str) -> None:
        """Raise ``UsageError`` if numbers lie outside of this convention's."""
        if max(-lowest, highest) > LARGEST:
            raise UsageError(f"{expected} between {-LARGEST:g} and {LARGEST:g}, found {lowest:g} to {highest:g}")


@dataclass(frozen=True)
class Features(FrameSource):
    """Features of a person's own choice, in a file of their own for each clip.

    Args:
        sample_rate_hz: of the clips.
        hop_length: samples that a frame stands for.
        mean, scale: of each column: the network sees (x - mean) / scale.
    """

    sample_rate_hz: int
    hop_length: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    name, noun, kind, guide, dtypes = "features", "features", "features", "features", "fiub"

    def __str__(self) -> str:
        hop = f"a frame every {self.hop_length} samples at {self.sample_rate_hz:,} Hz"
        return f"{self.width} {'columns' if self.width > 1 else 'column'}, {hop}"

    @property
    def width(self) -> int:
        """Columns D of a frame."""
        return len(self.mean)

    def normalize(self, frames: Floats) -> Floats:
        """Return frames as the network sees them: of mean 0 and deviation 1 in the training split."""
        mean, scale = np.asarray(self.mean, np.float32), np.asarray(self.scale, np.float32)
        return (np.asarray(frames, np.float32) - mean) / scale

    def of_clip(self, frames: npt.ArrayLike | Frames, n_samples: int, where: str) -> Frames:
        """Return the features of a clip, after a check.

        Args:
            frames: as ``checked``.
            n_samples: of the clip.
            where: they come from.

        Raises:
            UsageError: they do not follow this convention, or are more than a frame longer or shorter than the clip.
        """
        known = self.checked(frames, where)
        expected = -(-n_samples // self.hop_length)
        if abs(len(known) - expected) > 1:
            raise UsageError(
                f"{where}: expected features as long as the recording, found {len(known):,} frames, "
                f"not {expected:,} of {self.hop_length} samples for its {n_samples:,} at {self.sample_rate_hz:,} Hz"
            )
        assert isinstance(known, StoredFrames)
        return StoredFrames(known.frames[:expected], min(known.n_samples, n_samples))


def map_array(path: Path) -> npt.NDArray[Any]:
    """Map the array of a ``.npy`` file into memory.

    Raises:
        ValueError: there is none; the message says what was found instead.
    """
    begin = b""
    try:
        with path.open("rb") as file:
            begin = file.read(256)
        if not begin.startswith(b"\x93NUMPY"):
            raise ValueError
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")  # unlike numpy.load, reads no pickles
        return array
    except Exception as error:  # damaged files make numpy fail in many ways
        if isinstance(error, OSError) and error.strerror:
            raise ValueError(f"none: {error.strerror}") from None
        raise ValueError(f"{_content(begin)}; write them with numpy.save(FILE, frames)") from None


def _content(begin: bytes) -> str:
    """Describe a file that is no array of numbers, by its first bytes."""
    kinds = {b"\x93NUMPY": "a damaged .npy file", b"PK": "an .npz archive", b"\x80": "a pickle, which is not loaded"}
    if b"'|O'" in begin:
        return "an array of Python objects, which are not loaded"
    otherwise = "something else" if begin else "nothing"
    return next((what for key, what in kinds.items() if begin.startswith(key)), otherwise)


# --- mel spectrograms -----------------------------------------------------------------------------------------------

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
        in_windows: the samples of its window stand for a frame: ``DeviceFrames`` computes frames of them.
    """

    sample_rate_hz: int
    n_mels: int
    n_fft: int
    hop_length: int
    f_min: float
    f_max: float
    in_windows: bool = False

    name, noun, kind, guide = "mel", "mel frames", "mel spectrograms", "vocoder"

    def __str__(self) -> str:
        return (
            f"{self.n_mels} bands from {self.f_min:g} to {self.f_max:g} Hz, windows of {self.n_fft} samples, "
            f"a frame every {self.hop_length} samples at {self.sample_rate_hz:,} Hz"
        )

    @property
    def width(self) -> int:
        """Bands; or samples of a window."""
        return self.n_fft if self.in_windows else self.n_mels

    def normalize(self, frames: Floats) -> Floats:
        """Return frames as the network sees them: around 0; samples as they are."""
        return frames if self.in_windows else normalized(frames)

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
        if self.mel.in_windows:
            return np.lib.stride_tricks.sliding_window_view(padded, self.mel.n_fft)[::hop]
        import torch

        with torch.no_grad():
            bands = _transform(self.mel)(torch.from_numpy(padded)).clamp_min(FLOOR).log()  # (T,) -> (n_mels, F)
        return np.ascontiguousarray(bands.t().numpy())  # (F, n_mels)


Frames = StoredFrames | ClipFrames  # of a clip; slices are computed or read on demand


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
