"""An audio file: its header, its level, and what eight-bit mu-law makes of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.files import AudioInfo, Floats, read_blocks
from wavegen.audio.finding import printable
from wavegen.audio.quantize import Quantizer
from wavegen.audio.signal import to_mono
from wavegen.report.inspection.inspection import Inspection, Progress
from wavegen.report.tables import Table, facts, file_size, minutes

PIECE_SECONDS = 0.01  # level is followed in pieces of this length
SILENCE_DB = 60.0  # below the loudest piece: what librosa, and so `audio.trim_db`, takes for silence by default
SHOWN_MISSING_SECONDS = 0.1  # lossy formats claim some padding more than they hold

# The largest amplitude of telephone companding is below 1 (ITU-T G.711, tables 1a and 2a).
LARGEST = {"ULAW": 32124 / 32768, "ALAW": 32256 / 32768}

ENCODINGS = {
    "FLOAT": "32-bit float",
    "DOUBLE": "64-bit float",
    "ULAW": "mu-law",
    "ALAW": "A-law",
    "VORBIS": "Vorbis",
    "OPUS": "Opus",
    "MPEG_LAYER_I": "layer I",
    "MPEG_LAYER_II": "layer II",
    "MPEG_LAYER_III": "layer III",
}


def inspect_audio(path: Path, progress: Progress | None = None) -> Inspection:
    """Hear a whole audio file once, in memory that does not grow with it but for 800 bytes a second.

    Level, peak and clipping are those of all channels together, the quantization is that of their mix, at the file's
    own rate.

    Args:
        path: of the file.
        progress: called with (samples heard, samples in all) where the header knows how many there are.

    Raises:
        AudioError: it is not audio that libsndfile reads, or damaged.
    """
    info, blocks = read_blocks(path)
    level = _LevelMeter(info)
    mu_law = _QuantizationMeter(Quantizer("mu_law", 256))
    for block in blocks:
        level.hear(block)
        mu_law.hear(to_mono(block))
        if progress and info.frames:
            progress(min(level.n_frames, info.frames), info.frames)
    seconds = level.n_frames / info.rate_hz
    values: dict[str, Any] = {
        "kind": "audio",
        "path": str(path),
        "file_bytes": path.stat().st_size,
        "container": info.container,
        "encoding": info.encoding,
        "bits": info.bits,
        "rate_hz": info.rate_hz,
        "channels": info.channels,
        "samples_per_channel": level.n_frames,
        "seconds": seconds,
        "missing_seconds": max(0.0, (info.seconds or 0.0) - seconds),
        "level": level.facts(),
        "mu_law": mu_law.facts(),
    }
    return Inspection("audio", values, _tables(path, info, values))


def describe_encoding(encoding: str, bits: int | None) -> str:
    """A sample format, by libsndfile's name, as people say it: 16 bit, 32-bit float, Vorbis."""
    if encoding in ENCODINGS:
        return ENCODINGS[encoding]
    return encoding.lower().replace("_", " ") if bits is None else f"{bits} bit"


