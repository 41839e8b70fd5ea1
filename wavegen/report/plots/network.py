"""A plot of a network: how its dilations reach into the past, and where its parameters are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wavegen.inspect.config import NetworkFacts
from wavegen.report.plots.figure import BLUE, COLOURS, VERMILION, format_thousands, new_figure, tidy, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 150_000  # a second of drawing; of larger networks the lowest layers are drawn by their outline only
MOST_LABELS = 40

Layer = tuple[str, int, int]  # name, kernel size, dilation


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
    figure = new_figure(10, height + (1.3 if layers else 2.0))
    *above, below = figure.subplots(2, 1, height_ratios=(height, 0.5)) if layers else [figure.subplots()]
    for axes in above:
        _draw_paths(axes, layers, network.receptive_field_samples, network.receptive_field_ms)
    _draw_parts(below, network.parameters_by_part)
    figure.legend(loc="outside lower center", ncols=5, handlelength=1, frameon=False, fontsize=9)
    title(above[0] if above else below, f"{name}: {network.parameters:,} parameters")
    return figure


def _draw_paths(axes: Axes, layers: Sequence[Layer], field: int, field_ms: float | None) -> None:
    """Draw the paths; a stack's joins are drawn as if the longest way were the only one."""
    from matplotlib.collections import LineCollection

    n_layers, n_lines = len(layers), 0
    reach = np.cumsum([0, *[(kernel_size - 1) * dilation for _, kernel_size, dilation in reversed(layers)]])
    heights = np.arange(n_layers, -1, -1)
    axes.fill_betweenx(heights, -reach, 0, color=BLUE, alpha=0.12, linewidth=0)
    needed = np.array([0])  # places in the past at which a layer's output is needed, from the last layer down
    for height, (_, kernel_size, dilation) in zip(heights, reversed(layers), strict=False):
        inputs = needed[:, None] + np.arange(kernel_size) * dilation  # (places, taps)
        n_lines += inputs.size
        if n_lines > MOST_LINES:
            break
        ends = np.stack(np.broadcast_arrays(-needed[:, None], height, -inputs, height - 1), axis=-1)
        # (places, taps, 4) -> (lines, both ends, time and height)
        axes.add_collection(LineCollection(list(ends.reshape(-1, 2, 2)), colors=BLUE, linewidths=0.5, alpha=0.5))
        needed = np.unique(inputs)
    axes.plot(-reach, heights, color=VERMILION, linewidth=1.5, marker="o", markersize=3)
    axes.plot([0], [n_layers], marker="o", color=VERMILION, markersize=7, clip_on=False)
    axes.set(xlim=(-1.02 * max(1, reach[-1]), 0.02 * max(1, reach[-1])), ylim=(-0.4, n_layers + 0.4))
    shown = range(-(-n_layers // MOST_LABELS), n_layers + 1, -(-n_layers // MOST_LABELS))
    axes.set_yticks([0, *shown], ["input", *(_label(i, layers[i - 1]) for i in shown)], fontsize=8)
    axes.xaxis.set_major_formatter(format_thousands)
    unit = "points" if field_ms is None else "samples"
    in_time = "" if field_ms is None else f", {field_ms:,.1f} ms"
    axes.set_xlabel(f"{unit} before the prediction; receptive field {field:,} {unit}{in_time}", parse_math=False)
    tidy(axes, "x")


def _label(i: int, layer: Layer) -> str:
    name, kernel_size, dilation = layer
    return f"{name} {i}" + (f", dilation {dilation:,}" if kernel_size > 1 else "")


def _draw_parts(axes: Axes, parts: dict[str, int]) -> None:
    """Draw one bar, divided by parts."""
    whole, left = sum(parts.values()), 0
    for i, (name, count) in enumerate(parts.items()):
        label, colour = f"{name}: {count:,} ({count / whole:.0%})", COLOURS[(i - 1) % len(COLOURS)]
        axes.barh(0, count, left=left, color=colour, edgecolor="white", label=label)
        left += count
    axes.set(xlim=(0, whole), ylim=(-0.6, 0.6), yticks=[])
    axes.xaxis.set_major_formatter(format_thousands)
    axes.spines[["top", "right", "left"]].set_visible(False)
    title(axes, "parameters")
