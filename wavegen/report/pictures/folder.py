"""Pictures of a folder of recordings: how its files are distributed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wavegen.report.pictures.figure import BLUE, GREEN, ORANGE, PURPLE, VERMILION, new_figure, tidy, title
from wavegen.report.tables import minutes
from wavegen.text import pluralize, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 40
MOST_BARS = 8
WIDE_RANGE = 30.0  # from the shortest to the longest: from here on the scale is logarithmic
LENGTH_TICKS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0)
LENGTH_NAMES = ("10 ms", "100 ms", "1 s", "10 s", "1 min", "10 min", "1 h", "10 h")


def folder_figure(facts: dict[str, Any]) -> Figure:
    """Lengths and rates by the headers; levels and silence too where the files were heard.

    Args:
        facts: of `inspect_folder`, with one usable file or more.
    """
    files = facts["files"]
    heard = [file for file in files if file.get("level")]
    figure = new_figure(10, 7.5 if heard else 4.2)
    axes = figure.subplots(2, 3) if heard else figure.subplots(1, 2)
    flat = list(np.ravel(axes))
    known = [file["seconds"] for file in files if file["seconds"]]
    figure.suptitle(
        f"{printable(facts['path'])}: {pluralize(len(files), 'file')}, {minutes(sum(known))}",
        x=0.01,
        ha="left",
        fontsize=12,
        parse_math=False,
    )
    _draw_lengths(flat[0], known)
    _draw_rates(flat[1], files)
    if heard:
        levels = [file["level"] for file in heard]
        loud = [level for level in levels if level["peak_dbfs"] is not None]
        _draw_histogram(
            flat[2], [100 * level["silent_share"] for level in levels], "silence in a file (%)", GREEN, (0.0, 5.0)
        )
        title(flat[2], "silence")
        _draw_histogram(flat[3], [level["peak_dbfs"] for level in loud], "peak (dBFS)", VERMILION)
        n_clipped = sum(level["clipped_samples"] > 0 for level in levels)
        title(flat[3], f"peaks; {n_clipped:,} with full-scale samples")
        _draw_histogram(flat[4], [level["rms_dbfs"] for level in loud], "RMS level (dBFS)", PURPLE)
        title(flat[4], "loudness")
        _draw_histogram(
            flat[5], [100 * level["dc_offset"] for level in loud], "DC offset (% of full scale)", BLUE, (-1.0, 1.0)
        )
        title(flat[5], "DC offset")
    return figure


def _draw_lengths(axes: Axes, seconds: Sequence[float]) -> None:
    title(axes, "clip lengths")
    axes.set(ylabel="files")
    if not seconds:
        axes.text(0.5, 0.5, "no header says", transform=axes.transAxes, ha="center")
        return
    shortest, longest = min(seconds), max(seconds)
    if longest > WIDE_RANGE * shortest:
        edges = np.geomspace(shortest, longest, BINS + 1)
        edges[-1] *= 1 + 1e-9
        axes.hist(seconds, bins=list(edges), color=BLUE)
        axes.set_xscale("log")
        axes.set_xticks(LENGTH_TICKS, LENGTH_NAMES)
        axes.minorticks_off()
        axes.set_xlim(shortest / 1.1, longest * 1.1)
        axes.set_xlabel("length (logarithmic)")
        tidy(axes)
        return
    unit, divisor = ("ms", 0.001) if longest < 1 else ("s", 1.0) if longest < 120 else ("min", 60.0)
    _draw_histogram(axes, [length / divisor for length in seconds], f"length ({unit})", BLUE)


def _draw_rates(axes: Axes, files: Sequence[dict[str, Any]]) -> None:
    """Files of each rate and number of channels."""
    counts = Counter((file["rate_hz"], file["channels"]) for file in files)
    shown = counts.most_common(MOST_BARS)
    names = [f"{rate:,} Hz, {_channels(channels)}" for (rate, channels), _ in shown]
    numbers = [count for _, count in shown]
    if left_out := len(files) - sum(numbers):
        names.append("others")
        numbers.append(left_out)
    bars = axes.barh(names, numbers, color=ORANGE, height=0.6)
    axes.bar_label(bars, [f"{number:,}" for number in numbers], padding=3)
    axes.set(xlabel="files", xlim=(0, 1.2 * max(numbers)), ylim=(max(5, len(names)) - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)
    tidy(axes, "x")
    _whole_numbers(axes.xaxis)
    title(axes, "rates and channels")


def _draw_histogram(
    axes: Axes, values: Sequence[float], label: str, colour: str, shown: tuple[float, ...] = ()
) -> None:
    """Files by a value.

    Args:
        axes: to draw into.
        values: one for each file.
        label: of the value, with its unit.
        colour: of the bars.
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
    _whole_numbers(axes.yaxis)
    tidy(axes)


def _whole_numbers(axis: object) -> None:
    from matplotlib.axis import Axis
    from matplotlib.ticker import MaxNLocator

    assert isinstance(axis, Axis)
    axis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _channels(n: int) -> str:
    return {1: "mono", 2: "stereo"}.get(n, f"{n} channels")
