"""Plots of training: loss, learning rate and speed, of one run or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wavegen.evaluation.loss_unit import LossUnit
from wavegen.report.plots.figure import (
    BLUE,
    COLOURS,
    DARK,
    GREY,
    PALE,
    VERMILION,
    format_thousands,
    new_figure,
    spread,
    tidy,
    title,
)
from wavegen.runs.history import THIS_MODEL, History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # one more than colours: the pairs repeat after 42 runs only
POINTS = 200  # of a smoothed curve
STEPS_A_POINT = 5  # at least, in a run of few steps
LABEL_GAP = 0.045  # of the picture's height
EARLY = 0.05  # the first steps fall from far above: they need not fit into the picture
LINES = ("-", "--", "-.", ":")


def smooth(places: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Reduce a curve to a few points, each the mean of a part of the steps; unknown values are left out."""
    known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
    if not known:
        return [], []
    n_points = min(POINTS, max(-(-len(known) // STEPS_A_POINT), min(len(known), 2 * STEPS_A_POINT)))
    parts = np.array_split(np.array(known), n_points)
    means = [part.mean(axis=0) for part in parts]
    return [float(mean[0]) for mean in means], [float(mean[1]) for mean in means]


def limits(histories: Sequence[History], baselines: Sequence[float]) -> tuple[float, float]:
    """Return limits that hold all held-out losses, the training's but for the first steps, and the better baselines."""
    shown = []
    for history in histories:
        early = EARLY * history.step
        shown += [loss for _, loss in history.scored]
        places, losses = smooth(history.steps, history.train)
        shown += [value for place, value in zip(places, losses, strict=True) if place > early] or losses
    shown += sorted(baselines)[:2]
    lowest, highest = min(shown), max(shown)
    least = 0.1 if all(history.loss_unit.is_bits for history in histories) else 0.1 * highest or 1.0
    margin = 0.06 * max(highest - lowest, least)
    return max(0.0, lowest - margin), highest + margin


def run_figure(name: str, history: History, unit: str) -> Figure:
    """Draw the loss, with the trivial baselines as lines, above learning rate and speed.

    Args:
        name: of the run.
        history: with one step or more.
        unit: of its losses.
    """
    figure = new_figure(10, 8)
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(4, 1, 1))
    span = limits([history], list(history.baselines.values()))
    title(above, name)
    _draw_loss(above, history)
    above.set_ylabel(unit)
    above.set_ylim(span)
    _draw_baselines(above, history.loss_unit, history.baselines, span)
    for axes, values, label in (
        (middle, history.learning_rates, "learning rate"),
        (below, history.speeds, "targets/s"),
    ):
        axes.plot(*smooth(history.steps, values), color=BLUE, linewidth=1.4)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
        tidy(axes, "both")
    middle.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    below.yaxis.set_major_formatter(format_thousands)
    below.xaxis.set_major_formatter(format_thousands)
    below.set(xlabel="step", xlim=(0, history.step))
    figure.align_ylabels()
    return figure


def comparison_figure(histories: dict[str, History], units: dict[str, str], reasons: Sequence[str] = ()) -> Figure:
    """Draw held-out losses of several runs over what they have seen, and over the time trained; a row for each unit.

    Args:
        histories: by the runs' names; each with one step or more; of one loss unit.
        units: of their losses, by the runs' names.
        reasons: why their losses do not compare, if they do not.
    """
    rows = list(dict.fromkeys(units.values()))
    figure = new_figure(10, 1.4 + 3.8 * len(rows) + 0.25 * -(-len(histories) // 2))
    grid = figure.subplots(len(rows), 2, sharex="col", sharey="row", squeeze=False)
    loss_unit = next(iter(histories.values())).loss_unit
    hour = 3600 if loss_unit.is_bits else 1
    columns = (
        (f"{loss_unit.data} seen", {name: [hour * seen for seen in each.seen] for name, each in histories.items()}),
        ("time trained", {name: each.seconds for name, each in histories.items()}),
    )
    for below, (label, places) in zip(grid.T, columns, strict=True):
        is_time = loss_unit.is_bits or label == "time trained"
        factor, unit = _time_unit(max(each[-1] for each in places.values())) if is_time else (1.0, "points")
        for i, (name, history) in enumerate(histories.items()):
            _draw_compared(below[rows.index(units[name])], [factor * place for place in places[name]], i, name, history)
        below[-1].set_xlabel(f"{label} ({unit})")
    for unit, (left, right) in zip(rows, grid, strict=True):
        group = [history for name, history in histories.items() if units[name] == unit]
        shared = _shared_baselines(group)
        span = limits(group, list(shared.values()))
        left.set(ylabel=unit, ylim=span)
        for axes in (left, right):
            axes.set_xlim(left=0)
            tidy(axes, "both")
            _draw_baselines(axes, loss_unit, shared, span, labelled=axes is right)
    title(grid[0, 0], "held-out (marks), training (pale)")
    if reasons:
        figure.suptitle(f"{loss_unit.name} do not compare: {'; '.join(reasons)}", color=VERMILION)
    handles = [line for left in grid[:, 0] for line in left.get_legend_handles_labels()[0]]
    legend = figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_compared(axes: Axes, places: Sequence[float], i: int, name: str, history: History) -> None:
    """Draw the i-th of several runs, with ``places`` for its steps."""
    colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
    axes.plot(*smooth(places, history.train), color=colour, alpha=0.35, linewidth=1)
    axes.plot(
        np.interp([each.step for each, _ in history.scored], history.steps, places),
        [loss for _, loss in history.scored],
        color=colour,
        linestyle=LINES[i // len(COLOURS) % len(LINES)],
        linewidth=1.8,
        marker=marker,
        markersize=5,
        markevery=max(1, len(history.scored) // 15),
        label=name,
    )


def ranking_figure(name: str, loss_unit: LossUnit, ranked: Sequence[tuple[str, float]]) -> Figure:
    """Draw a model among the trivial baselines, as bars.

    Args:
        name: stands above.
        loss_unit: what the losses are.
        ranked: (model, loss), as ``Validation.ranking``.
    """
    figure = new_figure(10, 1.4 + 0.5 * len(ranked))
    axes = figure.subplots()
    models, losses = zip(*ranked[::-1], strict=True)
    bars = axes.barh(models, losses, color=[VERMILION if model == THIS_MODEL else PALE for model in models], height=0.7)
    axes.bar_label(bars, [loss_unit.format(value) for value in losses], padding=4)
    axes.set_xlabel(f"{loss_unit.full_name} of held-out {loss_unit.data} (lower is better)")
    axes.set_xlim(0, 1.08 * max(losses) or 1.0)
    axes.tick_params(axis="y", length=0)
    tidy(axes, "x")
    title(axes, name)
    return figure


def _draw_loss(axes: Axes, history: History) -> None:
    axes.plot(*smooth(history.steps, history.train), color=BLUE, linewidth=1.2, alpha=0.8, label="training")
    steps, losses = [each.step for each, _ in history.scored], [loss for _, loss in history.scored]
    axes.plot(steps, losses, color=VERMILION, linewidth=1.8, marker="o", markersize=4, label="held-out")
    if losses:
        best = int(np.argmin(losses))
        label = f"best: {history.loss_unit.format(losses[best])} at step {steps[best]:,}"
        ring: dict[str, Any] = {
            "marker": "o",
            "s": 120,
            "facecolors": "none",
            "edgecolors": VERMILION,
            "linewidths": 1.6,
        }
        axes.scatter([steps[best]], [losses[best]], clip_on=False, zorder=3, label=label, **ring)
    axes.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none")
    tidy(axes, "both")


def _shared_baselines(histories: Sequence[History]) -> dict[str, float]:
    """Return the trivial baselines of all runs, where they are the same: the same audio, rate and classes."""
    first = histories[0].baselines
    return first if all(history.baselines == first for history in histories) else {}


def _draw_baselines(
    axes: Axes, loss_unit: LossUnit, baselines: dict[str, float], span: tuple[float, float], labelled: bool = True
) -> None:
    """Draw a line for each that fits in, labelled at the right of the plot; note those that do not."""
    within = {name: figure for name, figure in baselines.items() if span[0] <= figure <= span[1]}
    gap = LABEL_GAP * (span[1] - span[0])
    for (name, figure), place in zip(within.items(), spread(list(within.values()), gap), strict=True):
        axes.axhline(figure, color=GREY, linestyle=(0, (5, 3)), linewidth=1)
        if not labelled:
            continue
        axes.annotate(
            f"{name} {loss_unit.format(figure)}",
            (1.0, figure),
            (1.02, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color=DARK,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
        )
    above = [f"{name} {figure:.3g}" for name, figure in baselines.items() if figure > span[1]]
    if above and labelled:
        text = "above the plot: " + ", ".join(above)
        axes.text(1.0, 1.02, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=9, color=DARK)


def _time_unit(longest_seconds: float) -> tuple[float, str]:
    """Return a unit of time that suits a duration, as a factor and a name."""
    if longest_seconds < 120:
        return 1.0, "seconds"
    return (1 / 60, "minutes") if longest_seconds < 7200 else (1 / 3600, "hours")
