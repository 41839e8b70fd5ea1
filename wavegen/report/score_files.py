"""Scores for other programs: documents for ``--json``, tables for ``--csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from wavegen.audio.quantize import Quantizer
from wavegen.evaluation.evaluation import Score, by_label, comparison, total
from wavegen.evaluation.loss_unit import LossUnit
from wavegen.series.scores import SeriesScore, all_series
from wavegen.series.scores import comparison as series_comparison
from wavegen.text import printable

FORMULA = ("=", "+", "-", "@")  # a cell that begins so is computed by a spreadsheet

Document = dict[str, Any]
Row = dict[str, object]


def sound_document(
    scores: Sequence[Score], sample_rate_hz: int, quantizer: Quantizer, costs: Mapping[str, float]
) -> Document:
    """Return bits/sample of all clips together, of each label, and of each clip.

    Args:
        scores: of the clips.
        sample_rate_hz: of all of them.
        quantizer: of the model.
        costs: what lower precisions of the weights cost in sampling.
    """
    labels = by_label(scores).items()
    return {
        "name": "all",
        **_together(scores, sample_rate_hz),
        "sample_rate_hz": sample_rate_hz,
        "quantization": quantizer.kind,
        "classes": quantizer.classes,
        "precision_costs": dict(costs),
        "labels": [{"label": label, **_together(those, sample_rate_hz)} for label, those in labels],
        "clips": [
            {**score.as_dict(sample_rate_hz), "label": score.label, "trained_on": score.trained_on} for score in scores
        ],
    }


def _together(scores: Sequence[Score], sample_rate_hz: int) -> Document:
    figures = total(scores).as_dict(sample_rate_hz)
    del figures["name"]
    return {"n_clips": len(scores), **figures, **comparison(scores).as_dict("bits_per_sample")}


def series_document(scores: Sequence[SeriesScore], loss_unit: LossUnit) -> Document:
    """Return the errors of all series together and of each."""
    return {
        "loss_unit": loss_unit.name,
        "series": len(scores),
        **all_series(scores).as_dict(),
        **series_comparison(scores).as_dict("error"),
        "clips": [{**score.as_dict(), "trained_on": score.trained_on} for score in scores],
    }


def sound_rows(scores: Sequence[Score], sample_rate_hz: int) -> list[Row]:
    """Return a row for each clip; ``trained_on`` is empty where that is not known."""
    return [
        {
            "name": _cell(score.name),
            "label": _cell(score.label or ""),
            "n_samples": score.n_samples,
            "seconds": score.n_samples / sample_rate_hz,
            "bits": score.bits,
            "bits_per_sample": score.bits_per_sample,
            **{f"bits_per_sample of {name}": bits / score.n_samples for name, bits in score.baseline_bits.items()},
            "trained_on": _yes_or_no(score.trained_on),
        }
        for score in scores
    ]


def series_rows(scores: Sequence[SeriesScore]) -> list[Row]:
    """Return a row for each series."""

    def row(score: SeriesScore) -> Row:
        own = score.errors.as_dict()
        return {
            "name": _cell(score.name),
            "n_positions": score.errors.n_positions,
            **{key: own[key] for key in ("error", "next_value", "next_value_at_end")},
            **{f"error of {name}": errors.mean for name, errors in score.baselines.items()},
            "trained_on": _yes_or_no(score.trained_on),
        }

    return [row(score) for score in scores]


def csv_text(rows: Sequence[Row]) -> str:
    """Write a table with a heading, a line for each row (RFC 4180, with line feeds alone)."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cell(text: str) -> str:
    """Return a name on one line as text; what a spreadsheet would compute gets an apostrophe in front."""
    shown = printable(text)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def _yes_or_no(answer: bool | None) -> str:
    return "" if answer is None else str(answer).lower()
