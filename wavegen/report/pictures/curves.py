"""Pictures of training: its figure, learning rate and speed, of one run or of several side by side.

The figure is bits/sample, or of series an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wavegen.evaluation.measure import Measure
from wavegen.report.inspection.checkpoint import THIS_MODEL
from wavegen.report.pictures.figure import BLUE, GREY, MARKERS, SERIES, VERMILION, new_figure, spread, tidy, title
from wavegen.runs.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 200  # of a smoothed curve
STEPS_A_POINT = 5  # at least, in a run of few steps
LABEL_GAP = 0.045  # of the picture's height
EARLY = 0.05  # the first steps fall from far above: they need not fit into the picture
LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Limits:
    """What a picture of figures spans.

    Attributes:
        lowest, highest: of them.
    """

    lowest: float
    highest: float

    def holds(self, figure: float) -> bool:
        """Whether a figure lies within."""
        return self.lowest <= figure <= self.highest


def smooth(places: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """A curve as a few points, each the mean of a part of the steps; those without a figure are left out."""
    known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
    if not known:
        return [], []
    n_points = min(POINTS, max(-(-len(known) // STEPS_A_POINT), min(len(known), 2 * STEPS_A_POINT)))
    parts = np.array_split(np.array(known), n_points)
    means = [part.mean(axis=0) for part in parts]
    return [float(mean[0]) for mean in means], [float(mean[1]) for mean in means]


def limits(histories: Sequence[History], baselines: Sequence[float]) -> Limits:
    """Limits in which all held-out figures fit, the training's but for the first steps, and the better baselines."""
    shown = []
    for history in histories:
        early = EARLY * history.step
        shown += [each[history.measure.fact] for each in history.scored]
        places, figures = smooth(history.steps, history.train)
        shown += [value for place, value in zip(places, figures, strict=True) if place > early] or figures
    shown += sorted(baselines)[:2]
    lowest, highest = min(shown), max(shown)
    least = 0.1 if all(history.measure.is_bits for history in histories) else 0.1 * highest or 1.0
    margin = 0.06 * max(highest - lowest, least)
    return Limits(max(0.0, lowest - margin), highest + margin)


def run_figure(name: str, history: History, unit: str) -> Figure:
    """The figure with the trivial baselines as lines; learning rate and speed below.

    Args:
        name: of the run.
        history: with one step or more.
        unit: of its figures.
    """
    figure = new_figure(10, 8)
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(4, 1, 1))
    span = limits([history], list(history.baselines.values()))
    title(above, name)
    _draw_figure(above, history)
    above.set_ylabel(unit)
    above.set_ylim(span.lowest, span.highest)
    _draw_baselines(above, history.measure, history.baselines, span)
    for axes, values, label in (
        (middle, history.learning_rates, "learning rate"),
        (below, history.speeds, "targets/s"),
    ):
        axes.plot(*smooth(history.steps, values), color=BLUE, linewidth=1.4)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
        tidy(axes, "both")
    middle.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    below.yaxis.set_major_formatter(_thousands)
    below.xaxis.set_major_formatter(_thousands)
    below.set(xlabel="step", xlim=(0, history.step))
    figure.align_ylabels()
    return figure


