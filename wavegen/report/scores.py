"""Scores as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wavegen.audio.finding import printable
from wavegen.audio.quantize import Quantizer
from wavegen.evaluation.evaluation import Score, total
from wavegen.evaluation.measure import Measure
from wavegen.evaluation.series import Errors, SeriesScore, all_series
from wavegen.report.tables import Table, first_rows, minutes

MOST_SERIES = 20  # in a table


def summary_table(scores: Sequence[Score], sample_rate_hz: int, quantizer: Quantizer) -> Table:
    """Bits/sample of all clips together, the model above the trivial baselines."""
    everything = total(scores)
    clips = "1 clip" if len(scores) == 1 else f"{len(scores):,} clips"
    figures = {"this model": everything.bits, **everything.baseline_bits}
    return Table(
        f"bits/sample of {clips}, {minutes(everything.n_samples / sample_rate_hz)}, {quantizer} (lower is better)",
        (),
        [(name, f"{bits / everything.n_samples:.4f}") for name, bits in figures.items()],
    )


def clip_table(scores: Sequence[Score], sample_rate_hz: int) -> Table:
    """Bits/sample of each clip, beside the best of the trivial baselines."""

    def row(score: Score) -> tuple[str, str, str, str]:
        best = min(score.baseline_bits.values(), default=None)
        baseline = "" if best is None else f"{best / score.n_samples:.3f}"
        return score.name, minutes(score.n_samples / sample_rate_hz), f"{score.bits_per_sample:.3f}", baseline

    return Table("Each clip", ("clip", "length", "this model", "best baseline"), [row(score) for score in scores])


def cost_tables(costs: Mapping[str, float]) -> list[Table]:
    """What lower precisions of the weights cost in sampling, where the training measured it."""
    rows = [(f"{name} weights", f"{round(cost, 4) + 0.0:+.4f}") for name, cost in costs.items()]
    return [Table("bits/sample that a lower --precision of generate adds", (), rows)] if rows else []


def series_document(scores: Sequence[SeriesScore], measure: Measure) -> dict[str, Any]:
    """The errors of all series together and of each, for ``--json``."""
    key = measure.fact
    document = {"measure": key, "series": len(scores), **all_series(scores).as_dict(key)}
    return {**document, "clips": [score.as_dict(key) for score in scores]}


def series_tables(scores: Sequence[SeriesScore], measure: Measure, summary: bool) -> list[Table]:
    """The model above the trivial baselines on all series together, below the worst series."""
    everything = all_series(scores)
    models = {"this model": everything.errors, **everything.baselines}
    horizon = len(everything.errors.by_horizon)

    def row(name: str, errors: Errors) -> tuple[str, ...]:
        figures = errors.as_dict(measure.fact)
        shown = [figures[measure.fact], figures["next_value"], figures["next_value_at_end"]]
        return (name, *(measure.text(figure) for figure in shown))

    together = Table(
        f"{measure.unit} of {len(scores):,} series, {everything.errors.n_positions:,} positions (lower is better)",
        ("", "all" if horizon == 1 else f"next {horizon} values", "next value", "next value, at the end"),
        [row(name, errors) for name, errors in models.items()],
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
    columns = ("series", "positions", "this model", "best baseline")
    return [first_rows("Each series, the worst first", columns, rows, MOST_SERIES), together]
