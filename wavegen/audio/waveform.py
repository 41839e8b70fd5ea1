"""Prepare recordings block by block: mix to mono, resample, remove the mean, cut silence, set the level."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wavegen.audio.librosa_loading import load_librosa
from wavegen.audio.mono import INAUDIBLE, LOUD_PEAK, QUIET_PEAK, mono_passes
from wavegen.audio.quantize import Floats, Samples
from wavegen.audio.read import MAX_FRAMES
from wavegen.audio.resample import resampled
from wavegen.errors import AudioError
from wavegen.text import printable

if TYPE_CHECKING:
    from wavegen.config import Config

Level = Literal["keep", "peak", "rms"]

PEAK_LEVEL = 10 ** (-1 / 20)  # -1 dB below full scale, the usual head room
RMS_LEVEL = 10 ** (-20 / 20)  # -20 dB: speech and music at it rarely clip
LOWEST_RATE_HZ = 100
SILENCE_FRAME_SECONDS = 0.02  # the level of a pause is followed in frames of this length
FADE_SECONDS = 0.01  # of the cross-fade where a pause was shortened
BLOCK = 2**18  # samples that are prepared at once, 1 MB
MAPPED_BYTES = 2**24  # 16 MB, 4 minutes at 16 kHz: longer waveforms stay in a file


Notice = Callable[[str], None]


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


def build_preparation(config: Config) -> Preparation:
    """Return the preparation of the recordings that a configuration trains on.

    Clips with frames are never cut: what is made of a spectrogram or of features is as long as its recording.
    """
    preparation = Preparation(**config.audio.model_dump())
    return preparation if config.frames is None else replace(preparation, trim_db=None, pause_seconds=None)


class PreparedClip:
    """A clip that is prepared block by block.

    Args:
        samples: (T,) mono, at the preparation's rate, one sample or more.
        preparation: as of its recording.

    Attributes:
        peak: largest absolute amplitude before the level is set; above 1 it is clipped when quantized.
        gain: what sets the level.
    """

    def __init__(self, samples: Samples, preparation: Preparation) -> None:
        rate_hz, self._samples, self._offset = preparation.sample_rate_hz, samples, np.float32(0)
        self._start, self._stop, self._cuts = 0, len(samples), list[tuple[int, int]]()
        self._fade = round(FADE_SECONDS * rate_hz)
        if preparation.remove_dc:
            total = math.fsum(float(block.sum(dtype=np.float64)) for block in _blocks(samples))
            self._offset = np.float32(total / len(samples))
        if preparation.trim_db is not None:
            self._start, self._stop = find_sound(self, rate_hz, preparation.trim_db)
            if preparation.pause_seconds is not None:
                self._cuts = find_pauses(self, rate_hz, preparation.trim_db, preparation.pause_seconds)
        self.peak, squares = 0.0, 0.0
        for block in self._cut_blocks():
            self.peak = max(self.peak, float(np.abs(block).max()))
            squares += float(np.square(block, dtype=np.float64).sum())
        rms = math.sqrt(squares / self.n_samples)
        self.gain = _gain(self.peak, rms, preparation.level, preparation.max_gain_db)

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, part: slice) -> Floats:
        """Return samples between the trimmed ends, without their mean."""
        start, stop, _ = part.indices(len(self))
        return self._samples[self._start + start : self._start + stop] - self._offset

    @property
    def n_samples(self) -> int:
        """Length of what is left."""
        return len(self) - sum(right - left - self._fade for left, right in self._cuts)

    def blocks(self) -> Iterator[Floats]:
        """Yield what is left, at its level, in (n,) float32 blocks."""
        for block in self._cut_blocks():
            yield block if self.gain == 1.0 else (block * np.float32(self.gain)).astype(np.float32)

    def _cut_blocks(self) -> Iterator[Floats]:
        fade, begin = self._fade, 0
        rise = np.linspace(0, 1, fade, dtype=np.float32)
        for left, right in self._cuts:
            yield from _blocks(self, begin, left)
            yield self[left : left + fade] * (1 - rise) + self[right - fade : right] * rise
            begin = right
        yield from _blocks(self, begin)


def _blocks(samples: Samples, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[Floats]:
    stop = len(samples) if stop is None else stop
    for begin in range(start, stop, size):
        yield samples[begin : min(stop, begin + size)]


@dataclass(frozen=True)
class LoadedAudio:
    """Facts of a prepared file, and the changes that the preparation made.

    Attributes:
        clip: what was prepared.
        source_seconds: length of the decoded audio.
        trimmed_seconds: silence that was cut, at both ends and out of long pauses.
        warnings: what is wrong with it, as ``MonoMixer.warnings``.
    """

    clip: PreparedClip
    source_seconds: float
    trimmed_seconds: float
    warnings: tuple[str, ...]


@contextmanager
def open_audio(path: Path, preparation: Preparation, folder: Path | None = None) -> Iterator[LoadedAudio]:
    """Decode a file, mix it to mono, resample and prepare it; the clip can be read while this is open.

    Args:
        path: an audio file.
        preparation: the model's.
        folder: for its temporary file; None for the system's.

    Raises:
        UsageError, AudioError: as ``wavegen.audio.mono.mono_passes``, or it is too long at the model's rate, or its own
            is not a rate of audio.
    """
    rate_hz = preparation.sample_rate_hz
    # a recording waits in a file for what depends on all of it; the system keeps in memory what it has room for
    with tempfile.TemporaryFile(dir=folder) as file, closing(mono_passes(path)) as passes:
        for recording, mixer in passes:
            file.seek(0)
            file.truncate()
            if recording.info.rate_hz < LOWEST_RATE_HZ:  # a small file would become gigabytes
                raise AudioError(
                    f"{printable(path)}: expected a sample rate of {LOWEST_RATE_HZ} Hz or more, found"
                    f" {recording.info.rate_hz} Hz in its header; convert it to the rate that it has"
                )
            mixed = (mixer.mix(block) for block in recording)
            for block in resampled(mixed, recording.info.rate_hz, rate_hz):
                file.write(block.tobytes())
                if file.tell() > 4 * MAX_FRAMES:
                    raise AudioError(f"{printable(path)}: too long at {rate_hz:,} Hz; cut it into shorter files")
        samples = _map_samples(file)
        clip = PreparedClip(samples, preparation)
        warnings = mixer.warnings(recording)
        if INAUDIBLE <= clip.peak * clip.gain < QUIET_PEAK:
            warnings.append(f"quiet: {20 * math.log10(clip.peak * clip.gain):.0f} dB of full scale, as few classes")
        if preparation.level == "keep" and clip.peak > LOUD_PEAK:
            warnings.append(f"louder than full scale and clipped: up to {clip.peak:.2g}; audio.level=peak avoids it")
        yield LoadedAudio(
            clip,
            source_seconds=recording.seconds,
            trimmed_seconds=(len(samples) - clip.n_samples) / rate_hz,
            warnings=tuple(warnings),
        )


def _map_samples(file: Any) -> Floats:
    """Map a file of float32 samples into memory; it may be closed."""
    file.flush()
    return np.asarray(np.memmap(file, np.float32, "c"))


def load_waveform(path: Path, preparation: Preparation, notice: Notice | None = None) -> Floats:
    """Load a whole file, prepared.

    Args:
        path: an audio file.
        preparation: the model's.
        notice: called with what is wrong with it.

    Returns:
        (T,) float32.

    Raises:
        UsageError, AudioError: as ``open_audio``.
    """
    with open_audio(path, preparation) as audio, tempfile.SpooledTemporaryFile(MAPPED_BYTES) as file:
        if notice:
            for warning in audio.warnings:
                notice(f"{printable(path)}: {warning}")
        for block in audio.clip.blocks():
            file.write(block.tobytes())
        if 4 * audio.clip.n_samples > MAPPED_BYTES:
            return _map_samples(file)
        file.seek(0)  # a shorter one holds no file open
        return np.frombuffer(bytearray(file.read()), np.float32)


def find_sound(samples: Samples, rate_hz: int, top_db: float) -> tuple[int, int]:
    """Find where both ends no longer stay more than `top_db` below the loudest part (librosa.effects.trim).

    Frames are short: a clip that begins with more silence than a model sees teaches it to wait.

    Args:
        samples: (T,) float32.
        rate_hz: their sample rate.
        top_db: decibels, above 0.

    Returns:
        The first sample and the one behind the last; all of them for silence from end to end.
    """
    librosa = load_librosa()

    n = len(samples)
    peak = max((float(np.abs(block).max()) for block in _blocks(samples)), default=0.0)
    if peak < INAUDIBLE:
        return 0, n
    size = max(4, round(SILENCE_FRAME_SECONDS * rate_hz))
    hop, half = size // 4, size // 2
    n_frames, per_block = 1 + (n + 2 * half - size) // hop, BLOCK // hop
    levels = []
    for first in range(0, n_frames, per_block):
        # the frames are centred at multiples of the hop, with zeros before the first sample and behind the last
        begin = first * hop - half
        end = (min(n_frames, first + per_block) - 1) * hop - half + size
        part = np.pad(samples[max(0, begin) : min(n, end)], (max(0, -begin), max(0, end - n)))
        # librosa takes all below -100 dB of full scale for equally quiet, and squares what is beyond: scaled, exactly
        scaled = np.ldexp(part, -math.frexp(peak)[1])
        levels.append(librosa.feature.rms(y=scaled, frame_length=size, hop_length=hop, center=False)[0])
    levels_db = librosa.amplitude_to_db(np.concatenate(levels), ref=np.max, top_db=None)
    loud = np.flatnonzero(levels_db > -top_db)
    return (int(loud[0]) * hop, min(n, (int(loud[-1]) + 1) * hop)) if len(loud) else (0, n)


def find_pauses(samples: Samples, rate_hz: int, below_db: float, longest_seconds: float) -> list[tuple[int, int]]:
    """Find the middles of long pauses (see ``quiet_stretches``), to be cut out.

    Args:
        samples: (T,) float32.
        rate_hz: their sample rate.
        below_db: how far below the loudest frame, in decibels.
        longest_seconds: what remains of a longer pause.

    Returns:
        The first sample of each cut and the one behind its last. ``FADE_SECONDS`` at either end of a cut are the two
        sides of a cross-fade.
    """
    stretches = quiet_stretches(samples, rate_hz, below_db)
    kept, fade = round(longest_seconds * rate_hz), round(FADE_SECONDS * rate_hz)
    half = max(0, kept - fade) // 2  # stays at either side, and the fade joins the two
    return [(start + half, stop - half) for start, stop in stretches if stop - start > max(kept, fade) + fade]


def quiet_stretches(samples: Samples, rate_hz: int, below_db: float) -> list[tuple[int, int]]:
    """Find where frames of ``SILENCE_FRAME_SECONDS`` stay far below the loudest one.

    Args:
        samples: (T,) float32.
        rate_hz: their sample rate.
        below_db: how far, in decibels of the frames' RMS.

    Returns:
        The first sample of each stretch and the one behind its last.
    """
    size = max(1, round(SILENCE_FRAME_SECONDS * rate_hz))
    n_frames = len(samples) // size
    if n_frames == 0:
        return []
    # (n,) -> (frames, size) -> (frames,): the mean power of each frame
    parts = _blocks(samples, 0, n_frames * size, max(1, BLOCK // size) * size)
    powers = np.concatenate([np.square(part.reshape(-1, size), dtype=np.float64).mean(axis=1) for part in parts])
    is_quiet = np.concatenate([[False], powers < powers.max() * 10 ** (-below_db / 10), [False]])
    # steps from loud to quiet and back, in pairs; padded, so that each has both
    edges = np.flatnonzero(np.diff(is_quiet.astype(np.int8))).reshape(-1, 2) * size
    return [(start, stop) for start, stop in edges.tolist()]


def _gain(peak: float, rms: float, level: Level, max_gain_db: float | None) -> float:
    """Return the factor that sets a level.

    Args:
        peak: largest absolute amplitude.
        rms: root mean square.
        level: "keep" leaves it as it is, "peak" puts the largest amplitude at -1 dB of full scale, "rms" the root
            mean square at -20 dB, or lower where it would clip.
        max_gain_db: scale up by this much at most; None for no limit.
    """
    if level == "keep" or peak < INAUDIBLE:
        return 1.0
    gain = min(RMS_LEVEL / rms, 1.0 / peak) if level == "rms" else PEAK_LEVEL / peak
    return gain if max_gain_db is None else min(gain, 10 ** (max_gain_db / 20))
