"""Plots of audio: waveform, spectrogram, quantization error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wavegen.audio.levels import load_librosa
from wavegen.audio.mono import mono_passes
from wavegen.audio.quantize import Floats, Quantizer
from wavegen.inspect.audio import QuantizationMeter
from wavegen.output_file import write_output
from wavegen.report.plots import BLUE, GREY, VERMILION, new_figure, tidy, title, to_png
from wavegen.text import printable

COLUMNS = 1000  # a few more than a picture has pixels across
LEVEL_COLUMNS = 250
FFT_SECONDS = 0.032  # resolves the harmonics of a voice and still its syllables
SPECTROGRAM_LOOK: dict[str, Any] = {"x_axis": "time", "y_axis": "hz", "cmap": "magma", "vmin": -90.0, "vmax": -10.0}
SPECTROGRAM_LOOK["rasterized"] = True  # in an SVG file too
FRAMES_AT_ONCE = 4096  # bounds the memory of long recordings
QUIETEST_DB = -110.0  # below a 16-bit file's own noise
CLASSES = 256
COLOUR_BAR: dict[str, Any] = {"label": "dB of full scale", "pad": 0.01, "aspect": 30}
PAIR_ROWS, PAIR_SECONDS = 10, 10.0  # of clips that are drawn next to recordings


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

    def describe(self, rate_hz: int) -> str:
        """Return the spectrogram in words."""
        power = np.power(10.0, self.level_db / 10, dtype=np.float64).mean(axis=1)
        hertz = np.arange(len(power)) * rate_hz / self.fft_size
        below = np.cumsum(power) / power.sum()
        half, most = (float(hertz[np.searchsorted(below, share)]) for share in (0.5, 0.95))
        strongest = float(hertz[int(np.argmax(power))])
        return (
            f"0 to {rate_hz / 2000:g} kHz, strongest near {strongest:,.0f} Hz; "
            f"half of the power lies below {half:,.0f} Hz, 95% below {most:,.0f} Hz"
        )


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


def describe_level(waveform: Floats) -> str:
    """Return the peak and the loudness of a waveform in words."""
    peak = float(np.abs(waveform).max())
    if peak == 0:
        return "silence"
    rms = math.sqrt(float(np.mean(np.square(waveform, dtype=np.float64))))
    return f"peak {20 * math.log10(peak):.1f} dBFS, RMS {20 * math.log10(rms):.1f} dBFS"


def draw_audio(path: Path, waveform: Floats, sample_rate_hz: int, name: str) -> None:
    """Draw a waveform above its spectrogram into a PNG file; an existing one is replaced.

    Args:
        path: of the file.
        waveform: (T,) in [-1, 1].
        sample_rate_hz: of the waveform.
        name: stands above.

    Raises:
        WavegenError: the file cannot be written; what was there before stays.
    """
    figure = new_figure(10, 5.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    title(above, name)
    mesh, _ = _draw_sound(above, below, waveform, sample_rate_hz)
    figure.colorbar(mesh, ax=below, **COLOUR_BAR)
    write_output(path, to_png(figure))


def small_figure(waveform: Floats, sample_rate_hz: int) -> tuple[Figure, str]:
    """Draw a waveform above its spectrogram, as small as a player on a page.

    Returns:
        The figure, and what there is to see in words.
    """
    figure = new_figure(4.4, 2.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    _, drawn = _draw_sound(above, below, waveform, sample_rate_hz, columns=COLUMNS // 3, ticks=5)
    above.set(ylabel="", yticks=[])
    below.set_ylabel("Hz")
    return figure, f"{describe_level(waveform)}; {drawn.describe(sample_rate_hz)}"


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
    write_output(path, to_png(figure))


def audio_figure(source: Path) -> Figure:
    """Draw waveform, spectrogram, and what mu-law makes of a file, mixed to mono, at its own rate.

    Raises:
        AudioError, UsageError: the file cannot be read.
    """
    for recording, mixer in mono_passes(source):
        info, meter = recording.info, QuantizationMeter(Quantizer("mu_law", CLASSES))
        parts = [(mono, meter.update(mono)) for mono in map(mixer.mix, recording)]
    waveform, error = (np.concatenate(each) for each in zip(*parts, strict=True))

    figure = new_figure(10, 10.5)
    (upper,), (lower,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(3.4, 1))
    wave, spectrum, level = upper.subplots(3, 1, sharex=True, height_ratios=(1, 2, 1.1))
    title(wave, f"{printable(source.name)}: {info.rate_hz:,} Hz, {len(waveform):,} samples, mono")
    mesh, _ = _draw_sound(wave, spectrum, waveform, info.rate_hz)
    upper.colorbar(mesh, ax=spectrum, **COLOUR_BAR)
    _draw_noise(level, waveform, error, info.rate_hz, meter.facts().signal_to_noise_db)
    _label_time(level, len(waveform) / info.rate_hz)
    _draw_classes(lower.subplots(), meter.counts)
    return figure


def _draw_sound(
    above: Axes, below: Axes, waveform: Floats, sample_rate_hz: int, columns: int = COLUMNS, ticks: int = 12
) -> tuple[QuadMesh, Spectrogram]:
    """Draw a waveform and its spectrogram."""
    seconds = len(waveform) / sample_rate_hz
    if len(waveform) <= 4 * columns:
        above.plot(np.arange(len(waveform)) / sample_rate_hz, waveform, linewidth=0.7, color=BLUE)
    else:
        lowest, highest = envelope(waveform, columns)
        above.fill_between(np.linspace(0.0, seconds, len(lowest)), lowest, highest, linewidth=0.5, color=BLUE)
    above.set(ylabel="amplitude", ylim=(-1.0, 1.0), xlim=(0.0, seconds))
    tidy(above, "both")
    drawn = spectrogram(waveform, sample_rate_hz, columns)
    mesh = _draw_spectrogram(below, drawn, waveform, sample_rate_hz)
    _label_time(below, seconds, ticks)
    return mesh, drawn


def _draw_spectrogram(axes: Axes, drawn: Spectrogram, waveform: Floats, sample_rate_hz: int) -> QuadMesh:
    specshow = load_librosa("display").display.specshow

    scales: dict[str, Any] = {"sr": sample_rate_hz, "hop_length": drawn.hop, "n_fft": drawn.fft_size}
    mesh: QuadMesh = specshow(drawn.level_db, ax=axes, **scales, **SPECTROGRAM_LOOK)
    axes.set(xlim=(0.0, len(waveform) / sample_rate_hz), xlabel="", ylabel="frequency (Hz)")
    return mesh


def _draw_noise(axes: Axes, waveform: Floats, error: Floats, sample_rate_hz: int, ratio: float | None) -> None:
    """Draw the level of the signal and of its quantization's error over time."""
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
    """Draw how often each class occurs, on a scale of amplitude that is even in classes."""
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
    title(axes, f"The {CLASSES} mu-law classes: {int(np.count_nonzero(counts))} occur")


def _label_time(axes: Axes, seconds: float, ticks: int = 12) -> None:
    if seconds < 60:  # librosa's own ticks suit minutes
        axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(labelbottom=True)  # above other axes too
    axes.set_xlabel("time (s)" if seconds < 60 else "time (min:s)" if seconds < 3600 else "time (h:min:s)")
