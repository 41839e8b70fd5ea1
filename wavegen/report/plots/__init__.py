"""The style of all plots, drawn without pyplot and its global state."""

from __future__ import annotations

import io
import warnings
from typing import Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DPI = 100

# Colours that stay apart for colour-blind eyes: Okabe and Ito, "Color Universal Design", 2008.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY, PALE, DARK = "#6b7280", "#c3c9d2", "#374151"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; its size is in hundreds of pixels."""
    return Figure(figsize=(width, height), layout="constrained", dpi=DPI)


def encode(figure: Figure, kind: Literal["png", "svg"] = "png") -> bytes:
    """Return the figure as the content of a file, without a date: the same figure gives the same file."""
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "wavegen"}), warnings.catch_warnings():
        # file names can be in any script; the font draws a box for missing characters
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def tidy(axes: Axes, grid: Literal["x", "y", "both"] = "y") -> None:
    """Remove the frame that no value needs, and draw a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, alpha=0.25)


def title(axes: Axes, text: str) -> None:
    """Set a title at the left; a name in it is text and no formula."""
    axes.set_title(text, loc="left", fontsize=11, parse_math=False)


def format_thousands(value: float, _: object = None) -> str:
    """Format a tick: 12,000; nothing for a tick between whole numbers."""
    return f"{value:,.0f}" if value == int(value) else ""