def comparison_figure(histories: dict[str, History], units: dict[str, str], obstacles: Sequence[str] = ()) -> Figure:
    """Held-out figures of several runs over what they heard, and over the time trained; a row for each unit.

    Args:
        histories: by the runs' names; each with one step or more; of one kind of measure.
        units: of their figures, by the runs' names.
        obstacles: why their figures do not compare, if they do not.
    """
    rows = list(dict.fromkeys(units.values()))
    figure = new_figure(10, 1.4 + 3.8 * len(rows) + 0.25 * -(-len(histories) // 2))
    grid = figure.subplots(len(rows), 2, sharex="col", sharey="row", squeeze=False)
    measure = next(iter(histories.values())).measure
    heard_factor, heard_unit = 1.0, "points"
    if measure.is_bits:
        heard_factor, heard_unit = _time_unit(max(3600 * history.heard[-1] for history in histories.values()))
        heard_factor *= 3600
    trained_factor, trained_unit = _time_unit(max(history.seconds[-1] for history in histories.values()))
    scales = {measure.heard: heard_factor, "minutes_trained": 60 * trained_factor}
    for i, (name, history) in enumerate(histories.items()):
        axes_of = dict(zip(scales, grid[rows.index(units[name])], strict=True))
        _draw_compared(axes_of, scales, i, name, history)
    for unit, (left, right) in zip(rows, grid, strict=True):
        group = [history for name, history in histories.items() if units[name] == unit]
        shared = _shared_baselines(group)
        span = limits(group, list(shared.values()))
        left.set(ylabel=unit, ylim=(span.lowest, span.highest))
        for axes in (left, right):
            axes.set_xlim(left=0)
            tidy(axes, "both")
            _draw_baselines(axes, measure, shared, span, labelled=axes is right)
    heard = f"{measure.material} heard ({heard_unit})"
    for axes, label in zip(grid[-1], (heard, f"time trained ({trained_unit})"), strict=True):
        axes.set_xlabel(label)
    title(grid[0, 0], "held-out (marks), training (pale)")
    if obstacles:
        figure.suptitle(f"{measure.unit} do not compare: {'; '.join(obstacles)}", color=VERMILION)
    handles = [line for left in grid[:, 0] for line in left.get_legend_handles_labels()[0]]
    legend = figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_compared(axes_of: dict[str, Axes], scales: dict[str, float], i: int, name: str, history: History) -> None:
    """One of several runs, the i-th, over what it heard and over the minutes trained."""
    colour, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
    line = LINES[i // len(SERIES) % len(LINES)]
    scored, measure = history.scored, history.measure
    steps = {measure.heard: history.heard, "minutes_trained": [s / 60 for s in history.seconds]}
    for key, axes in axes_of.items():
        factor = scales[key]
        places, figures = smooth(steps[key], history.train)
        axes.plot([factor * place for place in places], figures, color=colour, alpha=0.35, linewidth=1)
        axes.plot(
            [factor * each[key] for each in scored],
            [each[measure.fact] for each in scored],
            color=colour,
            linestyle=line,
            linewidth=1.8,
            marker=marker,
            markersize=5,
            markevery=max(1, len(scored) // 15),
            label=name,
        )


def ranking_figure(name: str, measure: Measure, ranked: Sequence[tuple[str, float]]) -> Figure:
    """A model among the trivial baselines, as bars.

    Args:
        name: stands above.
        measure: what the figures are.
        ranked: (model, figure), as `ranked_models`.
    """
    figure = new_figure(10, 1.4 + 0.5 * len(ranked))
    axes = figure.subplots()
    models, figures = zip(*ranked[::-1], strict=True)
    bars = axes.barh(
        models, figures, color=[VERMILION if model == THIS_MODEL else "#c3c9d2" for model in models], height=0.7
    )
    axes.bar_label(bars, [measure.text(value) for value in figures], padding=4)
    axes.set_xlabel(f"{measure.unit} of held-out {measure.material} (lower is better)")
    axes.set_xlim(0, 1.08 * max(figures) or 1.0)
    axes.tick_params(axis="y", length=0)
    tidy(axes, "x")
    title(axes, name)
    return figure


def _draw_figure(axes: Axes, history: History) -> None:
    fact = history.measure.fact
    axes.plot(*smooth(history.steps, history.train), color=BLUE, linewidth=1.2, alpha=0.8, label="training")
    axes.plot(
        [each["step"] for each in history.scored],
        [each[fact] for each in history.scored],
        color=VERMILION,
        linewidth=1.8,
        marker="o",
        markersize=4,
        label="held-out",
    )
    best = history.best
    if best is not None:
        axes.plot(
            best["step"],
            best[fact],
            marker="o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor=VERMILION,
            markeredgewidth=1.6,
            linestyle="",
            clip_on=False,
            label=f"best: {history.measure.text(best[fact])} at step {best['step']:,}",
        )
    axes.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none")
    tidy(axes, "both")


def _shared_baselines(histories: Sequence[History]) -> dict[str, float]:
    """The trivial baselines of all runs, where they are the same: the same audio, rate and classes."""
    first = histories[0].baselines
    return first if all(history.baselines == first for history in histories) else {}


def _draw_baselines(
    axes: Axes, measure: Measure, baselines: dict[str, float], span: Limits, labelled: bool = True
) -> None:
    """A line and, beside the picture, a label for each that fits in; a note on those that don't."""
    within = {name: figure for name, figure in baselines.items() if span.holds(figure)}
    gap = LABEL_GAP * (span.highest - span.lowest)
    for (name, figure), place in zip(within.items(), spread(list(within.values()), gap), strict=True):
        axes.axhline(figure, color=GREY, linestyle=(0, (5, 3)), linewidth=1)
        if not labelled:
            continue
        axes.annotate(
            f"{name} {measure.text(figure)}",
            (1.0, figure),
            (1.02, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color="#374151",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
        )
    above = [f"{name} {figure:.3g}" for name, figure in baselines.items() if figure > span.highest]
    if above and labelled:
        text = "above the picture: " + ", ".join(above)
        axes.text(1.0, 1.02, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=9, color="#374151")


def _time_unit(longest_seconds: float) -> tuple[float, str]:
    """A unit for so many seconds, as a factor and a name."""
    if longest_seconds < 120:
        return 1.0, "seconds"
    return (1 / 60, "minutes") if longest_seconds < 7200 else (1 / 3600, "hours")


def _thousands(value: float, _: object) -> str:
    return f"{value:,.0f}" if value == int(value) else ""
