"""Plots of models: curves of runs, a model among the baselines, the shape of a network, and series with forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from wavegen.evaluation.scores import LossUnit
from wavegen.inspect.models import NetworkFacts
from wavegen.inspect.recordings import SeriesFacts
from wavegen.output_file import write_output
from wavegen.report import plots
from wavegen.runs.run_folder import THIS_MODEL, History
from wavegen.series.corpus import series_in
from wavegen.series.files import Values
from wavegen.text import printable

MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # one more than colours: the pairs repeat after 42 runs only
POINTS = 200  # of a smoothed curve
STEPS_A_POINT = 5  # at least, in a run of few steps
EARLY = 0.05  # the first steps fall from far above: they need not fit into the picture
MOST_LINES = 150_000  # a second of drawing; of larger networks the lowest layers are drawn by their outline only
MOST_LABELS = 40
MOST_SERIES = 6
SHOWN_PAST = 8  # times the length of a forecast

Layer = tuple[str, int, int]  # name, kernel size, dilation


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
    figure = plots.new_figure(10, 8)
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(4, 1, 1))
    plots.title(above, name)
    _draw_loss(above, history)
    _draw_baselines(above, history.loss_unit, history.baselines)
    above.set_ylabel(unit)
    above.set_ylim(limits([history], list(history.baselines.values())))
    for axes, values, label in (
        (middle, history.learning_rates, "learning rate"),
        (below, history.speeds, "targets/s"),
    ):
        axes.plot(*smooth(history.steps, values), color=plots.BLUE, linewidth=1.4)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
        plots.tidy(axes, "both")
    if history.epochs:
        each = history.epochs / history.step
        epochs = above.secondary_xaxis("top", functions=(lambda step: step * each, lambda epoch: epoch / each))
        epochs.set_xlabel("epoch")
    middle.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    below.yaxis.set_major_formatter(plots.format_thousands)
    below.xaxis.set_major_formatter(plots.format_thousands)
    below.set(xlabel="step", xlim=(0, history.step))
    figure.align_ylabels()
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False)
    return figure


def comparison_figure(
    names: Sequence[str], histories: Sequence[History], unit: str, reasons: Sequence[str] = ()
) -> Figure:
    """Draw held-out losses of several runs over what they have seen, and over the time trained.

    Args:
        names: of the runs.
        histories: of each, with one step or more.
        unit: of all their losses.
        reasons: why their losses do not compare, if they do not.
    """
    loss_unit = histories[0].loss_unit
    figure = plots.new_figure(10, 5.2 + 0.25 * -(-len(histories) // 2))
    panels = figure.subplots(1, 2, sharey=True)
    if loss_unit.is_bits:
        seen, seen_unit = _in_time_units([[3600 * hours for hours in each.seen] for each in histories])
    else:
        seen, seen_unit = [each.seen for each in histories], "points"
    times, time_unit = _in_time_units([each.seconds for each in histories])
    labels = (f"{loss_unit.data} seen ({seen_unit})", f"time trained ({time_unit})")
    # the same audio, rate and classes have the same baselines
    shared = histories[0].baselines if all(each.baselines == histories[0].baselines for each in histories) else {}
    for axes, label, places in zip(panels, labels, (seen, times), strict=True):
        for i, (name, history) in enumerate(zip(names, histories, strict=True)):
            colour, marker = plots.COLOURS[i % len(plots.COLOURS)], MARKERS[i % len(MARKERS)]
            axes.plot(*smooth(places[i], history.train), color=colour, alpha=0.35, linewidth=1)
            at = np.interp([each.step for each, _ in history.scored], history.steps, places[i])
            marks: dict[str, Any] = {"marker": marker, "markersize": 5, "markevery": max(1, len(at) // 15)}
            axes.plot(at, [loss for _, loss in history.scored], color=colour, linewidth=1.8, label=name, **marks)
        _draw_baselines(axes, loss_unit, shared)
        axes.set(xlabel=label, xlim=(0, None))
        plots.tidy(axes, "both")
    panels[0].set(ylabel=unit, ylim=limits(histories, list(shared.values())))
    plots.title(panels[0], "held-out (marks), training (pale)")
    if reasons:
        figure.suptitle(f"{loss_unit.name} do not compare: {'; '.join(reasons)}", color=plots.VERMILION)
    handles = panels[0].get_legend_handles_labels()[0]
    for text in figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False).get_texts():
        text.set_parse_math(False)
    return figure


def draw_horizons(path: Path, name: str, scores: Mapping[str, Any]) -> None:
    """Draw the errors of forecasts by how far ahead they are.

    Args:
        path: of the PNG file; an existing one is replaced.
        name: of the model.
        scores: as ``wavegen.report.scores.series_document``.

    Raises:
        WavegenError: the file cannot be written; what was there before stays.
    """
    figure = plots.new_figure(10, 4)
    axes = figure.subplots()
    for i, (label, errors) in enumerate({THIS_MODEL: scores, **scores["baselines"]}.items()):
        values = errors["by_horizon"]
        axes.plot(range(1, len(values) + 1), values, color=plots.COLOURS[i], marker=MARKERS[i], label=label)
    axes.set(xlabel="steps ahead", ylabel=scores["loss_unit"], ylim=(0, None))
    axes.xaxis.set_major_formatter(plots.format_thousands)
    axes.legend(frameon=False)
    plots.tidy(axes, "both")
    plots.title(axes, printable(name))
    write_output(path, plots.encode(figure))


def _draw_loss(axes: Axes, history: History) -> None:
    axes.plot(*smooth(history.steps, history.train), color=plots.BLUE, linewidth=1.2, alpha=0.8, label="training")
    steps, losses = [each.step for each, _ in history.scored], [loss for _, loss in history.scored]
    axes.plot(steps, losses, color=plots.VERMILION, linewidth=1.8, marker="o", markersize=4, label="held-out")
    if losses:
        best = int(np.argmin(losses))
        label = f"best: {history.loss_unit.format(losses[best])} at step {steps[best]:,}"
        ring: dict[str, Any] = {"marker": "o", "markersize": 11, "fillstyle": "none", "markeredgewidth": 1.6}
        axes.plot(steps[best], losses[best], color=plots.VERMILION, linestyle="", clip_on=False, label=label, **ring)
    plots.tidy(axes, "both")


def _draw_baselines(axes: Axes, loss_unit: LossUnit, baselines: dict[str, float]) -> None:
    """Draw a line for each; the legend has their figures, of those above the plot too."""
    colours = (*plots.COLOURS[2:], plots.DARK)  # the first two are those of the losses
    for i, (name, figure) in enumerate(baselines.items()):
        label = f"{name}: {loss_unit.format(figure)}"
        axes.axhline(figure, color=colours[i % len(colours)], linestyle="--", linewidth=1, label=label)


def _in_time_units(seconds: Sequence[Sequence[float]]) -> tuple[list[list[float]], str]:
    """Return times in seconds, minutes or hours, and which of them."""
    longest = max(each[-1] for each in seconds)
    divisor, unit = (1, "seconds") if longest < 120 else (60, "minutes") if longest < 7200 else (3600, "hours")
    return [[second / divisor for second in each] for each in seconds], unit


def network_figure(name: str, network: NetworkFacts) -> Figure:
    """Draw every path from one prediction back to its inputs, the dilations, and the parameters of each part.

    Args:
        name: of the configuration.
        network: that it describes.
    """
    layers = [
        (layer.name, layer.kernel_size, layer.dilation)
        for layer in network.layers
        if layer.kernel_size is not None and layer.dilation is not None
    ]
    height = min(9.0, 4.0 + 0.16 * len(layers)) if layers else 0.0  # a recurrent layer sees all of the past by one path
    figure = plots.new_figure(10, height + (1.3 if layers else 2.0))
    *above, below = figure.subplots(2, 1, height_ratios=(height, 0.5)) if layers else [figure.subplots()]
    for axes in above:
        _draw_paths(axes, layers, network.receptive_field_samples, network.receptive_field_ms)
    _draw_parts(below, network.parameters_by_part)
    figure.legend(loc="outside lower center", ncols=5, handlelength=1, frameon=False, fontsize=9)
    plots.title(above[0] if above else below, f"{name}: {network.parameters:,} parameters")
    return figure


def _draw_paths(axes: Axes, layers: Sequence[Layer], field: int, field_ms: float | None) -> None:
    """Draw the paths; a stack's joins are drawn as if the longest way were the only one."""
    n_layers, n_lines = len(layers), 0
    reach = np.cumsum([0, *[(kernel_size - 1) * dilation for _, kernel_size, dilation in reversed(layers)]])
    heights = np.arange(n_layers, -1, -1)
    axes.fill_betweenx(heights, -reach, 0, color=plots.BLUE, alpha=0.12, linewidth=0)
    needed = np.array([0])  # places in the past at which a layer's output is needed, from the last layer down
    for height, (_, kernel_size, dilation) in zip(heights, reversed(layers), strict=False):
        inputs = needed[:, None] + np.arange(kernel_size) * dilation  # (places, taps)
        n_lines += inputs.size
        if n_lines > MOST_LINES:
            break
        ends = np.stack(np.broadcast_arrays(-needed[:, None], height, -inputs, height - 1), axis=-1)
        # (places, taps, 4) -> (lines, both ends, time and height)
        axes.add_collection(LineCollection(list(ends.reshape(-1, 2, 2)), colors=plots.BLUE, linewidths=0.5, alpha=0.5))
        needed = np.unique(inputs)
    axes.plot(-reach, heights, color=plots.VERMILION, linewidth=1.5, marker="o", markersize=3)
    axes.plot([0], [n_layers], marker="o", color=plots.VERMILION, markersize=7, clip_on=False)
    axes.set(xlim=(-1.02 * max(1, reach[-1]), 0.02 * max(1, reach[-1])), ylim=(-0.4, n_layers + 0.4))
    shown = range(-(-n_layers // MOST_LABELS), n_layers + 1, -(-n_layers // MOST_LABELS))
    axes.set_yticks([0, *shown], ["input", *(_label(i, layers[i - 1]) for i in shown)], fontsize=8)
    axes.xaxis.set_major_formatter(plots.format_thousands)
    unit = "points" if field_ms is None else "samples"
    in_time = "" if field_ms is None else f", {field_ms:,.1f} ms"
    axes.set_xlabel(f"{unit} before the prediction; receptive field {field:,} {unit}{in_time}", parse_math=False)
    plots.tidy(axes, "x")


def _label(i: int, layer: Layer) -> str:
    name, kernel_size, dilation = layer
    return f"{name} {i}" + (f", dilation {dilation:,}" if kernel_size > 1 else "")


def _draw_parts(axes: Axes, parts: dict[str, int]) -> None:
    """Draw one bar, divided by parts."""
    whole, left = sum(parts.values()), 0
    for i, (name, count) in enumerate(parts.items()):
        label, colour = f"{name}: {count:,} ({count / whole:.0%})", plots.COLOURS[(i - 1) % len(plots.COLOURS)]
        axes.barh(0, count, left=left, color=colour, edgecolor="white", label=label)
        left += count
    axes.set(xlim=(0, whole), ylim=(-0.6, 0.6), yticks=[])
    axes.xaxis.set_major_formatter(plots.format_thousands)
    axes.spines[["top", "right", "left"]].set_visible(False)
    plots.title(axes, "parameters")


def series_figure(found: SeriesFacts) -> Figure:
    """Draw the first few series, one above the other; there must be one or more."""
    drawn = dict(islice(series_in([Path(found.path)], 0, lambda _: None), MOST_SERIES))
    return forecast_figure(f"{printable(found.path)}: {len(found.series):,} series", drawn, {}, 0)


def forecast_figure(heading: str, series: Mapping[str, Values], ahead: Mapping[str, Values], held_back: int) -> Figure:
    """Draw the first few series, one above the other, with their forecasts.

    Args:
        heading: stands above.
        series: (T,) each, by name.
        ahead: their forecasts, by the same names, which are drawn with the values that they can have seen; or empty.
        held_back: values at the end of each series that its forecast has not seen.
    """
    shown = list(series.items())[:MOST_SERIES]
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
