"""Show what ``inspect`` found, as tables or as a plot; the tables of recordings and series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavegen.audio.mono import CLIPPED_SHARE, DC_OFFSET
from wavegen.errors import UsageError
from wavegen.inspect import Facts
from wavegen.inspect.audio import SILENCE_DB, AudioFacts, FolderLevels, Spread
from wavegen.inspect.models import CheckpointFacts, ConfigFacts
from wavegen.inspect.recordings import FolderFacts, SeriesFacts
from wavegen.inspect.runs import ComparisonFacts, RunFacts, RunListFacts
from wavegen.output_file import write_output
from wavegen.report import Table, counted, facts, first_rows
from wavegen.report.models import checkpoint_tables, comparison_tables, config_tables, run_list_tables, run_tables
from wavegen.runs.run_folder import History
from wavegen.text import format_bytes, format_duration, group_by_reason, pluralize, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENCODINGS = {"FLOAT": "32-bit float", "DOUBLE": "64-bit float", "ULAW": "mu-law", "ALAW": "A-law"}
ENCODINGS |= {"VORBIS": "Vorbis", "OPUS": "Opus"} | {f"MPEG_LAYER_{n}": f"layer {n}" for n in ("I", "II", "III")}


def tables_of(found: Facts) -> list[Table]:
    """Return the tables of what was inspected."""
    tables: dict[type, Callable[[Any], list[Table]]] = {
        FolderFacts: folder_tables,
        AudioFacts: audio_tables,
        SeriesFacts: series_tables,
        ConfigFacts: config_tables,
        CheckpointFacts: checkpoint_tables,
        RunFacts: run_tables,
        RunListFacts: run_list_tables,
        ComparisonFacts: comparison_tables,
    }
    return tables[type(found)](found)


def draw(found: Facts, target: Path) -> None:
    """Draw what was inspected into a PNG file.

    Raises:
        UsageError: there is nothing to draw yet: no step, no validation, no file.
        WavegenError: the file cannot be written; what was there before stays.
    """
    from wavegen.report.plots import encode

    write_output(target, encode(_figure(found)))


def _figure(found: Facts) -> Figure:
    from wavegen.report import curves, plots

    match found:
        case FolderFacts(files=[_, *_]):
            return plots.folder_figure(found)
        case AudioFacts():
            return plots.audio_figure(Path(found.path))
        case SeriesFacts(series=[_, *_]):
            return curves.series_figure(found)
        case ConfigFacts() | CheckpointFacts():
            return curves.network_figure(printable(found.path), found.network)
        case RunFacts():
            return curves.run_figure(printable(found.path), _drawable(found), found.loss_unit.full_name)
        case ComparisonFacts():
            units = {run.loss_unit.full_name for run in found.runs}
            if len(units) > 1:
                several = " and ".join(sorted(units))
                raise UsageError(f"expected runs of the same classes to draw, found {several}; draw them apart")
            histories = [_drawable(run) for run in found.runs]
            return curves.comparison_figure(found.names, histories, units.pop(), found.not_comparable_because)
    reasons = {
        "folder": "it has no usable audio file",
        "series": "it has no usable series",
        "runs": "give the runs themselves, to compare them",
    }
    raise UsageError(f"{printable(vars(found)['path'])}: nothing to draw: {reasons[found.kind]}")


def _drawable(run: RunFacts) -> History:
    """Return a run's history, which has a step with a finite loss."""
    if not run.history.recent:
        raise UsageError(f"{printable(run.path)}: nothing to draw: its metrics.jsonl has no step with a finite loss")
    return run.history


def audio_tables(found: AudioFacts) -> list[Table]:
    """Return the tables of an audio file."""
    level, mu_law = found.level, found.mu_law
    header = facts(
        printable(found.path),
        format=_format(found.container, found.encoding, found.bits),
        rate=f"{found.rate_hz:,} Hz",
        channels=found.channels,
        length=f"{format_duration(found.seconds)} ({found.samples_per_channel:,} samples)",
        file_size=format_bytes(found.file_bytes),
    )
    warnings = Table("Worth a look", (), [("", warning) for warning in found.warnings])
    if level.peak_dbfs is None:
        return [header, facts("Level", peak="digital silence: every sample is 0"), warnings]
    share = f" ({level.clipped_share:.2%})" if level.clipped_share >= 5e-5 else ""
    ratio = mu_law.signal_to_noise_db
    levels = {
        "peak": f"{level.peak_dbfs:.1f} dBFS",
        "RMS": f"{level.rms_dbfs:.1f} dBFS",
        "DC offset": f"{level.dc_offset:+.4f} of full scale" if abs(level.dc_offset) >= 5e-5 else "none",
        "clipped": f"{level.clipped_samples:,} samples{share}" if level.clipped_samples else "none",
        "silence at start": f"{level.leading_silence_seconds:.2f} s",
        "silence at end": f"{level.trailing_silence_seconds:.2f} s",
    }
    quantization = facts(
        f"As {mu_law.classes} mu-law classes, mono",
        classes_used=f"{mu_law.classes_used} of {mu_law.classes}",
        signal_to_noise=None if ratio is None else f"{ratio:.1f} dB",
    )
    return [header, facts("Level", **levels), quantization, warnings]


