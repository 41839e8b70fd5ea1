"""Pictures of sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wavegen.output_file import write_output
from wavegen.report.pictures.figure import BLUE, GREY, VERMILION, new_figure, tidy, title, to_png
from wavegen.report.pictures.spectrogram import HIGHEST_DB, LOWEST_DB, envelope, spectrogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float32]

COLUMNS = 1000  # a few more than a picture has pixels across
LEVEL_COLUMNS = 250
QUIETEST_DB = -110.0  # below a 16-bit file's own noise
CLASSES = 256
BESIDE_ROWS, BESIDE_SECONDS = 10, 10.0  # of clips that are drawn beside recordings


def draw_audio(path: Path, waveform: Floats, sample_rate_hz: int, name: str) -> None:
    """Draw a waveform above its spectrogram, into a file.

    Args:
        path: of the PNG file; an existing one is replaced.
        waveform: (T,) in [-1, 1].
        sample_rate_hz: of the waveform.
        name: stands above.

    Raises:
        WavegenError: the file cannot be written; what was there before stays.
    """
    figure = new_figure(10, 5.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    title(above, name)
    _draw_waveform(above, waveform, sample_rate_hz)
    _draw_spectrogram(figure, below, waveform, sample_rate_hz)
    _label_time(below, len(waveform) / sample_rate_hz)
    write_output(path, to_png(figure))


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
    shown = [clip[: round(BESIDE_SECONDS * sample_rate_hz)] for clip in clips[:BESIDE_ROWS]]
    length = max(map(len, shown))
    joined = np.concatenate(recordings)
    starts = np.linspace(0, max(0, len(joined) - length), len(shown)).astype(int)
    figure = new_figure(10, 0.5 + 0.9 * len(shown))
    rows = figure.subplots(len(shown), 2, squeeze=False, sharex=True)
    for (left, right), clip, start in zip(rows, shown, starts, strict=True):
        for axes, waveform in ((left, clip), (right, joined[start : start + length])):
            seen = spectrogram(np.pad(waveform, (0, length - len(waveform))), sample_rate_hz, COLUMNS // 2)
            extent = (0, length / sample_rate_hz, 0, sample_rate_hz / 2000)
            image = {"vmin": LOWEST_DB, "vmax": HIGHEST_DB, "cmap": "magma"}
            axes.imshow(seen.level_db, origin="lower", aspect="auto", extent=extent, **image)
            axes.set_yticks([])
    title(rows[0, 0], "generated")
    title(rows[0, 1], "recordings")
    for axes in rows[-1]:
        axes.set_xlabel("time (s)")
    write_output(path, to_png(figure))


def audio_figure(source: Path) -> Figure:
    """Waveform, spectrogram, and what mu-law makes of it: a file, mixed to mono, at its own rate.

    Raises:
        AudioError, UsageError: the file cannot be read.
    """
    from wavegen.audio.quantize import Quantizer
    from wavegen.audio.read import read_blocks
    from wavegen.audio.waveform import to_mono
    from wavegen.report.inspection.quantization import QuantizationMeter
    from wavegen.text import printable

    info, blocks = read_blocks(source)
    meter = QuantizationMeter(Quantizer("mu_law", CLASSES))
    heard = [(mono, meter.hear(mono)) for mono in map(to_mono, blocks)]
    waveform, error = (np.concatenate(parts) for parts in zip(*heard, strict=True))
    seconds = len(waveform) / info.rate_hz

    figure = new_figure(10, 10.5)
    (upper,), (lower,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(3.4, 1))
    wave, spectrum, level = upper.subplots(3, 1, sharex=True, height_ratios=(1, 2, 1.1))
    title(wave, f"{printable(source.name)}: {info.rate_hz:,} Hz, {len(waveform):,} samples, mono")
    _draw_waveform(wave, waveform, info.rate_hz)
    _draw_spectrogram(upper, spectrum, waveform, info.rate_hz)
    _draw_noise(level, waveform, error, info.rate_hz, meter.facts()["signal_to_noise_db"])
    _label_time(level, seconds)
    _draw_classes(lower.subplots(), meter.counts)
    return figure


def _draw_waveform(axes: Axes, waveform: Floats, sample_rate_hz: int) -> None:
    seconds = len(waveform) / sample_rate_hz
    if len(waveform) <= 4 * COLUMNS:
        axes.plot(np.arange(len(waveform)) / sample_rate_hz, waveform, linewidth=0.7, color=BLUE)
    else:
        lowest, highest = envelope(waveform, COLUMNS)
        times = np.linspace(0.0, seconds, len(lowest))
        axes.fill_between(times, lowest, highest, linewidth=0.5, color=BLUE)
    axes.set(ylabel="amplitude", ylim=(-1.0, 1.0), xlim=(0.0, seconds))
    tidy(axes, "both")


def _draw_spectrogram(figure: Figure, axes: Axes, waveform: Floats, sample_rate_hz: int) -> None:
    from librosa.display import specshow

    drawn = spectrogram(waveform, sample_rate_hz, COLUMNS)
    image = specshow(
        drawn.level_db,
        sr=sample_rate_hz,
        hop_length=drawn.hop,
        n_fft=drawn.fft_size,
        x_axis="time",
        y_axis="hz",
        ax=axes,
        cmap="magma",
        vmin=LOWEST_DB,
        vmax=HIGHEST_DB,
    )
    axes.set(xlim=(0.0, len(waveform) / sample_rate_hz), xlabel="", ylabel="frequency (Hz)")
    figure.colorbar(image, ax=axes, label="dB of full scale", pad=0.01, aspect=30)


def _draw_noise(axes: Axes, waveform: Floats, error: Floats, sample_rate_hz: int, ratio: float | None) -> None:
    """Level of the signal and of its quantization's error over time."""
    starts = np.arange(0, len(waveform), -(-len(waveform) // LEVEL_COLUMNS))
    sizes = np.diff(starts, append=len(waveform))
    times = (starts + sizes / 2) / sample_rate_hz
    for signal, name, colour, style in (
        (waveform, "signal", BLUE, "-"),
        (error, f"error of {CLASSES} mu-law classes", VERMILION, "--"),
    ):
        powers = np.add.reduceat(np.square(signal, dtype=np.float64), starts) / sizes
        level_db = 10.0 * np.log10(np.maximum(powers, 10 ** (QUIETEST_DB / 10)))
        axes.plot(times, level_db, color=colour, linestyle=style, linewidth=1.2, label=name)
    axes.set(ylabel="RMS level (dBFS)", ylim=(QUIETEST_DB, 3.0))
    tidy(axes, "both")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False, fontsize=9, borderaxespad=0.1)
    if ratio is not None:
        text = f"{ratio:.1f} dB apart over the whole file"
        axes.text(1.0, 1.03, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=9, color=GREY)


def _draw_classes(axes: Axes, counts: npt.NDArray[np.int64]) -> None:
    """How often each class occurs, on a scale of amplitude that is even in classes."""
    from wavegen.audio.quantize import Quantizer

    share = 100.0 * counts / counts.sum()
    axes.bar(np.arange(CLASSES), share, width=1.0, color=BLUE)
    axes.set_yscale("log")
    axes.set_ylim(bottom=min(0.01, max(1e-4, 50.0 / counts.sum())))  # half a bar of a single sample
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    amplitudes = [-1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0]
    middles = Quantizer("mu_law", CLASSES).decode(np.arange(CLASSES)).astype(np.float64)
    axes.set_xticks(np.interp(amplitudes, middles, np.arange(CLASSES)), [f"{a:g}" for a in amplitudes])
    axes.set(xlabel="amplitude, a bar for each class", ylabel="share of samples (%)", xlim=(-1, CLASSES))
    tidy(axes)
    n_used = int(np.count_nonzero(counts))
    title(axes, f"The {CLASSES} mu-law classes: {n_used} occur")


def _label_time(axes: Axes, seconds: float) -> None:
    from matplotlib.ticker import MaxNLocator

    if seconds < 60:  # librosa's own ticks suit minutes
        axes.xaxis.set_major_locator(MaxNLocator(nbins=12, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("time (s)" if seconds < 60 else "time (min:s)" if seconds < 3600 else "time (h:min:s)")
