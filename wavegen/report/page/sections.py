"""The sections of a run's page, from the facts that `inspect_run` found and its history."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from wavegen.config import Config
from wavegen.evaluation.measure import measure_in
from wavegen.report.inspection.checkpoint import (
    THIS_MODEL,
    data_table,
    held_out_in_words,
    ranked_models,
    step_in_words,
)
from wavegen.report.inspection.config import network_table, resolution
from wavegen.report.page.charts import Axis, Curve, chart
from wavegen.report.page.markup import Markup, tag
from wavegen.report.page.players import player
from wavegen.report.page.samples import Sound
from wavegen.report.pictures.curves import limits, smooth
from wavegen.report.tables import Table, heard_in_words, minutes
from wavegen.runs.history import History
from wavegen.text import printable

MOST_ROWS = 100


def section(name: str, title: str, *content: str | Sequence[str]) -> Markup:
    """A section with a heading that the page's navigation leads to."""
    return tag("section", tag("h2", title, id=name), *content, aria_labelledby=name)


def summary(facts: dict[str, Any]) -> Markup:
    """The figures that one asks for first, and what they mean."""
    measure = measure_in(facts)
    network, best = facts["network"], facts[f"best_{measure.fact}"]
    speed = facts["targets_per_second"]
    figures = {
        "best held-out": (
            measure.text(best),
            measure.unit if best is None else f"{measure.unit}, step {facts['best_step']:,}",
        ),
        "step": (f"{facts['step']:,}", step_in_words(facts["step"], facts["total_steps"]).partition(" ")[2]),
        f"{measure.material} heard": (heard_in_words(measure, facts[measure.heard]).removesuffix(" of audio"), ""),
        "time trained": (minutes(60 * facts["minutes_trained"]), ""),
        "speed": ("-" if speed is None else f"{speed:,.0f}", "targets/s"),
        "parameters": (f"{network['parameters']:,}", ""),
        "receptive field": (
            f"{network['receptive_field_ms']:.0f} ms",
            f"{network['receptive_field_samples']:,} samples",
        )
        if measure.is_bits
        else (f"{network['receptive_field_samples']:,}", "points"),
    }
    if measure.is_bits:
        figures["sound"] = (f"{network['sample_rate_hz'] / 1000:g} kHz", resolution(network))
    else:
        figures["forecast"] = (network["output"], "")
    tiles = [
        tag("div", tag("dt", name), tag("dd", tag("b", value), " ", tag("span", unit)))
        for name, (value, unit) in figures.items()
    ]
    return section("summary", "Summary", tag("p", verdict(facts["last_validation"])), tag("dl", tiles, class_="tiles"))


def verdict(validation: dict[str, Any] | None) -> str:
    """How good the model is, in a sentence or two."""
    if validation is None:
        return "It was not validated yet: how good the model is, is not known."
    measure = measure_in(validation)
    known = {name: figure for name, figure in ranked_models(validation) if figure is not None}
    own = known.pop(THIS_MODEL, None)
    if own is None:
        return f"The last validation, at step {validation['step']:,}, has no finite figure: the training has failed."
    everything = "" if validation[f"all_{measure.fact}"] is None or not measure.is_bits else "all "
    costs = f"held-out {measure.material} {'costs' if measure.is_bits else 'have'} {measure.text(own)} {measure.unit}"
    figure = f"At step {validation['step']:,} {everything}{costs} (lower is better)."
    better = {name: each for name, each in known.items() if each <= own}
    if not known:
        return figure
    if not better:
        name, best = min(known.items(), key=lambda item: item[1])
        return f"{figure} That beats every trivial baseline; the best of them is {name} with {measure.text(best)}."
    beaten = ", ".join(name for name in known if name not in better) or "none of the trivial baselines"
    ranked = sorted(better.items(), key=lambda item: item[1])
    still = ", ".join(f"{name} ({measure.text(each)})" for name, each in ranked)
    return f"{figure} That beats {beaten}; still better: {still}."


def curves(history: History, validation: dict[str, Any] | None) -> Markup:
    """The figure, learning rate and speed; the model among the baselines; every figure as a table."""
    if not any(figure is not None for figure in history.train):
        return section("curves", "Curves", tag("p", "No step was made yet."))
    baselines, measure = history.baselines, history.measure
    span = limits([history], list(baselines.values()))
    steps = Axis(0, 1.01 * history.step, "step", lambda value: f"{value:,.0f}")
    scored = [(each["step"], each[measure.fact]) for each in history.scored]
    train = list(zip(*smooth(history.steps, history.train), strict=True))
    words = f"Training from {train[0][1]:.3g} to {train[-1][1]:.3g}."
    if scored:
        first, last = (measure.text(each) for _, each in (scored[0], scored[-1]))
        words += f" Held-out from {first} at step {scored[0][0]:,} to {last} at the last."
    above = [f"{name} {figure:.3g}" for name, figure in baselines.items() if figure > span.highest]
    charts = [
        chart(
            f"{measure.unit.capitalize()} (lower is better)",
            words,
            steps,
            Axis(span.lowest, span.highest, measure.unit, lambda value: f"{value:.3g}"),
            [Curve("training", "train", train), Curve("held-out", "held-out", scored, dotted=True)],
            {f"{name} {measure.text(figure)}": figure for name, figure in baselines.items()},
        ),
        tag("p", f"Above the chart: {', '.join(above)}.", class_="note") if above else "",
    ]
    others: list[tuple[str, Sequence[float | None], Callable[[float], str]]] = [
        ("Learning rate", history.learning_rates, lambda value: f"{value:.3g}"),
        ("Speed (targets/s)", history.speeds, lambda value: f"{value:,.0f}"),
    ]
    for title, values, show in others:
        points = list(zip(*smooth(history.steps, values), strict=True))
        if points:
            highest = max(value for _, value in points)
            words = f"From {show(points[0][1])} to {show(points[-1][1])}, at most {show(highest)}."
            y = Axis(0, 1.05 * highest or 1.0, title, show)
            charts.append(chart(title, words, steps, y, [Curve(title, "train", points)], low=True))
    ranking = [] if validation is None else [_ranking(validation)]
    return section("curves", "Curves", charts, ranking, _validations(history))


