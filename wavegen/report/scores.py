"""Scores as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from wavegen.audio.quantize import Quantizer
from wavegen.evaluation.evaluation import Score, by_label, comparison, total
from wavegen.evaluation.interval import Comparison
from wavegen.evaluation.measure import Measure
from wavegen.report.inspection.checkpoint import THIS_MODEL, too_little
from wavegen.report.tables import Table, first_rows, minutes
from wavegen.series.scores import Errors, SeriesScore, all_series
from wavegen.series.scores import comparison as series_comparison
from wavegen.text import pluralize, printable

MOST_SERIES = 20  # in a table
BEST_BASELINE = "best baseline"
MARGIN = "+-"
MARGIN_IN_WORDS = "+- is half of a 95% confidence interval over {}"

Text = Callable[[float | None], str]


def summary_table(scores: Sequence[Score], sample_rate_hz: int, quantizer: Quantizer) -> Table:
    """Bits/sample of all clips together, the model above the trivial baselines."""
    seconds = total(scores).n_samples / sample_rate_hz
    compared = comparison(scores)
    estimates = {THIS_MODEL: compared.model, **compared.baselines}
    return Table(
        f"bits/sample of {pluralize(len(scores), 'clip')}, {minutes(seconds)}, {quantizer} (lower is better)",
        ("", "bits/sample", MARGIN, *_minus_columns(compared, "this model minus it")),
        [
            (name, _bits(each.figure), _bits(each.margin), *_minus(compared, name, _bits, _bits))
            for name, each in estimates.items()
        ],
        "; ".join(filter(None, [MARGIN_IN_WORDS.format("clips"), too_little(seconds)])),
    )


def label_tables(scores: Sequence[Score], sample_rate_hz: int) -> list[Table]:
    """Bits/sample of each label; no table where there are not several."""

    def row(label: str, those: Sequence[Score]) -> tuple[str, ...]:
        compared, length = comparison(those), minutes(total(those).n_samples / sample_rate_hz)
        best = min((each.figure for each in compared.baselines.values()), default=None)
        own = compared.model
        return printable(label), f"{len(those):,}", length, _bits(own.figure), _bits(own.margin), _bits(best)

    labels = by_label(scores)
    columns = ("label", "clips", "length", THIS_MODEL, MARGIN, BEST_BASELINE)
    rows = [row(label, those) for label, those in labels.items()]
    return [Table("Each label", columns, rows, MARGIN_IN_WORDS.format("its clips"))] if len(labels) > 1 else []


def clip_table(scores: Sequence[Score], sample_rate_hz: int) -> Table:
    """Bits/sample of each clip, beside the best of the trivial baselines."""

    def row(score: Score) -> tuple[str, str, str, str]:
        best = min(score.baseline_bits.values(), default=None)
        baseline = "" if best is None else f"{best / score.n_samples:.3f}"
        name, length = printable(score.name), minutes(score.n_samples / sample_rate_hz)
        return name, length, f"{score.bits_per_sample:.3f}", baseline

    return Table("Each clip", ("clip", "length", THIS_MODEL, BEST_BASELINE), [row(score) for score in scores])


def cost_tables(costs: Mapping[str, float]) -> list[Table]:
    """What lower precisions of the weights cost in sampling, where the training measured it."""
    rows = [(f"{name} weights", f"{round(cost, 4) + 0.0:+.4f}") for name, cost in costs.items()]
    return [Table("bits/sample that a lower --precision of generate adds", (), rows)] if rows else []


def series_tables(scores: Sequence[SeriesScore], measure: Measure, summary: bool) -> list[Table]:
    """The model above the trivial baselines on all series together, below the worst series."""
    everything, compared = all_series(scores), series_comparison(scores)
    models = {THIS_MODEL: everything.errors, **everything.baselines}
    estimates = {THIS_MODEL: compared.model, **compared.baselines}
    horizon = len(everything.errors.by_horizon)

    def row(name: str, errors: Errors) -> tuple[str, ...]:
        figures, each = errors.as_dict(measure.fact), estimates[name]
        next_values = measure.text(figures["next_value"]), measure.text(figures["next_value_at_end"])
        return (
            name,
            measure.text(each.figure),
            _rough(each.margin),
            *_minus(compared, name, measure.text, _rough),
            *next_values,
        )

    together = Table(
        f"{measure.unit} of {len(scores):,} series, {everything.errors.n_positions:,} positions (lower is better)",
        (
            *("", "all" if horizon == 1 else f"next {horizon}", MARGIN),
            *_minus_columns(compared, "minus it"),
            *("next value", "at the end"),
        ),
        [row(name, errors) for name, errors in models.items()],
        MARGIN_IN_WORDS.format("series"),
    )
    if summary or len(scores) == 1:
        return [together]
    worst = sorted(scores, key=lambda score: -score.errors.mean)
    rows = [
        (
            printable(score.name),
            f"{score.errors.n_positions:,}",
            measure.text(score.errors.mean),
            measure.text(min(errors.mean for errors in score.baselines.values())),
        )
        for score in worst
    ]
    columns = ("series", "positions", THIS_MODEL, BEST_BASELINE)
    return [first_rows("Each series, the worst first", columns, rows, MOST_SERIES), together]


def _minus_columns(compared: Comparison, heading: str) -> tuple[str, ...]:
    """Headings of what ``_minus`` gives; none where there is no baseline."""
    return (heading, MARGIN) if compared.minus else ()


def _minus(compared: Comparison, name: str, figure: Text, margin: Text) -> tuple[str, ...]:
    """The model's figure minus a baseline's, and its margin; empty beside the model itself."""
    if name not in compared.minus:
        return ("", "") if compared.minus else ()
    each = compared.minus[name]
    return ("+" if each.figure > 0 else "") + figure(each.figure), margin(each.margin)


def _bits(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.4f}"


def _rough(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.2g}"
