"""The style of all plots, drawn without pyplot and its global state, and plots of sound: clips, files, folders."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wavegen.audio.librosa_loading import load_librosa
from wavegen.audio.mono import mono_passes
from wavegen.audio.quantize import Floats
from wavegen.inspect.recordings import FolderFacts
from wavegen.output_file import write_output
from wavegen.text import format_duration, pluralize, printable

DPI = 100

# Colours that stay apart for colour-blind eyes: Okabe and Ito, "Color Universal Design", 2008.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
DARK = "#374151"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)

COLUMNS = 1000  # a few more than a picture has pixels across
FFT_SECONDS = 0.032  # resolves the harmonics of a voice and still its syllables
SPECTROGRAM_LOOK: dict[str, Any] = {"x_axis": "time", "y_axis": "hz", "cmap": "magma", "vmin": -90.0, "vmax": -10.0}
FRAMES_AT_ONCE = 4096  # bounds the memory of long recordings
PAIR_ROWS, PAIR_SECONDS = 10, 10.0  # of clips that are drawn next to recordings
BINS = 20


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; its size is in hundreds of pixels."""
    return Figure(figsize=(width, height), layout="constrained", dpi=DPI)


def encode(figure: Figure, kind: Literal["png", "svg"] = "png") -> bytes:
    """Return the figure as the content of a file, without a date: the same figure gives the same file."""
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "wavegen"}), warnings.catch_warnings():
        # file names can be in any script; the font draws a box for missing characters
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def tidy(axes: Axes, grid: Literal["x", "y", "both"] = "y") -> None:
    """Remove the frame that no value needs, and draw a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, alpha=0.25)


def title(axes: Axes, text: str) -> None:
    """Set a title at the left; a name in it is text and no formula."""
    axes.set_title(text, loc="left", fontsize=11, parse_math=False)


def format_thousands(value: float, _: object = None) -> str:
    """Format a tick: 12,000; nothing for a tick between whole numbers."""
    return f"{value:,.0f}" if value == int(value) else ""


# --- sound ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spectrogram:
    """Power over time and frequency.

    Attributes:
        level_db: (frequencies, columns); 0 dB is a full-scale sine, so that plots of different clips compare.
        fft_size: samples in a frame.
        hop: samples from one column to the next.
    """

    level_db: Floats
    fft_size: int
    hop: int


def spectrogram(waveform: Floats, sample_rate_hz: int, most_columns: int) -> Spectrogram:
    """Compute a short-time Fourier transform with a Hann window.

    Args:
        waveform: (T,) in [-1, 1].
        sample_rate_hz: of the waveform.
        most_columns: of the result; where there are more frames, a column is the mean power of several.
    """
    librosa = load_librosa()

    fft_size = max(32, 2 ** round(math.log2(FFT_SECONDS * sample_rate_hz)))
    hop = fft_size // 4
    n_frames = 1 + len(waveform) // hop
    per_column = -(-n_frames // most_columns)
    padded = np.pad(waveform, (fft_size // 2, fft_size // 2 + hop))
    step = max(1, FRAMES_AT_ONCE // per_column) * per_column
    columns = []
    for first in range(0, n_frames, step):
        last = min(first + step, n_frames)
        piece = padded[first * hop : (last - 1) * hop + fft_size]
        power = np.square(np.abs(librosa.stft(piece, n_fft=fft_size, hop_length=hop, center=False)))
        starts = np.arange(0, power.shape[1], per_column)
        sizes = np.diff(starts, append=power.shape[1])
        columns.append(np.add.reduceat(power, starts, axis=1) / sizes)
    full_scale = (fft_size / 4) ** 2  # of a sine's magnitude under the window, whose sum is fft_size / 2
    level_db = 10.0 * np.log10(np.maximum(np.concatenate(columns, axis=1) / full_scale, 1e-12))
    return Spectrogram(level_db.astype(np.float32), fft_size, hop * per_column)


def envelope(waveform: Floats, most_columns: int) -> tuple[Floats, Floats]:
    """Return the lowest and the highest sample of each column.

    Args:
        waveform: (T,), one sample or more.
        most_columns: of the plot.

    Returns:
        Two (columns,) arrays; columns are equally long, but for the last.
    """
    starts = np.arange(0, len(waveform), -(-len(waveform) // most_columns))
    return np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)


def sound_figure(waveform: Floats, sample_rate_hz: int, name: str) -> Figure:
    """Draw a waveform above its spectrogram.

    Args:
        waveform: (T,) in [-1, 1].
        sample_rate_hz: of the waveform.
        name: stands above.
    """
    figure = new_figure(10, 5.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    title(above, name)
    mesh = _draw_sound(above, below, waveform, sample_rate_hz)
    figure.colorbar(mesh, ax=below, label="dB of full scale", pad=0.01, aspect=30)
    return figure


def small_figure(waveform: Floats, sample_rate_hz: int) -> Figure:
    """Draw a waveform above its spectrogram, as small as a player on a page."""
    figure = new_figure(4.4, 2.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    _draw_sound(above, below, waveform, sample_rate_hz, columns=COLUMNS // 3, ticks=5)
    above.set(ylabel="", yticks=[])
    below.set_ylabel("Hz")
    return figure


def draw_beside(path: Path, clips: Sequence[Floats], recordings: Sequence[Floats], sample_rate_hz: int) -> None:
    """Draw the spectrograms of ten clips at most at the left, of as many stretches of recordings at the right.

    Args:
        path: of the PNG file; an existing one is replaced.
        clips: (T,) each, in [-1, 1]; their first ten seconds are drawn.
        recordings: (T,) each; they are joined, and cut into stretches as long as the longest clip drawn.
        sample_rate_hz: of both.

    Raises:
        WavegenError: the file cannot be written; what was there before stays.
    """
    shown = [clip[: round(PAIR_SECONDS * sample_rate_hz)] for clip in clips[:PAIR_ROWS]]
    length = max(map(len, shown))
    joined = np.concatenate(recordings)
    starts = np.linspace(0, max(0, len(joined) - length), len(shown)).astype(int)
    figure = new_figure(10, 0.5 + 0.9 * len(shown))
    rows = figure.subplots(len(shown), 2, squeeze=False, sharex=True)
    for (left, right), clip, start in zip(rows, shown, starts, strict=True):
        for axes, waveform in ((left, clip), (right, joined[start : start + length])):
            padded = np.pad(waveform, (0, length - len(waveform)))
            _draw_spectrogram(axes, spectrogram(padded, sample_rate_hz, COLUMNS // 2), padded, sample_rate_hz)
            axes.set(yticks=[], ylabel="")
    title(rows[0, 0], "generated")
    title(rows[0, 1], "recordings")
    for axes in rows[-1]:
        _label_time(axes, length / sample_rate_hz)
    write_output(path, encode(figure))


def audio_figure(source: Path) -> Figure:
    """Draw waveform and spectrogram of a file, mixed to mono, at its own rate.

    Raises:
        AudioError, UsageError: the file cannot be read.
    """
    for recording, mixer in mono_passes(source):
        rate, blocks = recording.info.rate_hz, [mixer.mix(block) for block in recording]
    waveform = np.concatenate(blocks)
    return sound_figure(waveform, rate, f"{printable(source.name)}: {rate:,} Hz, {len(waveform):,} samples, mono")


def _draw_sound(
    above: Axes, below: Axes, waveform: Floats, sample_rate_hz: int, columns: int = COLUMNS, ticks: int = 12
) -> QuadMesh:
    """Draw a waveform and its spectrogram."""
    seconds = len(waveform) / sample_rate_hz
    if len(waveform) <= 4 * columns:
        above.plot(np.arange(len(waveform)) / sample_rate_hz, waveform, linewidth=0.7, color=BLUE)
    else:
        lowest, highest = envelope(waveform, columns)
        above.fill_between(np.linspace(0.0, seconds, len(lowest)), lowest, highest, linewidth=0.5, color=BLUE)
    above.set(ylabel="amplitude", ylim=(-1.0, 1.0), xlim=(0.0, seconds))
    tidy(above, "both")
    mesh = _draw_spectrogram(below, spectrogram(waveform, sample_rate_hz, columns), waveform, sample_rate_hz)
    _label_time(below, seconds, ticks)
    return mesh


def _draw_spectrogram(axes: Axes, drawn: Spectrogram, waveform: Floats, sample_rate_hz: int) -> QuadMesh:
    specshow = load_librosa("display").display.specshow
    scales: dict[str, Any] = {"sr": sample_rate_hz, "hop_length": drawn.hop, "n_fft": drawn.fft_size}
    # rasterized in an SVG file too
    mesh: QuadMesh = specshow(drawn.level_db, ax=axes, rasterized=True, **scales, **SPECTROGRAM_LOOK)
    axes.set(xlim=(0.0, len(waveform) / sample_rate_hz), xlabel="", ylabel="frequency (Hz)")
    return mesh


def _label_time(axes: Axes, seconds: float, ticks: int = 12) -> None:
    if seconds < 60:  # librosa's own ticks suit minutes
        axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(labelbottom=True)  # above other axes too
    axes.set_xlabel("time (s)" if seconds < 60 else "time (min:s)" if seconds < 3600 else "time (h:min:s)")


def folder_figure(found: FolderFacts) -> Figure:
    """Draw lengths by the headers, and levels and silence where the files were decoded.

    Args:
        found: with one usable file or more.
    """
    files = found.files
    known = [file.seconds for file in files if file.seconds]
    drawn: list[tuple[Sequence[float], str, str]] = [(known, "length (s)", "clip lengths")]
    if levels := [file.level for file in files if file.level]:
        loud = [each for each in levels if each.peak_dbfs is not None]
        drawn += [
            ([100 * each.silent_share for each in levels], "silence in a file (%)", "silence"),
            ([each.peak_dbfs or 0.0 for each in loud], "peak (dBFS)", "peaks"),
            ([each.rms_dbfs or 0.0 for each in loud], "RMS level (dBFS)", "loudness"),
        ]
    figure = new_figure(10, 7.5 if levels else 4.2)
    name = f"{printable(found.path)}: {pluralize(len(files), 'file')}, {format_duration(sum(known))}"
    figure.suptitle(name, x=0.01, ha="left", fontsize=12, parse_math=False)
    panels = figure.subplots(2, 2) if levels else figure.subplots(1, 1, squeeze=False)
    for axes, colour, (values, label, heading) in zip(panels.flat, COLOURS, drawn, strict=False):
        axes.hist(np.round(values, 3), bins=BINS, color=colour)  # equal values may differ by rounding errors
        axes.set(xlabel=label, ylabel="files")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.yaxis.set_major_formatter(format_thousands)
        tidy(axes)
        title(axes, heading)
    return figure
