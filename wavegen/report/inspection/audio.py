"""An audio file: its header, its level, and what eight-bit mu-law makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wavegen.audio.quantize import Quantizer
from wavegen.audio.read import AudioInfo, read_blocks
from wavegen.audio.waveform import MISSING_SECONDS, to_mono
from wavegen.report.inspection.inspection import Inspection, Progress
from wavegen.report.inspection.level import LevelMeter
from wavegen.report.inspection.quantization import QuantizationMeter
from wavegen.report.tables import Table, facts, file_size, minutes
from wavegen.text import printable

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
    level = LevelMeter(info)
    mu_law = QuantizationMeter(Quantizer("mu_law", 256))
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


def _tables(path: Path, info: AudioInfo, values: dict[str, Any]) -> list[Table]:
    level, mu_law = values["level"], values["mu_law"]
    missing = values["missing_seconds"]
    header = facts(
        printable(path),
        format=f"{info.container} {describe_encoding(info.encoding, info.bits)}",
        rate=f"{info.rate_hz:,} Hz",
        channels=info.channels,
        length=f"{minutes(values['seconds'])} ({values['samples_per_channel']:,} samples)",
        missing=f"{missing:.2f} s less than the header says: damaged or cut off" if missing > MISSING_SECONDS else None,
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