class _LevelMeter:
    """Level of a stream of blocks.

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
        self._energies.append(_energy(joined[:n_whole].reshape(-1, self._piece_length * block.shape[1])))
        self._rest = joined[n_whole:]

    def facts(self) -> dict[str, Any]:
        """The level of all that was heard."""
        energies = np.concatenate([*self._energies, _energy(self._rest.reshape(1, -1))])
        n_values = self.n_frames * len(self._sums)
        means = self._sums / self.n_frames
        leading, trailing = self._silence_seconds(energies)
        return {
            "peak_dbfs": _decibels(self._peak),
            "rms_dbfs": _decibels(math.sqrt(float(energies.sum()) / n_values)),
            "dc_offset": float(means[np.argmax(np.abs(means))]),
            "clipped_samples": self._n_clipped,
            "clipped_share": self._n_clipped / n_values,
            "silence_threshold_db": SILENCE_DB,
            "leading_silence_seconds": leading,
            "trailing_silence_seconds": trailing,
        }

    def _silence_seconds(self, energies: npt.NDArray[np.float64]) -> tuple[float, float]:
        """How long it is silent at the start and at the end; all of it at the start where nothing is loud."""
        lengths = np.full(len(energies), self._piece_length)
        lengths[-1] = max(1, len(self._rest))
        powers = energies / lengths
        loud = np.flatnonzero(powers > powers.max() * 10 ** (-SILENCE_DB / 10))
        if not len(loud):
            return self.n_frames / self._rate_hz, 0.0
        start, end = int(loud[0]) * self._piece_length, (int(loud[-1]) + 1) * self._piece_length
        return start / self._rate_hz, max(0, self.n_frames - end) / self._rate_hz


class _QuantizationMeter:
    """What a quantizer makes of a stream of mono blocks."""

    def __init__(self, quantizer: Quantizer) -> None:
        self._quantizer = quantizer
        self._edges = quantizer.edges()[1:-1].astype(np.float32)
        self._levels = quantizer.decode(np.arange(quantizer.classes))
        self._counts = np.zeros(quantizer.classes, dtype=np.int64)
        self._signal = self._noise = 0.0

    def hear(self, waveform: Floats) -> None:
        """Add (T,) samples."""
        # The classes of Quantizer.encode, but for samples within rounding of an edge; that imports torch, which takes
        # as long as hearing minutes of audio.
        classes = np.searchsorted(self._edges, waveform, side="right")
        self._counts += np.bincount(classes, minlength=self._quantizer.classes)
        self._signal += float(_energy(waveform[None])[0])
        self._noise += float(_energy((waveform - self._levels[classes])[None])[0])

    def facts(self) -> dict[str, Any]:
        """How many classes occur, and how far the noise that rounding to them makes lies below the signal."""
        n_used = int(np.count_nonzero(self._counts))
        audible = self._signal > 0 and self._noise > 0
        return {
            "classes": self._quantizer.classes,
            "classes_used": n_used,
            "share_of_classes_used": n_used / self._quantizer.classes,
            "signal_to_noise_db": 10 * math.log10(self._signal / self._noise) if audible else None,
        }


def _full_scale(info: AudioInfo) -> float:
    """The magnitude from which on a sample counts as clipped."""
    if info.encoding.startswith("PCM_") and info.bits is not None:
        return 1.0 - 2.0 ** (1 - info.bits)  # the largest positive one; the negative one is 1
    return LARGEST.get(info.encoding, 1.0)


def _energy(rows: Floats) -> npt.NDArray[np.float64]:
    """Sum of squares of each row."""
    energies: npt.NDArray[np.float64] = np.square(rows, dtype=np.float64).sum(axis=1)
    return energies


def _decibels(amplitude: float) -> float | None:
    return 20 * math.log10(amplitude) if amplitude > 0 else None


def _tables(path: Path, info: AudioInfo, values: dict[str, Any]) -> list[Table]:
    level, mu_law = values["level"], values["mu_law"]
    missing = values["missing_seconds"]
    header = facts(
        printable(path),
        format=f"{info.container} {describe_encoding(info.encoding, info.bits)}",
        rate=f"{info.rate_hz:,} Hz",
        channels=info.channels,
        length=f"{minutes(values['seconds'])} ({values['samples_per_channel']:,} samples)",
        missing=f"{missing:.2f} s less than the header says: damaged or cut off"
        if missing > SHOWN_MISSING_SECONDS
        else None,
        file_size=file_size(values["file_bytes"]),
    )
    if level["peak_dbfs"] is None:
        return [header, facts("level", peak="digital silence: every sample is 0")]
    share, offset, ratio = level["clipped_share"], level["dc_offset"], mu_law["signal_to_noise_db"]
    clipped = f"{level['clipped_samples']:,} samples" + (f" ({share:.2%})" if share >= 5e-5 else "")
    return [
        header,
        facts(
            "level",
            **{
                "peak": f"{level['peak_dbfs']:.1f} dBFS",
                "RMS": f"{level['rms_dbfs']:.1f} dBFS",
                "DC offset": f"{offset:+.4f} of full scale" if abs(offset) >= 5e-5 else "none",
                "clipped": clipped if level["clipped_samples"] else "none",
                "silence at start": f"{level['leading_silence_seconds']:.2f} s",
                "silence at end": f"{level['trailing_silence_seconds']:.2f} s",
            },
        ),
        facts(
            f"as {mu_law['classes']} mu-law classes, mono",
            **{
                "classes used": f"{mu_law['classes_used']} of {mu_law['classes']}",
                "signal to noise": None if ratio is None else f"{ratio:.1f} dB",
            },
        ),
    ]
