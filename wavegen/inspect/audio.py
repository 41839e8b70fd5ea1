"""Audio files: header, levels, duplicates, and the quantization to eight-bit mu-law."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from wavegen.audio.mono import CLIPPED_SHARE, DC_OFFSET, MISSING_SECONDS, MonoMixer, mono_passes
from wavegen.audio.quantize import Floats, Quantizer
from wavegen.data.corpus import Progress
from wavegen.text import printable

PIECE_SECONDS = 0.01  # silence is found in pieces of this length
SILENCE_DB = 60.0  # below the loudest piece: librosa's default, and so that of `audio.trim_db`


@dataclass(frozen=True)
class Levels:
    """Levels of one file.

    Attributes:
        peak_dbfs, rms_dbfs: of the mono mix, which a model gets; None where every sample of it is 0.
        dc_offset: of the channel that has most, in parts of full scale.
        clipped_samples, clipped_share: samples at full scale, of all channels.
        silence_threshold_db: how far below the loudest 10 ms a piece counts as silence.
        leading_silence_seconds, trailing_silence_seconds: all of a silent file is leading.
        silent_share: of the whole file.
    """

    peak_dbfs: float | None
    rms_dbfs: float | None
    dc_offset: float
    clipped_samples: int
    clipped_share: float
    silence_threshold_db: float
    leading_silence_seconds: float
    trailing_silence_seconds: float
    silent_share: float


class LevelMeter:
    """Measures the levels of a mono mix block by block, in memory that grows by 1,600 bytes for a second of audio.

    Args:
        mixer: makes the mix.
    """

    def __init__(self, mixer: MonoMixer) -> None:
        self._mixer = mixer
        self._piece_length = max(1, round(PIECE_SECONDS * mixer.info.rate_hz))
        self._energies: list[npt.NDArray[np.float64]] = []  # sums of squares of pieces
        self._lengths: list[npt.NDArray[np.int64]] = []  # of the pieces; a block's last one may be shorter

    def mix(self, block: Floats) -> Floats:
        """Return the (T,) mix of a (T, channels) block, which is measured."""
        mixed = self._mixer.mix(block)
        starts = np.arange(0, len(mixed), self._piece_length)
        self._energies.append(np.add.reduceat(np.square(mixed, dtype=np.float64), starts))
        self._lengths.append(np.diff(starts, append=len(mixed)))
        return mixed

    def levels(self) -> Levels:
        """Return the levels of all blocks."""
        mixer = self._mixer
        energies, lengths = np.concatenate(self._energies), np.concatenate(self._lengths)
        powers = energies / lengths
        is_loud = powers > powers.max() * 10 ** (-SILENCE_DB / 10)
        first = int(is_loud.argmax()) if is_loud.any() else len(is_loud)
        behind_last = len(is_loud) - int(is_loud[::-1].argmax())
        return Levels(
            peak_dbfs=decibels(max(mixer.highest, -mixer.lowest)),
            rms_dbfs=decibels(math.sqrt(float(energies.sum()) / mixer.n_frames)),
            dc_offset=mixer.dc_offset,
            clipped_samples=mixer.n_clipped,
            clipped_share=mixer.clipped_share,
            silence_threshold_db=SILENCE_DB,
            leading_silence_seconds=int(lengths[:first].sum()) / mixer.info.rate_hz,
            trailing_silence_seconds=int(lengths[behind_last:].sum()) / mixer.info.rate_hz,
            silent_share=float(lengths[~is_loud].sum() / lengths.sum()),
        )


@dataclass(frozen=True)
class ClipLevels:
    """A file that was decoded from its first sample to its last.

    Attributes:
        seconds: decoded.
        missing_seconds: how much more its header claims.
        levels: of its mono mix.
        warnings: what is wrong with it, as ``MonoMixer.warnings``.
        sound_hash: of the samples: equal for files of the same sound, whatever their names and tags.
    """

    seconds: float
    missing_seconds: float
    levels: Levels
    warnings: list[str]
    sound_hash: str


def measure_clip(path: Path) -> ClipLevels:
    """Decode a file, block by block, and measure its levels."""
    for recording, mixer in mono_passes(path):
        info = recording.info
        meter, digest = LevelMeter(mixer), hashlib.sha256(f"{info.rate_hz} {info.channels}".encode())
        for block in recording:
            meter.mix(block)
            digest.update(np.ascontiguousarray(block).data)
    missing, warnings = max(0.0, recording.missing_seconds), mixer.warnings(recording)
    return ClipLevels(recording.seconds, missing, meter.levels(), warnings, digest.hexdigest())


@dataclass(frozen=True)
class Spread:
    """The lowest, the median and the highest of some values."""

    lowest: float
    median: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        """Return the spread of the values that are known."""
        known = [value for value in values if value is not None]
        return cls(min(known), median(known), max(known)) if known else None


@dataclass(frozen=True)
class FolderLevels:
    """Levels of all files of a folder together, and how many files are odd.

    Attributes:
        silent_share: of all audio, the part that lies ``SILENCE_DB`` below its file's loudest.
        damaged_files: shorter than their header claims.
        duplicates: groups of files with the same samples; the first of each is taken for the original.
        warnings: the warnings of each file that has some.
        repeated_seconds: of all copies.
    """

    peak_dbfs: Spread | None
    rms_dbfs: Spread | None
    clipped_files: int
    dc_offset_files: int
    silent_files: int
    silent_share: float | None
    damaged_files: int
    duplicates: list[list[str]]
    warnings: dict[str, list[str]]
    repeated_seconds: float

    @classmethod
    def of(cls, clips: Mapping[str, ClipLevels]) -> FolderLevels:
        """Sum up the levels of the files that can be used, by their names."""
        levels = [clip.levels for clip in clips.values()]
        seconds = sum(clip.seconds for clip in clips.values())
        silent_seconds = sum(clip.seconds * clip.levels.silent_share for clip in clips.values())
        by_sound: dict[str, list[str]] = defaultdict(list)
        for name, clip in clips.items():
            by_sound[clip.sound_hash].append(name)
        groups = sorted(names for names in by_sound.values() if len(names) > 1)
        originals = {name: group[0] for group in groups for name in group[1:]}
        warnings = {name: list(clip.warnings) for name, clip in sorted(clips.items())}
        for name, original in originals.items():
            warnings[name].append(f"the same as {printable(original)}")
        return cls(
            peak_dbfs=Spread.of([each.peak_dbfs for each in levels]),
            rms_dbfs=Spread.of([each.rms_dbfs for each in levels]),
            clipped_files=sum(each.clipped_share >= CLIPPED_SHARE for each in levels),
            dc_offset_files=sum(abs(each.dc_offset) >= DC_OFFSET for each in levels),
            silent_files=sum(each.peak_dbfs is None for each in levels),
            silent_share=silent_seconds / seconds if seconds else None,
            damaged_files=sum(clip.missing_seconds > MISSING_SECONDS for clip in clips.values()),
            duplicates=groups,
            warnings={name: found for name, found in warnings.items() if found},
            repeated_seconds=sum(clips[name].seconds for name in originals),
        )


def decibels(amplitude: float) -> float | None:
    """Return an amplitude in dB of full scale; None for 0."""
    return 20 * math.log10(amplitude) if amplitude > 0 else None


# --- one file -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QuantizationFacts:
    """Statistics of a quantizer on audio.

    Attributes:
        classes, classes_used, share_of_classes_used: how many there are, and how many occur.
        signal_to_noise_db: of the rounding to classes; None for silence.
    """

    classes: int
    classes_used: int
    share_of_classes_used: float
    signal_to_noise_db: float | None


@dataclass(frozen=True, kw_only=True)
class AudioFacts:
    """An audio file.

    Attributes:
        encoding: libsndfile's name of the sample format.
        bits: per sample; None for lossy encodings.
        samples_per_channel, seconds: as decoded.
        missing_seconds: how much more the header claims.
        warnings: what is wrong with it, as ``MonoMixer.warnings``.
        level: of the mono mix.
        mu_law: of the same, at the file's own rate.
    """

    kind = "audio"
    path: str
    file_bytes: int
    container: str
    encoding: str
    bits: int | None
    rate_hz: int
    channels: int
    samples_per_channel: int
    seconds: float
    missing_seconds: float
    warnings: list[str]
    level: Levels
    mu_law: QuantizationFacts


def inspect_audio(path: Path, progress: Progress | None = None) -> AudioFacts:
    """Decode a whole audio file once.

    Args:
        path: of the file.
        progress: called with (samples decoded, samples in all) where the header knows how many there are.

    Raises:
        AudioError: it is not audio that libsndfile reads, or damaged.
    """
    for recording, mixer in mono_passes(path):
        info = recording.info
        level, mu_law = LevelMeter(mixer), QuantizationMeter(Quantizer("mu_law", 256))
        for block in recording:
            mu_law.update(level.mix(block))
            if progress and info.frames:
                progress(min(mixer.n_frames, info.frames), info.frames)
    return AudioFacts(
        path=str(path),
        file_bytes=path.stat().st_size,
        **{name: getattr(info, name) for name in ("container", "encoding", "bits", "rate_hz", "channels")},
        samples_per_channel=recording.n_frames,
        seconds=recording.seconds,
        missing_seconds=max(0.0, recording.missing_seconds),
        warnings=mixer.warnings(recording),
        level=level.levels(),
        mu_law=mu_law.facts(),
    )


class QuantizationMeter:
    """Measures the quantization of mono audio, block by block.

    Args:
        quantizer: the companding.

    Attributes:
        counts: (classes,) how often each class occurred so far.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        self.counts = np.zeros(quantizer.classes, dtype=np.int64)
        self._quantizer = quantizer
        self._edges = quantizer.edges()[1:-1].astype(np.float32)
        self._amplitudes = quantizer.decode(np.arange(quantizer.classes))
        self._signal = self._noise = 0.0

    def update(self, waveform: Floats) -> Floats:
        """Add (T,) samples.

        Returns:
            (T,) the error of each: the sample less the amplitude of its class.
        """
        # The classes of Quantizer.encode, but for samples within rounding of an edge. Quantizer.encode imports torch,
        # which takes as long as decoding minutes of audio.
        classes = np.searchsorted(self._edges, waveform, side="right")
        error: Floats = waveform - self._amplitudes[classes]
        self.counts += np.bincount(classes, minlength=self._quantizer.classes)
        self._signal += float(np.square(waveform, dtype=np.float64).sum())
        self._noise += float(np.square(error, dtype=np.float64).sum())
        return error

    def facts(self) -> QuantizationFacts:
        """Return the facts of all blocks."""
        n_used = int(np.count_nonzero(self.counts))
        audible = self._signal > 0 and self._noise > 0
        return QuantizationFacts(
            self._quantizer.classes,
            n_used,
            n_used / self._quantizer.classes,
            10 * math.log10(self._signal / self._noise) if audible else None,
        )
