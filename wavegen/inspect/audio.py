"""An audio file: its header, its levels, and its quantization to eight-bit mu-law."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavegen.audio.mono import mono_passes
from wavegen.audio.quantize import Floats, Quantizer
from wavegen.inspect.facts import Facts, Progress
from wavegen.inspect.levels import LevelMeter, Levels, energy


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
class AudioFacts(Facts):
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
        level, mu_law = LevelMeter(info.rate_hz), QuantizationMeter(Quantizer("mu_law", 256))
        for block in recording:
            mixed = mixer.mix(block)
            level.update(mixed)
            mu_law.update(mixed)
            if progress and info.frames:
                progress(min(level.n_frames, info.frames), info.frames)
    return AudioFacts(
        path=str(path),
        file_bytes=path.stat().st_size,
        **{name: getattr(info, name) for name in ("container", "encoding", "bits", "rate_hz", "channels")},
        samples_per_channel=recording.n_frames,
        seconds=recording.seconds,
        missing_seconds=max(0.0, recording.missing_seconds),
        warnings=mixer.warnings(recording),
        level=level.levels(mixer),
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
        self._signal += float(energy(waveform[None])[0])
        self._noise += float(energy(error[None])[0])
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
