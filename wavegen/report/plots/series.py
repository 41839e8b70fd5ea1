"""Plots of series of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavegen.errors import DataError
from wavegen.inspect.series import SeriesFacts
from wavegen.report.plots.figure import COLOURS, new_figure, tidy, title
from wavegen.series.corpus import find_series
from wavegen.series.files import read_series
from wavegen.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_DRAWN = 6


def series_figure(found: SeriesFacts) -> Figure:
    """Draw the first few series, one above the other; there must be one or more."""
    path = Path(found.path)
    drawn: dict[str, Any] = {}
    for file in [path / each for each in find_series(path).names] if path.is_dir() else [path]:
        if len(drawn) >= MOST_DRAWN:
            break
        try:
            whole = read_series(file)
        except DataError:
            continue
        drawn |= {f"{file.name}[{inside}]" if inside else file.name: row for inside, row in whole.series.items()}
    shown = list(drawn.items())[:MOST_DRAWN]
    figure = new_figure(10, 0.8 + 1.4 * len(shown))
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for i, (axes, (label, values)) in enumerate(zip(panels, shown, strict=True)):
        axes.plot(values, color=COLOURS[i % len(COLOURS)], linewidth=1.2)
        axes.set_ylabel(label, fontsize=8, parse_math=False)
        tidy(axes, "both")
    title(panels[0], f"{printable(found.path)}: {len(found.series):,} series")
    panels[-1].set_xlabel("step")
    return figure
