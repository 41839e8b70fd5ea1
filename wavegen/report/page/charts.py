"""Charts as inline SVG that stretches with the page; their labels are HTML, as large on a phone as on a desktop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wavegen.report.page.markup import Markup, tag
from wavegen.report.pictures.figure import spread

SIZE = 1000  # units of the drawing, in both directions
LABEL_GAP = 6.5  # percent of a chart's height


@dataclass(frozen=True)
class Axis:
    """A scale.

    Attributes:
        low, high: what it spans.
        label: of the axis, with its unit.
        show: writes a value.
    """

    low: float
    high: float
    label: str
    show: Callable[[float], str]

    def percent(self, value: float) -> float:
        """How far along the axis a value lies."""
        return 100.0 * (value - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[float]:
        """Round values, at most so many."""
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= raw)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [step * i for i in range(first, last + 1)]


@dataclass(frozen=True)
class Curve:
    """A line to draw.

    Attributes:
        name: in the legend.
        style: its class in the style sheet.
        points: (x, y) each.
        dotted: a dot on each point.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    dotted: bool = False


def chart(
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    curves: Sequence[Curve],
    levels: dict[str, float] | None = None,
    *,
    low: bool = False,
) -> Markup:
    """A figure of curves.

    Args:
        title: above.
        description: what there is to see, for those who do not see it.
        x: the horizontal axis.
        y: the vertical one.
        curves: in the order of the legend; the last one keeps its end free of labels.
        levels: horizontal lines by their labels.
        low: a third as high as other charts.
    """
    levels = {name: value for name, value in (levels or {}).items() if y.low <= value <= y.high}
    x_ticks, y_ticks = x.ticks(5), y.ticks(3 if low else 6)
    grid = [_line(y.percent(tick), "grid") for tick in y_ticks]
    lines = [_line(y.percent(value), "level") for value in levels.values()]
    drawn = [_polyline(curve, x, y) for curve in curves]
    svg = tag(
        "svg",
        [*grid, *lines, *drawn],
        viewBox=f"0 0 {SIZE} {SIZE}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{title}. {description}",
    )
    legend = [tag("li", tag("span", class_=f"swatch {curve.style}"), curve.name) for curve in curves]
    return tag(
        "figure",
        tag("figcaption", title),
        tag("ul", legend, class_="legend") if len(curves) > 1 else "",
        tag(
            "div",
            tag("div", [_tick("bottom", y, tick) for tick in y_ticks], class_="y-axis", aria_hidden="true"),
            tag("div", svg, _level_labels(levels, y, curves), class_="plot"),
            tag("div", [_tick("left", x, tick) for tick in x_ticks], class_="x-axis", aria_hidden="true"),
            tag("p", x.label, class_="x-label", aria_hidden="true"),
            class_="chart",
        ),
        class_="low" if low else None,
    )


def _level_labels(levels: dict[str, float], y: Axis, curves: Sequence[Curve]) -> Markup:
    """Labels of the levels, where a falling curve is not: those above its end at the right, the others at the left."""
    end = curves[-1].points[-1][1] if curves and curves[-1].points else y.low
    labels = []
    for side, beside in (
        ("right", {name: value for name, value in levels.items() if value > end}),
        ("left", {name: value for name, value in levels.items() if value <= end}),
    ):
        places = spread([y.percent(value) for value in beside.values()], LABEL_GAP)
        labels += [
            tag("span", name, class_=f"level-label {side}", style=f"bottom:{place:.1f}%")
            for name, place in zip(beside, places, strict=True)
        ]
    return tag("div", labels, aria_hidden="true") if labels else Markup("")


def _tick(side: str, axis: Axis, value: float) -> Markup:
    return tag("span", axis.show(value), style=f"{side}:{axis.percent(value):.2f}%")


def _line(percent: float, style: str) -> Markup:
    return tag("path", d=f"M0 {_y(percent)}H{SIZE}", class_=style)


def _polyline(curve: Curve, x: Axis, y: Axis) -> Markup:
    """The curve; what leaves the chart at its top or bottom is cut off by the drawing's edge."""
    places = [(_x(x.percent(a)), _y(y.percent(b))) for a, b in curve.points]
    if not places:
        return Markup("")
    line = "M" + "L".join(f"{a} {b}" for a, b in places)
    # a dot is a line of no length with a round end: it stays round however the drawing is stretched
    dots = "".join(f"M{a} {b}h0" for a, b in places) if curve.dotted else ""
    drawn = tag("path", d=line, class_=curve.style)
    return Markup(drawn + tag("path", d=dots, class_=f"{curve.style} dots")) if dots else drawn


def _x(percent: float) -> str:
    return f"{percent * SIZE / 100:.0f}"


def _y(percent: float) -> str:
    return f"{(100 - percent) * SIZE / 100:.0f}"
