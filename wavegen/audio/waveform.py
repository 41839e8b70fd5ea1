"""Prepare recordings: mix to mono, resample, remove the mean, cut silence, set the level."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from wavegen.audio.quantize import Floats
from wavegen.audio.read import MAX_FRAMES, read_blocks
from wavegen.errors import AudioError
from wavegen.text import printable

if TYPE_CHECKING:
    from wavegen.config import Config

Level = Literal["keep", "peak", "rms"]

PEAK_LEVEL = 10 ** (-1 / 20)  # -1 dB below full scale, the usual head room
RMS_LEVEL = 10 ** (-20 / 20)  # -20 dB: speech and music at it rarely clip
LOWEST_RATE_HZ = 100
INAUDIBLE = 1e-6  # -120 dB, a thirtieth of a 16-bit step: not worth scaling up
SILENCE_FRAME_SECONDS = 0.02  # the level of a pause is followed in frames of this length
FADE_SECONDS = 0.01  # of the cross-fade where a pause was shortened
MISSING_SECONDS = 0.1  # headers of lossy formats count some padding: less is not reported

# torchaudio's windowed sinc with the constants of its "kaiser best" (tutorial "Audio Resampling")
SINC_ZERO_CROSSINGS = 64
SINC_ROLLOFF = 0.9475937167399596
KAISER_BETA = 14.769656459379492
MAX_KERNEL_VALUES = 2**20  # 4 MB, 50 ms to make; 44.1 to 16 kHz takes 130,400, 11127 to 16000 Hz 180 million


@dataclass(frozen=True)
class Preparation:
    """Steps that turn a recording into a clip, in this order.

    Args:
        sample_rate_hz: everything is mixed to mono and resampled to this rate.
        remove_dc: subtract the mean.
        trim_db: cut both ends where they stay this much below the clip's loudest part; None keeps them.
        pause_seconds: shorten longer stretches below the same level to this length; None keeps them.
        level: as `set_level`.
        max_gain_db: largest gain, so that recordings of silence stay quiet; None for no limit.
    """

    sample_rate_hz: int
    remove_dc: bool = False
    trim_db: float | None = None
    pause_seconds: float | None = None
    level: Level = "keep"
    max_gain_db: float | None = None

    def __str__(self) -> str:
        """Return all values as text: equal for equal preparations."""
        return ", ".join(f"{each.name} {getattr(self, each.name)}" for each in fields(self))

    def apply(self, waveform: Floats) -> Floats:
        """Prepare a mono waveform that has the sample rate already.

        Args:
            waveform: (T,) float32, one sample or more.

        Returns:
            (T' <= T,) float32, one sample or more.
        """
        return set_level(self.cut(waveform), self.level, self.max_gain_db)

    def cut(self, waveform: Floats) -> Floats:
        """Do all but setting the level."""
        if self.remove_dc:
            waveform = waveform - waveform.mean(dtype=np.float64).astype(np.float32)
        if self.trim_db is not None:
            waveform = trim_silence(waveform, self.sample_rate_hz, self.trim_db)
            if self.pause_seconds is not None:
                waveform = shorten_pauses(waveform, self.sample_rate_hz, self.trim_db, self.pause_seconds)
        return waveform


def build_preparation(config: Config) -> Preparation:
    """Return the preparation of the recordings that a configuration trains on.

    Clips with frames are never cut: what is made of a spectrogram or of features is as long as its recording.
    """
    audio, whole = config.audio, config.frames is not None
    return Preparation(
        audio.sample_rate_hz,
        audio.remove_dc,
        None if whole else audio.trim_db,
        None if whole else audio.pause_seconds,
        audio.level,
        audio.max_gain_db,
    )


@dataclass(frozen=True)
class LoadedAudio:
    """A prepared file, and the changes that the preparation made.

    Attributes:
        waveform: (T,) float32, mono, at the requested sample rate.
        source_seconds: length of the decoded audio.
        missing_seconds: how much more the file's header claims: above 0 for a file that is cut off or damaged.
        trimmed_seconds: silence that was cut, at both ends and out of long pauses.
        peak: largest absolute amplitude before the level was set; above 1 it is clipped when quantized.
    """

    waveform: Floats
    source_seconds: float
    missing_seconds: float
    trimmed_seconds: float
    peak: float


def load_waveform(path: Path, preparation: Preparation) -> LoadedAudio:
    """Decode a file, mix it to mono, resample and prepare it.

    Args:
        path: an audio file.
        preparation: the model's.

    Raises:
        UsageError, AudioError: as `wavegen.audio.read.read_blocks`, or it is too long at the model's rate, or its own
            is not a rate of audio.
    """
    info, blocks = read_blocks(path)
    sample_rate_hz = preparation.sample_rate_hz
    if info.rate_hz < LOWEST_RATE_HZ:  # a small file would become gigabytes
        raise AudioError(
            f"{printable(path)}: expected a sample rate of {LOWEST_RATE_HZ} Hz or more, found {info.rate_hz} Hz in its"
            " header; convert it to the rate that it has"
        )
    mono = np.concatenate([to_mono(block) for block in blocks])
    source_seconds = len(mono) / info.rate_hz
    if source_seconds * sample_rate_hz > MAX_FRAMES:
        raise AudioError(
            f"{printable(path)}: {source_seconds / 3600:.1f} hours, by the {info.rate_hz:,} Hz of its header, are more"
            f" than fit into memory at {sample_rate_hz:,} Hz; cut it into shorter files"
        )
    whole = resample(mono, info.rate_hz, sample_rate_hz)
    waveform = preparation.cut(whole)
    return LoadedAudio(
        waveform=set_level(waveform, preparation.level, preparation.max_gain_db),
        source_seconds=source_seconds,
        missing_seconds=max(0.0, (info.seconds or 0.0) - source_seconds),
        trimmed_seconds=(len(whole) - len(waveform)) / sample_rate_hz,
        peak=float(np.abs(waveform).max()),
    )


def to_mono(frames: Floats) -> Floats:
    """Average the channels.

    Args:
        frames: (T, channels) float32.

    Returns:
        (T,) float32.
    """
    return frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float32)


def resample(waveform: Floats, from_hz: int, to_hz: int) -> Floats:
    """Change the sample rate.

    torchaudio keeps a filter for each of the to_hz / gcd phases, as long as from_hz / gcd: exact and fast for the
    rates in use, gigabytes for a pair such as 11127 and 16000 Hz. Such pairs go through the SoX resampler.

    Args:
        waveform: (T,) float32.
        from_hz: its rate.
        to_hz: the rate wanted.

    Returns:
        (ceil(T * to_hz / from_hz),) float32.
    """
    if from_hz == to_hz:
        return waveform
    common = math.gcd(from_hz, to_hz)
    n_samples = -(-len(waveform) * to_hz // from_hz)
    half_width = SINC_ZERO_CROSSINGS * from_hz / min(from_hz, to_hz) / SINC_ROLLOFF
    if to_hz // common * (2 * half_width + from_hz // common) <= MAX_KERNEL_VALUES:
        return _torchaudio_resampler(from_hz, to_hz)(waveform)

    import soxr

    resampled: Floats = soxr.resample(waveform, from_hz, to_hz, quality="VHQ")
    return np.pad(resampled, (0, max(0, n_samples - len(resampled))))[:n_samples]


@lru_cache(maxsize=16)
def _torchaudio_resampler(from_hz: int, to_hz: int) -> Callable[[Floats], Floats]:
    """`torchaudio.functional.resample` with its filters made once for all files of a rate."""
    import torch
    from torchaudio.transforms import Resample

    apply = Resample(
        from_hz,
        to_hz,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=SINC_ZERO_CROSSINGS,
        rolloff=SINC_ROLLOFF,
        beta=KAISER_BETA,
    )

    def resampler(waveform: Floats) -> Floats:
        resampled: Floats = apply(torch.from_numpy(waveform)).numpy()
        return resampled

    return resampler


def trim_silence(waveform: Floats, rate_hz: int, top_db: float) -> Floats:
    """Cut off both ends where they stay more than `top_db` below the loudest part (librosa.effects.trim).

    Frames are short: a clip that begins with more silence than a model sees teaches it to wait.

    Args:
        waveform: (T,) float32.
        rate_hz: its sample rate.
        top_db: decibels, above 0.

    Returns:
        (T' <= T,) float32, at least one sample; silence from end to end is kept.
    """
    import librosa

    peak = float(np.abs(waveform).max(initial=0.0))
    if peak < INAUDIBLE:
        return waveform
    # librosa takes all below -100 dB of full scale for equally quiet, and squares what is beyond it: scaled, exactly
    scaled = np.ldexp(waveform, -math.frexp(peak)[1])
    size = max(4, round(SILENCE_FRAME_SECONDS * rate_hz))
    start, stop = librosa.effects.trim(scaled, top_db=top_db, frame_length=size, hop_length=size // 4)[1]
    return waveform[start:stop] if stop > start else waveform


def shorten_pauses(waveform: Floats, rate_hz: int, below_db: float, longest_seconds: float) -> Floats:
    """Cut the middle out of long pauses and cross-fade what is left of them.

    A pause is a stretch of frames of ``SILENCE_FRAME_SECONDS`` whose RMS stays below that of the loudest one.

    Args:
        waveform: (T,) float32.
        rate_hz: its sample rate.
        below_db: how far below the loudest frame, in decibels.
        longest_seconds: what remains of a longer pause.

    Returns:
        (T' <= T,) float32.
    """
    size = max(1, round(SILENCE_FRAME_SECONDS * rate_hz))
    n_frames = len(waveform) // size
    if n_frames == 0:
        return waveform
    # (T,) -> (n_frames, size) -> (n_frames,): the mean power of each frame
    powers = np.square(waveform[: n_frames * size].reshape(n_frames, size), dtype=np.float64).mean(axis=1)
    is_quiet = np.concatenate([[False], powers < powers.max() * 10 ** (-below_db / 10), [False]])
    # steps from loud to quiet and back, in pairs -> (pauses, 2) first and last sample; padded, so that each has both
    edges = np.flatnonzero(np.diff(is_quiet.astype(np.int8))).reshape(-1, 2) * size
    kept, fade = round(longest_seconds * rate_hz), round(FADE_SECONDS * rate_hz)
    rise = np.linspace(0, 1, fade, dtype=np.float32)
    parts, begin = [], 0
    for start, stop in edges:
        if stop - start <= max(kept, fade) + fade:
            continue
        # a half stays at either side, and the fade joins the two
        half = max(0, kept - fade) // 2
        left, right = start + half, stop - half
        joined = waveform[left : left + fade] * (1 - rise) + waveform[right - fade : right] * rise
        parts += [waveform[begin:left], joined]
        begin = right
    return np.concatenate([*parts, waveform[begin:]]) if parts else waveform


def set_level(waveform: Floats, level: Level, max_gain_db: float | None = None) -> Floats:
    """Scale a waveform.

    Args:
        waveform: (T,) float32.
        level: "keep" leaves it as it is, "peak" puts its largest amplitude at -1 dB of full scale, "rms" its root
            mean square at -20 dB, or lower where it would clip.
        max_gain_db: scale up by this much at most; None for no limit.

    Returns:
        (T,) float32; silence stays silence.
    """
    peak = float(np.abs(waveform).max())
    if level == "keep" or peak < INAUDIBLE:
        return waveform
    gain = PEAK_LEVEL / peak
    if level == "rms":
        rms = math.sqrt(float(np.mean(np.square(waveform, dtype=np.float64))))
        gain = min(RMS_LEVEL / rms, 1.0 / peak)
    if max_gain_db is not None:
        gain = min(gain, 10 ** (max_gain_db / 20))
    return (waveform * np.float32(gain)).astype(np.float32)
