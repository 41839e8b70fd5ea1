"""Plots of audio: waveform and spectrogram of a clip, quantization error of a file, levels of a folder."""

from __future__ import annotations

import math
from collections import Counter
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

from wavegen.audio.librosa_loading import load_librosa
from wavegen.audio.mono import mono_passes
from wavegen.audio.quantize import Floats, Quantizer
from wavegen.inspect.audio import QuantizationMeter
from wavegen.inspect.recordings import FileFacts, FolderFacts
from wavegen.output_file import write_output
from wavegen.report import plots
from wavegen.text import format_duration, pluralize, printable

COLUMNS = 1000  # a few more than a picture has pixels across
LEVEL_COLUMNS = 250
FFT_SECONDS = 0.032  # resolves the harmonics of a voice and still its syllables
SPECTROGRAM_LOOK: dict[str, Any] = {"x_axis": "time", "y_axis": "hz", "cmap": "magma", "vmin": -90.0, "vmax": -10.0}
FRAMES_AT_ONCE = 4096  # bounds the memory of long recordings
QUIETEST_DB = -110.0  # below a 16-bit file's own noise
CLASSES = 256
COLOUR_BAR: dict[str, Any] = {"label": "dB of full scale", "pad": 0.01, "aspect": 30}
PAIR_ROWS, PAIR_SECONDS = 10, 10.0  # of clips that are drawn next to recordings
BINS = 40
MOST_BARS = 8
WIDE_RANGE = 30.0  # from the shortest to the longest: from here on the scale is logarithmic
LENGTH_TICKS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0)
LENGTH_NAMES = ("10 ms", "100 ms", "1 s", "10 s", "1 min", "10 min", "1 h", "10 h")


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
    figure = plots.new_figure(10, 5.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    plots.title(above, name)
    mesh, _ = _draw_sound(above, below, waveform, sample_rate_hz)
    figure.colorbar(mesh, ax=below, **COLOUR_BAR)
    write_output(path, plots.encode(figure))


def small_figure(waveform: Floats, sample_rate_hz: int) -> tuple[Figure, str]:
    """Draw a waveform above its spectrogram, as small as a player on a page.

    Returns:
        The figure, and what there is to see in words.
    """
    figure = plots.new_figure(4.4, 2.8)
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
    figure = plots.new_figure(10, 0.5 + 0.9 * len(shown))
    rows = figure.subplots(len(shown), 2, squeeze=False, sharex=True)
    for (left, right), clip, start in zip(rows, shown, starts, strict=True):
        for axes, waveform in ((left, clip), (right, joined[start : start + length])):
            padded = np.pad(waveform, (0, length - len(waveform)))
            _draw_spectrogram(axes, spectrogram(padded, sample_rate_hz, COLUMNS // 2), padded, sample_rate_hz)
            axes.set(yticks=[], ylabel="")
    plots.title(rows[0, 0], "generated")
    plots.title(rows[0, 1], "recordings")
    for axes in rows[-1]:
        _label_time(axes, length / sample_rate_hz)
    write_output(path, plots.encode(figure))


def audio_figure(source: Path) -> Figure:
    """Draw waveform, spectrogram, and what mu-law makes of a file, mixed to mono, at its own rate.

    Raises:
        AudioError, UsageError: the file cannot be read.
    """
    for recording, mixer in mono_passes(source):
        info, meter = recording.info, QuantizationMeter(Quantizer("mu_law", CLASSES))
        parts = [(mono, meter.update(mono)) for mono in map(mixer.mix, recording)]
    waveform, error = (np.concatenate(each) for each in zip(*parts, strict=True))

    figure = plots.new_figure(10, 10.5)
    (upper,), (lower,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(3.4, 1))
    wave, spectrum, level = upper.subplots(3, 1, sharex=True, height_ratios=(1, 2, 1.1))
    plots.title(wave, f"{printable(source.name)}: {info.rate_hz:,} Hz, {len(waveform):,} samples, mono")
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
        above.plot(np.arange(len(waveform)) / sample_rate_hz, waveform, linewidth=0.7, color=plots.BLUE)
    else:
        lowest, highest = envelope(waveform, columns)
        above.fill_between(np.linspace(0.0, seconds, len(lowest)), lowest, highest, linewidth=0.5, color=plots.BLUE)
    above.set(ylabel="amplitude", ylim=(-1.0, 1.0), xlim=(0.0, seconds))
    plots.tidy(above, "both")
    drawn = spectrogram(waveform, sample_rate_hz, columns)
    mesh = _draw_spectrogram(below, drawn, waveform, sample_rate_hz)
    _label_time(below, seconds, ticks)
    return mesh, drawn


def _draw_spectrogram(axes: Axes, drawn: Spectrogram, waveform: Floats, sample_rate_hz: int) -> QuadMesh:
    specshow = load_librosa("display").display.specshow
    scales: dict[str, Any] = {"sr": sample_rate_hz, "hop_length": drawn.hop, "n_fft": drawn.fft_size}
    # rasterized in an SVG file too
    mesh: QuadMesh = specshow(drawn.level_db, ax=axes, rasterized=True, **scales, **SPECTROGRAM_LOOK)
    axes.set(xlim=(0.0, len(waveform) / sample_rate_hz), xlabel="", ylabel="frequency (Hz)")
    return mesh


def _draw_noise(axes: Axes, waveform: Floats, error: Floats, sample_rate_hz: int, ratio: float | None) -> None:
    """Draw the level of the signal and of its quantization's error over time."""
    starts = np.arange(0, len(waveform), -(-len(waveform) // LEVEL_COLUMNS))
    sizes = np.diff(starts, append=len(waveform))
    times = (starts + sizes / 2) / sample_rate_hz
    for signal, name, colour, style in (
        (waveform, "signal", plots.BLUE, "-"),
        (error, f"error of {CLASSES} mu-law classes", plots.VERMILION, "--"),
    ):
        powers = np.add.reduceat(np.square(signal, dtype=np.float64), starts) / sizes
        level_db = 10.0 * np.log10(np.maximum(powers, 10 ** (QUIETEST_DB / 10)))
        axes.plot(times, level_db, color=colour, linestyle=style, linewidth=1.2, label=name)
    axes.set(ylabel="RMS level (dBFS)", ylim=(QUIETEST_DB, 3.0))
    plots.tidy(axes, "both")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False, fontsize=9, borderaxespad=0.1)
    if ratio is not None:
        text = f"{ratio:.1f} dB apart over the whole file"
        axes.text(1.0, 1.03, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=9, color=plots.GREY)


def _draw_classes(axes: Axes, counts: npt.NDArray[np.int64]) -> None:
    """Draw how often each class occurs, on a scale of amplitude that is even in classes."""
    share = 100.0 * counts / counts.sum()
    axes.bar(np.arange(CLASSES), share, width=1.0, color=plots.BLUE)
    axes.set_yscale("log")
    axes.set_ylim(bottom=min(0.01, max(1e-4, 50.0 / counts.sum())))  # half a bar of a single sample
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    amplitudes = [-1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0]
    middles = Quantizer("mu_law", CLASSES).decode(np.arange(CLASSES)).astype(np.float64)
    axes.set_xticks(np.interp(amplitudes, middles, np.arange(CLASSES)), [f"{a:g}" for a in amplitudes])
    axes.set(xlabel="amplitude, a bar for each class", ylabel="share of samples (%)", xlim=(-1, CLASSES))
    plots.tidy(axes)
    plots.title(axes, f"The {CLASSES} mu-law classes: {int(np.count_nonzero(counts))} occur")


def _label_time(axes: Axes, seconds: float, ticks: int = 12) -> None:
    if seconds < 60:  # librosa's own ticks suit minutes
        axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(labelbottom=True)  # above other axes too
    axes.set_xlabel("time (s)" if seconds < 60 else "time (min:s)" if seconds < 3600 else "time (h:min:s)")


def folder_figure(found: FolderFacts) -> Figure:
    """Draw lengths and rates by the headers, and levels and silence where the files were decoded.

    Args:
        found: with one usable file or more.
    """
    files = found.files
    levels = [file.level for file in files if file.level]
    figure = plots.new_figure(10, 7.5 if levels else 4.2)
    axes = list(np.ravel(figure.subplots(2, 3) if levels else figure.subplots(1, 2)))
    known = [file.seconds for file in files if file.seconds]
    name = f"{printable(found.path)}: {pluralize(len(files), 'file')}, {format_duration(sum(known))}"
    figure.suptitle(name, x=0.01, ha="left", fontsize=12, parse_math=False)
    _draw_lengths(axes[0], known)
    _draw_rates(axes[1], files)
    if levels:
        loud = [each for each in levels if each.peak_dbfs is not None]
        clipped = f"peaks; {sum(each.clipped_samples > 0 for each in levels):,} with full-scale samples"
        silence, offsets = [100 * each.silent_share for each in levels], [100 * each.dc_offset for each in loud]
        peaks, loudness = [each.peak_dbfs or 0.0 for each in loud], [each.rms_dbfs or 0.0 for each in loud]
        _draw_histogram(axes[2], silence, "silence in a file (%)", plots.GREEN, "silence", (0.0, 5.0))
        _draw_histogram(axes[3], peaks, "peak (dBFS)", plots.VERMILION, clipped)
        _draw_histogram(axes[4], loudness, "RMS level (dBFS)", plots.PURPLE, "loudness")
        _draw_histogram(axes[5], offsets, "DC offset (% of full scale)", plots.BLUE, "DC offset", (-1.0, 1.0))
    return figure


def _draw_lengths(axes: Axes, seconds: Sequence[float]) -> None:
    if not seconds:
        plots.title(axes, "clip lengths: unknown")
        return
    shortest, longest = min(seconds), max(seconds)
    if longest > WIDE_RANGE * shortest:
        plots.title(axes, "clip lengths")
        edges = np.geomspace(shortest, longest, BINS + 1)
        edges[-1] *= 1 + 1e-9
        axes.hist(seconds, bins=list(edges), color=plots.BLUE)
        axes.set_xscale("log")
        axes.set_xticks(LENGTH_TICKS, LENGTH_NAMES)
        axes.minorticks_off()
        axes.set(xlim=(shortest / 1.1, longest * 1.1), xlabel="length (logarithmic)", ylabel="files")
        plots.tidy(axes)
        return
    unit, divisor = ("ms", 0.001) if longest < 1 else ("s", 1.0) if longest < 120 else ("min", 60.0)
    _draw_histogram(axes, [length / divisor for length in seconds], f"length ({unit})", plots.BLUE, "clip lengths")


def _draw_rates(axes: Axes, files: Sequence[FileFacts]) -> None:
    """Draw how many files have each rate and number of channels."""
    counts = Counter((file.rate_hz, file.channels) for file in files)
    shown = counts.most_common(MOST_BARS)
    known = {1: "mono", 2: "stereo"}
    names = [f"{rate:,} Hz, {known.get(channels, f'{channels} channels')}" for (rate, channels), _ in shown]
    numbers = [count for _, count in shown]
    if left_out := len(files) - sum(numbers):
        names.append("others")
        numbers.append(left_out)
    bars = axes.barh(names, numbers, color=plots.ORANGE, height=0.6)
    axes.bar_label(bars, [f"{number:,}" for number in numbers], padding=3)
    axes.set(xlabel="files", xlim=(0, 1.2 * max(numbers)), ylim=(max(5, len(names)) - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)
    plots.tidy(axes, "x")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.xaxis.set_major_formatter(plots.format_thousands)
    plots.title(axes, "rates and channels")


def _draw_histogram(
    axes: Axes, values: Sequence[float], label: str, colour: str, name: str, shown: tuple[float, ...] = ()
) -> None:
    """Draw how many files have which value.

    Args:
        axes: to draw into.
        values: one for each file.
        label: of the value, with its unit.
        colour: of the bars.
        name: stands above.
        shown: values that the scale holds in any case, so that tiny differences look tiny.
    """
    if values:
        lowest, highest = min(*values, *shown, values[0]), max(*values, *shown, values[0])
        if highest - lowest < 0.01 * max(abs(highest), 0.1):
            margin = max(0.5, 0.05 * abs(highest))
            lowest, highest = lowest - margin, highest + margin
        axes.hist(values, bins=min(BINS, 8 + len(values) // 4), range=(lowest, highest), color=colour)
        axes.set_xlim(lowest, highest)
    axes.set(xlabel=label, ylabel="files")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.yaxis.set_major_formatter(plots.format_thousands)
    plots.tidy(axes)
    plots.title(axes, name)
