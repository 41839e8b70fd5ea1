"""Plots of a folder: how its recordings are distributed, or what its series look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wavegen.audio.read import find_series
from wavegen.inspect.recordings import FileFacts, FolderFacts, SeriesFacts
from wavegen.report import plots
from wavegen.series.files import Values, try_series
from wavegen.text import format_duration, pluralize, printable

MOST_DRAWN = 6  # series
SHOWN_PAST = 8  # times the length of a forecast
BINS = 40
MOST_BARS = 8
WIDE_RANGE = 30.0  # from the shortest to the longest: from here on the scale is logarithmic
LENGTH_TICKS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0)
LENGTH_NAMES = ("10 ms", "100 ms", "1 s", "10 s", "1 min", "10 min", "1 h", "10 h")


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


def series_figure(found: SeriesFacts) -> Figure:
    """Draw the first few series, one above the other; there must be one or more."""
    path = Path(found.path)
    drawn: dict[str, Any] = {}
    for file in [path / each for each in find_series(path).names] if path.is_dir() else [path]:
        if len(drawn) >= MOST_DRAWN:
            break
        if not isinstance(whole := try_series(file, takes_forecasts=not path.is_dir()), str):
            drawn |= whole.named(file.name)
    return forecast_figure(f"{printable(found.path)}: {len(found.series):,} series", drawn, {}, 0)


def forecast_figure(heading: str, series: Mapping[str, Values], ahead: Mapping[str, Values], held_back: int) -> Figure:
    """Draw the first few series, one above the other, with their forecasts.

    Args:
        heading: stands above.
        series: (T,) each, by name.
        ahead: their forecasts, by the same names, which are drawn with the values that they can have seen; or empty.
        held_back: values at the end of each series that its forecast has not seen.
    """
    shown = list(series.items())[:MOST_DRAWN]
    figure = plots.new_figure(10, 0.8 + 1.4 * len(shown))
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for i, (axes, (label, values)) in enumerate(zip(panels, shown, strict=True)):
        axes.plot(values, color=plots.COLOURS[i % len(plots.COLOURS)], linewidth=1.2)
        axes.set_ylabel(label, fontsize=8, parse_math=False)
        if ahead:
            newest = len(values) - held_back - 1
            joined = [values[newest], *ahead[label]]
            axes.plot(range(newest, newest + len(joined)), joined, color=plots.DARK, marker=".", linewidth=1.2)
            axes.set_xlim(left=max(0, newest - SHOWN_PAST * len(joined)))
        plots.tidy(axes, "both")
    plots.title(panels[0], heading)
    panels[-1].set_xlabel("step")
    return figure
