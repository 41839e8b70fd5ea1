"""Tables of recordings and series."""

from __future__ import annotations

from wavegen.audio.waveform import MISSING_SECONDS
from wavegen.config import load_config
from wavegen.inspect.audio import AudioFacts
from wavegen.inspect.folder import FolderFacts
from wavegen.inspect.levels import CLIPPED_SHARE, DC_OFFSET, FolderLevels, Spread
from wavegen.inspect.series import SeriesFacts
from wavegen.report.tables import Table, facts, first_rows
from wavegen.text import format_bytes, format_duration, pluralize, printable

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


def audio_tables(found: AudioFacts) -> list[Table]:
    """Return the tables of an audio file."""
    level, mu_law, missing = found.level, found.mu_law, found.missing_seconds
    header = facts(
        printable(found.path),
        format=_format(found.container, found.encoding, found.bits),
        rate=f"{found.rate_hz:,} Hz",
        channels=found.channels,
        length=f"{format_duration(found.seconds)} ({found.samples_per_channel:,} samples)",
        missing=f"{missing:.2f} s less than in the header: damaged or cut off" if missing > MISSING_SECONDS else None,
        file_size=format_bytes(found.file_bytes),
    )
    if level.peak_dbfs is None:
        return [header, facts("level", peak="digital silence: every sample is 0")]
    clipped = f"{level.clipped_samples:,} samples" + (
        f" ({level.clipped_share:.2%})" if level.clipped_share >= 5e-5 else ""
    )
    ratio = mu_law.signal_to_noise_db
    return [
        header,
        facts(
            "level",
            **{
                "peak": f"{level.peak_dbfs:.1f} dBFS",
                "RMS": f"{level.rms_dbfs:.1f} dBFS",
                "DC offset": f"{level.dc_offset:+.4f} of full scale" if abs(level.dc_offset) >= 5e-5 else "none",
                "clipped": clipped if level.clipped_samples else "none",
                "silence at start": f"{level.leading_silence_seconds:.2f} s",
                "silence at end": f"{level.trailing_silence_seconds:.2f} s",
            },
        ),
        facts(
            f"as {mu_law.classes} mu-law classes, mono",
            **{
                "classes used": f"{mu_law.classes_used} of {mu_law.classes}",
                "signal to noise": None if ratio is None else f"{ratio:.1f} dB",
            },
        ),
    ]


def folder_tables(found: FolderFacts) -> list[Table]:
    """Return the tables of a folder of recordings."""
    n_unknown, cache = found.files_of_unknown_length, found.cache
    tables = [
        facts(
            printable(found.path),
            usable=f"{pluralize(found.usable_files, 'file')}, {format_duration(60 * found.minutes)}",
            unknown_length=pluralize(n_unknown, "file") if n_unknown else None,
            clips=_lengths(found),
            unusable=pluralize(found.unusable_files, "file") if found.unusable_files else None,
            ignored=f"{found.ignored_entries:,} (no audio, or hidden)" if found.ignored_entries else None,
            cache=f"{pluralize(cache.files, 'file')} decoded, {format_bytes(cache.bytes)} (of "
            f"{format_bytes(cache.all_bytes)} in all at {printable(cache.path)})"
            if cache.files and cache.path
            else None,
        )
    ]
    if found.formats:
        rows = [
            (
                _format(each.container, each.encoding, each.bits),
                f"{each.rate_hz:,}",
                str(each.channels),
                f"{each.files:,}",
                f"{each.minutes:.2f}",
            )
            for each in found.formats
        ]
        tables.append(first_rows("formats", ("format", "rate (Hz)", "channels", "files", "minutes"), rows))
    if found.unusable:
        rejected = [(printable(each.name), each.reason) for each in found.unusable]
        tables.append(first_rows("cannot be used", ("file", "why"), rejected))
    return tables + (_level_tables(found.levels) if found.levels else [])


def _level_tables(levels: FolderLevels) -> list[Table]:
    """Return the levels of all files, what training would use, and the files that are worth a look."""
    share, copies = levels.silent_share, sum(len(group) - 1 for group in levels.duplicates)
    threshold = f"{levels.silence_threshold_db:.0f} dB"
    rate_hz = load_config().audio.sample_rate_hz
    tables = [
        facts(
            "levels",
            **{
                "peak": _spread(levels.peak_dbfs),
                "RMS": _spread(levels.rms_dbfs),
                "clipped": _files(levels.clipped_files, f"with {CLIPPED_SHARE:.2%} of their samples at full scale"),
                "DC offset": _files(levels.dc_offset_files, f"with {DC_OFFSET:.0%} of full scale or more"),
                "silence": None
                if share is None
                else f"{share:.1%} of all audio lies {threshold} below its file's loudest part",
                "silent": _files(levels.silent_files, "without any sound"),
                "duplicates": _files(copies, "with the very samples of another"),
                "damaged": _files(levels.damaged_files, "shorter than their header claims"),
            },
        ),
        facts(
            "what training would use",
            files=f"{levels.files:,}",
            length=format_duration(levels.seconds)
            + (f", {format_duration(levels.seconds - levels.distinct_seconds)} of it repeated" if copies else ""),
            **{
                "as": f"mono at {rate_hz:,} Hz, {round(levels.seconds * rate_hz):,} samples (the default preset)",
            },
        ),
    ]
    rows = [(printable(name), "; ".join(found)) for name, found in levels.warnings.items()]
    return [*tables, first_rows("worth a look", ("file", "what"), rows)] if rows else tables


def series_tables(found: SeriesFacts) -> list[Table]:
    """Return the tables of a folder or a file of series."""
    tables = [
        facts(
            printable(found.path),
            series=f"{len(found.series):,}, {found.points:,} points",
            lengths=f"shortest {found.shortest:,}, median {found.median:,.0f}, longest {found.longest:,}"
            if found.series
            else None,
            unusable=pluralize(len(found.unusable), "file") if found.unusable else None,
        )
    ]
    if found.series:
        rows = [
            (
                printable(each.name),
                f"{each.points:,}",
                *(f"{value:.4g}" for value in (each.mean, each.standard_deviation, each.lowest, each.highest)),
                f"{each.last_value_squared_error:.4g}",
            )
            for each in found.series
        ]
        columns = ("series", "points", "mean", "deviation", "lowest", "highest", "last value's error")
        tables.append(first_rows("series", columns, rows))
    if found.unusable:
        rejected = [(printable(each.name), each.reason) for each in found.unusable]
        tables.append(first_rows("cannot be used", ("file", "why"), rejected))
    return tables


def _format(container: str, encoding: str, bits: int | None) -> str:
    """Return a file format by libsndfile's names in words: WAV 16 bit, OGG Vorbis."""
    plain = encoding.lower().replace("_", " ") if bits is None else f"{bits} bit"
    return f"{container} {ENCODINGS.get(encoding, plain)}"


def _lengths(found: FolderFacts) -> str | None:
    if found.shortest_seconds is None:
        return None
    shortest, middle, longest = (
        f"{1000 * length:.0f} ms" if length < 1 else format_duration(length)
        for length in (found.shortest_seconds, found.median_seconds or 0.0, found.longest_seconds or 0.0)
    )
    return f"shortest {shortest}, median {middle}, longest {longest}"


def _spread(spread: Spread | None) -> str | None:
    if spread is None:
        return None
    words = (f"{name} {round(level, 1) + 0.0:.1f}" for name, level in vars(spread).items())  # + 0.0 makes no -0.0
    return f"{', '.join(words)} dBFS"


def _files(count: int, what: str) -> str:
    return f"{pluralize(count, 'file')} {what}" if count else "none"
