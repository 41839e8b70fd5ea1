"""Tables of scores: bits/sample, errors of forecasts, sample statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wavegen.audio.quantize import Quantizer
from wavegen.evaluation.evaluation import Score, by_label, comparison, total
from wavegen.evaluation.interval import Comparison
from wavegen.evaluation.loss_unit import LossUnit
from wavegen.evaluation.sample_statistics import SampleFigures
from wavegen.report.tables import Table, first_rows
from wavegen.runs.history import THIS_MODEL
from wavegen.series.scores import Errors, SeriesScore, all_series
from wavegen.series.scores import comparison as series_comparison
from wavegen.text import format_duration, pluralize, printable

MOST_SERIES = 20  # in a table
BEST_BASELINE = "best baseline"
SAMPLES = "these clips"
FEWEST_SECONDS = 30.0  # of held-out audio: a loss on less changes more from clip to clip than from model to model
MARGIN = "+-"
MARGIN_IN_WORDS = "+- is half of a 95% confidence interval over {}"

Text = Callable[[float | None], str]


def too_little_text(seconds: float | None) -> str:
    """Return a warning if a loss is of too little held-out audio; empty if it is enough or not known."""
    if seconds is None or seconds >= FEWEST_SECONDS:
        return ""
    return f"less than {FEWEST_SECONDS:.0f} s of audio: nothing follows from this figure"


def summary_table(scores: Sequence[Score], sample_rate_hz: int, quantizer: Quantizer) -> Table:
    """Return bits/sample of all clips together, the model above the trivial baselines."""
    seconds = total(scores).n_samples / sample_rate_hz
    compared = comparison(scores)
    estimates = {THIS_MODEL: compared.model, **compared.baselines}
    return Table(
        f"bits/sample of {pluralize(len(scores), 'clip')}, {format_duration(seconds)}, {quantizer} (lower is better)",
        ("", "bits/sample", MARGIN, *_minus_columns(compared, "this model minus it")),
        [
            (name, _bits(each.figure), _bits(each.margin), *_minus(compared, name, _bits, _bits))
            for name, each in estimates.items()
        ],
        "; ".join(filter(None, [MARGIN_IN_WORDS.format("clips"), too_little_text(seconds)])),
    )


def label_tables(scores: Sequence[Score], sample_rate_hz: int) -> list[Table]:
    """Return bits/sample of each label; no table where there are not several."""

    def row(label: str, those: Sequence[Score]) -> tuple[str, ...]:
        compared, length = comparison(those), format_duration(total(those).n_samples / sample_rate_hz)
        best = min((each.figure for each in compared.baselines.values()), default=None)
        own = compared.model
        return printable(label), f"{len(those):,}", length, _bits(own.figure), _bits(own.margin), _bits(best)

    labels = by_label(scores)
    columns = ("label", "clips", "length", THIS_MODEL, MARGIN, BEST_BASELINE)
    rows = [row(label, those) for label, those in labels.items()]
    return [Table("Each label", columns, rows, MARGIN_IN_WORDS.format("its clips"))] if len(labels) > 1 else []


def clip_table(scores: Sequence[Score], sample_rate_hz: int) -> Table:
    """Return bits/sample of each clip, and of the best trivial baseline."""

    def row(score: Score) -> tuple[str, str, str, str]:
        best = min(score.baseline_bits.values(), default=None)
        baseline = "" if best is None else f"{best / score.n_samples:.3f}"
        name, length = printable(score.name), format_duration(score.n_samples / sample_rate_hz)
        return name, length, f"{score.bits_per_sample:.3f}", baseline

    return Table("Each clip", ("clip", "length", THIS_MODEL, BEST_BASELINE), [row(score) for score in scores])


def cost_tables(costs: Mapping[str, float]) -> list[Table]:
    """Return the table of what each lower precision costs in sampling, if the training measured it."""
    rows = [(f"{name} weights", f"{round(cost, 4) + 0.0:+.4f}") for name, cost in costs.items()]
    return [Table("bits/sample that a lower --precision of generate adds", (), rows)] if rows else []


def series_tables(scores: Sequence[SeriesScore], loss_unit: LossUnit, summary: bool) -> list[Table]:
    """Return the worst series, and the model above the trivial baselines on all series together."""
    everything, compared = all_series(scores), series_comparison(scores)
    models = {THIS_MODEL: everything.errors, **everything.baselines}
    estimates = {THIS_MODEL: compared.model, **compared.baselines}
    horizon = len(everything.errors.by_horizon)

    def row(name: str, errors: Errors) -> tuple[str, ...]:
        figures, each = errors.as_dict(), estimates[name]
        next_values = loss_unit.format(figures["next_value"]), loss_unit.format(figures["next_value_at_end"])
        return (
            name,
            loss_unit.format(each.figure),
            _rough(each.margin),
            *_minus(compared, name, loss_unit.format, _rough),
            *next_values,
        )

    together = Table(
        f"{loss_unit.name} of {len(scores):,} series, {everything.errors.n_positions:,} positions (lower is better)",
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
            loss_unit.format(score.errors.mean),
            loss_unit.format(min(errors.mean for errors in score.baselines.values())),
        )
        for score in worst
    ]
    columns = ("series", "positions", THIS_MODEL, BEST_BASELINE)
    return [first_rows("Each series, the worst first", columns, rows, MOST_SERIES), together]


def _minus_columns(compared: Comparison, heading: str) -> tuple[str, ...]:
    """Return headings for ``_minus``; none where there is no baseline."""
    return (heading, MARGIN) if compared.minus else ()


def _minus(compared: Comparison, name: str, figure: Text, margin: Text) -> tuple[str, ...]:
    """Return the model's figure minus a baseline's, and its margin; empty for the model itself."""
    if name not in compared.minus:
        return ("", "") if compared.minus else ()
    each = compared.minus[name]
    return ("+" if each.figure > 0 else "") + figure(each.figure), margin(each.margin)


def _bits(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.4f}"


def _rough(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.2g}"


@dataclass(frozen=True)
class SampleComparison:
    """Figures of clips, and of what they are compared with.

    Args:
        samples: the clips' figures.
        references: of recordings and impostors, by name; the recordings first.
    """

    samples: SampleFigures
    references: dict[str, SampleFigures]

    @property
    def likeness(self) -> float | None:
        """Return the score's position between the better impostor's, 0, and that of other recordings, 1.

        None where an impostor is no worse than other recordings.
        """
        recordings, *impostors = (figures.score for figures in self.references.values())
        if min(impostors) <= recordings:
            return None
        return (min(impostors) - self.samples.score) / (min(impostors) - recordings)

    def table(self) -> Table:
        """Return the figures as a table; each column is explained in the guide on measuring."""
        rows = {SAMPLES: self.samples, **self.references}
        columns = ("", "score", "95% interval", "loud", "levels apart", "silent", "first sound", "centroid")
        return Table(
            f"Sample statistics of {pluralize(self.samples.n_clips, 'clip')}, {format_duration(self.samples.seconds)} "
            "(lower scores are better)",
            columns,
            [(name, *_cells(figures)) for name, figures in rows.items()],
            "the recordings are too few or too uniform to compare with: an impostor scores as well"
            if self.likeness is None
            else f"{100 * self.likeness:.0f}% of the way from the better impostor's score to the recordings'",
        )

    def document(self) -> dict[str, Any]:
        """Return the figures for ``--json``."""
        return {
            "samples": asdict(self.samples),
            "likeness": self.likeness,
            "references": {name: asdict(figures) for name, figures in self.references.items()},
        }


def _cells(figures: SampleFigures) -> tuple[str, ...]:
    interval = "-" if figures.interval is None else "{:.0f} to {:.0f}".format(*figures.interval)
    first = "none" if math.isinf(figures.first_sound_seconds) else f"{figures.first_sound_seconds:.1f} s"
    return (
        f"{figures.score:.0f}",
        interval,
        f"{figures.loud_db:.1f} dB",
        f"{figures.level_distance_db:.1f} dB",
        f"{100 * figures.silent_share:.1f}%",
        first,
        f"{figures.centroid_hz:,.0f} Hz",
    )
