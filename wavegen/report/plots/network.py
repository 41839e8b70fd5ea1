"""A plot of a network: how its dilations reach into the past, and where its parameters are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wavegen.inspect.config import NetworkFacts
from wavegen.report.plots.figure import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    format_thousands,
    new_figure,
    tidy,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 150_000  # a second of drawing; larger networks are drawn by their outline only
FEW_LINES = 2000  # they are drawn one by one, more of them as a texture
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
    what = f"{name}: {network.parameters:,} parameters"
    if not layers:  # a recurrent network sees all of the past by one path
        figure = new_figure(10, 2.4)
        bar = figure.subplots()
        _draw_parts(bar, network.parameters_by_part)
        title(bar, what)
        return figure
    height = min(9.0, 4.0 + 0.16 * len(layers))
    figure = new_figure(10, height + 1.3)
    above, below = figure.subplots(2, 1, height_ratios=(height, 0.5))
    title(above, what)
    _draw_paths(above, layers, network.receptive_field_samples, network.receptive_field_ms)
    _draw_parts(below, network.parameters_by_part)
    return figure


def _draw_paths(axes: Axes, layers: Sequence[Layer], field: int, field_ms: float | None) -> None:
    """Draw the paths; a stack's joins are drawn as if the longest way were the only one."""
    from matplotlib.collections import LineCollection

    n_blocks = len(layers)
    taps = [(kernel_size, dilation) for _, kernel_size, dilation in layers]
    reach = np.cumsum([0, *[(kernel_size - 1) * dilation for kernel_size, dilation in reversed(taps)]])
    heights = np.arange(n_blocks, -1, -1)
    lines = _paths(taps)
    if lines is None:
        axes.fill_betweenx(heights, -reach, 0, color=BLUE, alpha=0.25, linewidth=0)
    else:
        few = len(lines) < FEW_LINES
        axes.add_collection(
            LineCollection(list(lines), colors=BLUE, linewidths=0.7 if few else 0.25, alpha=0.9 if few else 0.35)
        )
    axes.plot(-reach, heights, color=VERMILION, linewidth=1.5, marker="o", markersize=3)
    axes.plot([0], [n_blocks], marker="o", color=VERMILION, markersize=7, clip_on=False)
    axes.set(xlim=(-1.02 * max(1, reach[-1]), 0.02 * max(1, reach[-1])), ylim=(-0.4, n_blocks + 0.4))
    every = -(-n_blocks // MOST_LABELS)
    shown = range(every, n_blocks + 1, every)
    axes.set_yticks([0, *shown], ["input", *(_label(i, layers[i - 1]) for i in shown)], fontsize=8)
    axes.xaxis.set_major_formatter(format_thousands)
    reach_in_words = f"{field:,} points" if field_ms is None else f"{field:,} samples, {field_ms:,.1f} ms"
    unit = "points" if field_ms is None else "samples"
    axes.set_xlabel(f"{unit} before the prediction; receptive field {reach_in_words}", parse_math=False)
    tidy(axes, "x")


def _label(i: int, layer: Layer) -> str:
    name, kernel_size, dilation = layer
    return f"{name} {i}" + (f", dilation {dilation:,}" if kernel_size > 1 else "")


def _paths(taps: Sequence[tuple[int, int]]) -> npt.NDArray[np.float64] | None:
    """Return the connections that one prediction depends on.

    Args:
        taps: kernel size and dilation of each layer, the lowest first.

    Returns:
        (lines, 2, 2): the (time, block) of both ends; None if there are too many to draw.
    """
    needed = np.array([0])  # places in the past that a block's output is needed at, from the last block down
    lines = []
    n_lines = 0
    for block in range(len(taps), 0, -1):
        kernel_size, dilation = taps[block - 1]
        n_lines += len(needed) * kernel_size
        if n_lines > MOST_LINES:
            return None
        inputs = needed[:, None] + np.arange(kernel_size) * dilation
        outputs = np.broadcast_to(needed[:, None], inputs.shape)
        ends = (-outputs, np.full(inputs.shape, block), -inputs, np.full(inputs.shape, block - 1))
        lines.append(np.stack([end.ravel() for end in ends], axis=1).reshape(-1, 2, 2).astype(np.float64))
        needed = np.unique(inputs)
    return np.concatenate(lines)


def _draw_parts(axes: Axes, parts: dict[str, int]) -> None:
    """Draw one bar, divided by parts."""
    whole, left = sum(parts.values()), 0
    colours = [SKY, BLUE, ORANGE, GREEN, PURPLE, VERMILION]
    for i, (name, count) in enumerate(parts.items()):
        colour = colours[i % len(colours)]
        axes.barh(
            0, count, left=left, color=colour, edgecolor="white", label=f"{name}: {count:,} ({count / whole:.0%})"
        )
        left += count
    axes.set(xlim=(0, whole), ylim=(-0.6, 0.6), yticks=[])
    axes.xaxis.set_major_formatter(format_thousands)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.9),
        ncols=5,
        columnspacing=1.2,
        handlelength=1,
        frameon=False,
        fontsize=9,
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    title(axes, "parameters")
