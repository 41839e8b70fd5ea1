"""A picture of a network: how its dilations reach into the past, and where its parameters are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wavegen.report.pictures.figure import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, new_figure, tidy, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 150_000  # a second of drawing; larger networks are drawn by their outline only
FEW_LINES = 2000  # they are drawn one by one, more of them as a texture
MOST_LABELS = 40


def network_figure(name: str, facts: dict[str, Any]) -> Figure:
    """Every path from one prediction back to its inputs, the dilations, and the parameters of each part.

    Args:
        name: of the configuration.
        facts: of `inspect_config`.
    """
    network, model = facts["network"], facts["config"]["model"]
    dilations, kernel_size = network["dilations"], model["kernel_size"]
    height = min(9.0, 4.0 + 0.16 * len(dilations))
    figure = new_figure(10, height + 1.3)
    above, below = figure.subplots(2, 1, height_ratios=(height, 0.5))
    field, field_ms = network["receptive_field_samples"], network["receptive_field_ms"]
    title(above, f"{name}: {network['parameters']:,} parameters")
    _draw_paths(above, dilations, kernel_size, field, field_ms)
    _draw_parts(below, network["parameters_by_part"])
    return figure


def _draw_paths(axes: Axes, dilations: Sequence[int], kernel_size: int, field: int, field_ms: float) -> None:
    from matplotlib.collections import LineCollection

    n_blocks = len(dilations)
    steps = [(kernel_size - 1) * dilation for dilation in reversed(dilations)]
    reach = np.cumsum([0, *steps])
    heights = np.arange(n_blocks, -1, -1)
    lines = _paths(dilations, kernel_size)
    if lines is None:
        axes.fill_betweenx(heights, -reach, 0, color=BLUE, alpha=0.25, linewidth=0)
    else:
        few = len(lines) < FEW_LINES
        axes.add_collection(
            LineCollection(list(lines), colors=BLUE, linewidths=0.7 if few else 0.25, alpha=0.9 if few else 0.35)
        )
    axes.plot(-reach, heights, color=VERMILION, linewidth=1.5, marker="o", markersize=3)
    axes.plot([0], [n_blocks], marker="o", color=VERMILION, markersize=7, clip_on=False)
    axes.set(xlim=(-1.02 * reach[-1], 0.02 * reach[-1]), ylim=(-0.4, n_blocks + 0.4))
    every = -(-n_blocks // MOST_LABELS)
    shown = range(every, n_blocks + 1, every)
    axes.set_yticks([0, *shown], ["input", *(f"block {i}, dilation {dilations[i - 1]:,}" for i in shown)], fontsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(
        f"samples before the prediction; receptive field {field:,} samples, {field_ms:,.1f} ms", parse_math=False
    )
    tidy(axes, "x")


def _paths(dilations: Sequence[int], kernel_size: int) -> npt.NDArray[np.float64] | None:
    """The connections that one prediction depends on.

    Returns:
        (lines, 2, 2): the (time, block) of both ends; None if there are too many to draw.
    """
    needed = np.array([0])  # places in the past that a block's output is needed at, from the last block down
    lines = []
    n_lines = 0
    for block in range(len(dilations), 0, -1):
        n_lines += len(needed) * kernel_size
        if n_lines > MOST_LINES:
            return None
        inputs = needed[:, None] + np.arange(kernel_size) * dilations[block - 1]
        outputs = np.broadcast_to(needed[:, None], inputs.shape)
        ends = (-outputs, np.full(inputs.shape, block), -inputs, np.full(inputs.shape, block - 1))
        lines.append(np.stack([end.ravel() for end in ends], axis=1).reshape(-1, 2, 2).astype(np.float64))
        needed = np.unique(inputs)
    return np.concatenate(lines)


def _draw_parts(axes: Axes, parts: dict[str, int]) -> None:
    """One bar, divided."""
    whole, left = sum(parts.values()), 0
    colours = [SKY, BLUE, ORANGE, GREEN, PURPLE, VERMILION]
    for i, (name, count) in enumerate(parts.items()):
        colour = colours[i % len(colours)]
        axes.barh(
            0, count, left=left, color=colour, edgecolor="white", label=f"{name}: {count:,} ({count / whole:.0%})"
        )
        left += count
    axes.set(xlim=(0, whole), ylim=(-0.6, 0.6), yticks=[])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
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