def sounds(name: str, title: str, note: str, heard: Sequence[Sound]) -> Markup:
    """Players."""
    players = tag("div", [player(sound) for sound in heard], class_="sounds") if heard else ""
    return section(name, title, tag("p", note), players)


def data(facts: dict[str, Any]) -> Markup:
    """What it was trained on."""
    if facts["data"] is None:
        return section("data", "Data", tag("p", "No checkpoint yet that knows the recordings."))
    return section("data", "Data", _facts(data_table(facts["data"])))


def network(facts: dict[str, Any]) -> Markup:
    """The size of the network."""
    return section("network", "Network", _facts(network_table(facts["network"])))


def configuration(config: dict[str, Any]) -> Markup:
    """Every key with its value and meaning; what differs from the defaults stands out."""
    defaults = Config().model_dump()
    parts = []
    for name, values in config.items():
        fields = getattr(Config.model_fields.get(name), "annotation", None)
        rows = []
        for key, value in values.items():
            default = defaults.get(name, {}).get(key)
            described = getattr(fields, "model_fields", {}).get(key)
            meaning = [described.description] if described and described.description else []
            changed = value != default
            meaning += [f"default: {_as_yaml(default)}"] if changed else []
            rows.append(
                tag(
                    "tr",
                    tag("th", key, scope="row"),
                    tag("td", tag("strong", _as_yaml(value)) if changed else _as_yaml(value)),
                    tag("td", "; ".join(meaning)),
                )
            )
        parts.append(tag("h3", name))
        head = tag("tr", [tag("th", text, scope="col") for text in ("key", "value", "meaning")])
        parts.append(tag("table", tag("thead", head), tag("tbody", rows), class_="wide"))
    note = tag("p", "Values in bold differ from the defaults.", class_="note")
    return section("configuration", "Configuration", note, parts)


def _facts(table: Table) -> Markup:
    """A table of facts that is also printed on terminals."""
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in table.rows]
    return tag("table", tag("tbody", rows))


def _ranking(validation: dict[str, Any]) -> Markup:
    """The model among the baselines as bars."""
    measure = measure_in(validation)
    ranked = [(name, figure) for name, figure in ranked_models(validation) if figure is not None]
    if not ranked:
        return Markup("")
    widest = max(figure for _, figure in ranked) or 1.0  # all forecasts can be right
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", measure.text(figure), class_="number"),
            tag("td", tag("div", style=f"width:{100 * figure / widest:.1f}%", class_="bar"), class_="bars"),
            class_="own" if name == THIS_MODEL else None,
        )
        for name, figure in ranked
    ]
    head = tag("tr", tag("th", "model", scope="col"), tag("th", measure.unit, scope="col", colspan=2))
    title = f"Step {validation['step']:,}, {measure.unit}{held_out_in_words(validation)}"
    return tag("table", tag("caption", title), tag("thead", head), tag("tbody", rows), class_="ranks")


def _validations(history: History) -> Markup:
    entries = history.validations
    if not entries:
        return Markup("")
    measure, every = history.measure, -(-len(entries) // MOST_ROWS)
    shown = [each for i, each in enumerate(entries) if (len(entries) - 1 - i) % every == 0]
    best = history.best
    rows = [
        tag(
            "tr",
            tag("th", f"{each['step']:,}", scope="row"),
            tag("td", measure.text(each[f"train_{measure.fact}"])),
            tag("td", measure.text(each[measure.fact]) + (" (best)" if best and each["step"] == best["step"] else "")),
            tag("td", heard_in_words(measure, each[measure.heard]).removesuffix(" of audio")),
            tag("td", minutes(60 * each["minutes_trained"])),
        )
        for each in shown
    ]
    columns = ("step", "training", "held-out", "heard", "trained")
    head = tag("tr", [tag("th", text, scope="col") for text in columns])
    some = f"{len(entries):,} validations" if every == 1 else f"{len(shown)} of {len(entries):,} validations"
    table = tag("table", tag("thead", head), tag("tbody", rows), class_="numbers")
    # sideways by keyboard too, where it is too wide
    scroller = tag("div", table, class_="scroll", role="region", aria_label=some, tabindex=0)
    return tag("details", tag("summary", f"{some} as a table"), scroller)


def _as_yaml(value: Any) -> str:
    return printable(value) if isinstance(value, str) else json.dumps(value)
