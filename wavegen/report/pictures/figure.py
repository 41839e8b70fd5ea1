"""Figures: one look for all pictures, drawn without pyplot and its global state."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100

# Colours that stay apart for colour-blind eyes: Okabe and Ito, "Color Universal Design", 2008.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "#6b7280"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # one more than colours: the pairs repeat after 42 series only


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many hundred pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # file names can be in any script; the font draws a box for what it lacks
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, format="png")
    return file.getvalue()


def tidy(axes: Axes, grid: str = "y") -> None:
    """Take away the frame that no value needs, and draw a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid == "both":
        axes.grid(alpha=0.25)
    else:
        axes.grid(axis="x" if grid == "x" else "y", alpha=0.25)


def title(axes: Axes, text: str) -> None:
    """A title at the left; a name in it is text and no formula."""
    axes.set_title(text, loc="left", fontsize=11, parse_math=False)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move labels apart.

    Args:
        places: where they should stand.
        gap: that must lie between two.

    Returns:
        Where they stand, in the same order: as near as a pass upwards leaves them, then centred where they pushed.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[list[int]] = []  # of labels that touch, each set around the mean of its places

    def centre(group: list[int]) -> float:
        return sum(places[i] for i in group) / len(group)

    for i in order:
        groups.append([i])
        while len(groups) > 1:
            below, above = groups[-2], groups[-1]
            if centre(above) - centre(below) >= gap * (len(below) + len(above)) / 2:
                break
            groups[-2:] = [below + above]
    moved = [0.0] * len(places)
    for group in groups:
        for rank, i in enumerate(group):
            moved[i] = centre(group) + gap * (rank - (len(group) - 1) / 2)
    return moved