def folder_tables(found: FolderFacts) -> list[Table]:
    """Return the tables of a folder of recordings."""
    ignored = found.ignored_entries
    usable = f"{pluralize(found.usable_files, 'file')}, {format_duration(60 * found.minutes)}"
    summary = facts(
        printable(found.path),
        usable=usable if found.levels else f"{usable}, by their headers; --listen decodes them",
        unknown_length=counted(found.files_of_unknown_length, "file"),
        clips=_lengths(found.seconds),
        unusable=counted(found.unusable_files, "file"),
        ignored=f"{ignored:,} (no audio, or hidden)" if ignored else None,
        features=f"{found.feature_files:,} of {pluralize(found.usable_files, 'file')} have one, name.npy"
        if found.feature_files
        else None,
    )
    formats = []
    for each in found.formats:
        counts = f"{each.rate_hz:,}", f"{each.channels}", f"{each.files:,}", f"{each.minutes:.2f}"
        formats.append((_format(each.container, each.encoding, each.bits), *counts))
    columns = ("format", "rate (Hz)", "channels", "files", "minutes")
    levels = _level_tables(found.levels) if found.levels else []
    return [summary, first_rows("Formats", columns, formats), _unusable_table(found), *levels]


def _unusable_table(found: FolderFacts | SeriesFacts) -> Table:
    rows = group_by_reason((each.name, each.reason) for each in found.unusable)
    return first_rows("Cannot be used", ("file", "why"), rows)


def _level_tables(levels: FolderLevels) -> list[Table]:
    """Return the levels of all files, and the files that are worth a look."""
    share, copies = levels.silent_share, sum(len(group) - 1 for group in levels.duplicates)
    figures = {
        "peak": _spread(levels.peak_dbfs),
        "RMS": _spread(levels.rms_dbfs),
        "clipped": _files(levels.clipped_files, f"with {CLIPPED_SHARE:.2%} of their samples at full scale"),
        "DC offset": _files(levels.dc_offset_files, f"with {DC_OFFSET:.0%} of full scale or more"),
        "silence": None
        if share is None
        else f"{share:.1%} of all audio lies {SILENCE_DB:.0f} dB below its file's loudest part",
        "silent": _files(levels.silent_files, "without any sound"),
        "duplicates": _files(
            copies, f"with the very samples of another, {format_duration(levels.repeated_seconds)} in all"
        ),
        "damaged": _files(levels.damaged_files, "shorter than their header claims"),
    }
    odd = [(printable(name), "; ".join(found)) for name, found in levels.warnings.items()]
    worth_a_look = first_rows("Worth a look", ("file", "what"), odd)
    return [facts("Levels", **figures), worth_a_look]


def series_tables(found: SeriesFacts) -> list[Table]:
    """Return the tables of a folder or a file of series."""
    words = zip(("shortest", "median", "longest"), vars(found.lengths).values(), strict=True) if found.lengths else ()
    summary = facts(
        printable(found.path),
        series=f"{len(found.series):,}, {found.points:,} points",
        lengths=", ".join(f"{word} {length:,.0f}" for word, length in words) or None,
        unusable=counted(len(found.unusable), "file"),
    )
    columns = ("series", "points", "mean", "deviation", "lowest", "highest", "last value's error")
    rows = []
    for each in found.series:
        name, points, *figures = vars(each).values()
        rows.append((printable(name), f"{points:,}", *(f"{figure:.4g}" for figure in figures)))
    return [summary, first_rows("Series", columns, rows), _unusable_table(found)]


def _format(container: str, encoding: str, bits: int | None) -> str:
    """Return a file format by libsndfile's names in words: WAV 16 bit, OGG Vorbis."""
    plain = encoding.lower().replace("_", " ") if bits is None else f"{bits} bit"
    return f"{container} {ENCODINGS.get(encoding, plain)}"


def _lengths(seconds: Spread | None) -> str | None:
    if seconds is None:
        return None
    lengths = vars(seconds).values()
    shortest, middle, longest = (f"{1000 * each:.0f} ms" if each < 1 else format_duration(each) for each in lengths)
    return f"shortest {shortest}, median {middle}, longest {longest}"


def _spread(spread: Spread | None) -> str | None:
    if spread is None:
        return None
    words = (f"{name} {round(level, 1) + 0.0:.1f}" for name, level in vars(spread).items())  # + 0.0 makes no -0.0
    return f"{', '.join(words)} dBFS"


def _files(count: int, what: str) -> str:
    return f"{pluralize(count, 'file')} {what}" if count else "none"
