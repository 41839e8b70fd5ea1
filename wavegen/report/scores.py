"""Scores, bits/sample, errors of forecasts and sample statistics: tables, documents for --json, tables for --csv."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wavegen.audio.quantize import Floats, Quantizer
from wavegen.evaluation.sample_statistics import Figure, Heard, RecordingStatistics, SampleFigures, measure_heard
from wavegen.evaluation.scores import FEWEST_SECONDS, Comparison, Estimate, LossUnit, Score, by_label, comparison, total
from wavegen.report import Table, first_rows
from wavegen.runs.run_folder import THIS_MODEL
from wavegen.series.scores import SeriesScore, all_series
from wavegen.series.scores import comparison as series_comparison
from wavegen.text import format_duration, pluralize, printable

MOST_SERIES = 20  # in a table
BEST_BASELINE = "best baseline"
SAMPLES = "these clips"
VOICED = 0.3  # recordings of which so many frames have a pitch are tones, of whatever kind
FORMULA = ("=", "+", "-", "@")  # a cell that begins so is computed by a spreadsheet
# columns of a CSV file, by their keys in a document, and the headings that are not the key
SOUND_KEYS = ("name", "label", "samples", "seconds", "bits", "bits_per_sample")
SERIES_KEYS = ("name", "positions", "error", "error_at_end", "next_value", "next_value_at_end")
HEADINGS = {"samples": "n_samples", "positions": "n_positions"}
MARGIN = "+-"
MARGIN_IN_WORDS = "+- is half of a 95% confidence interval over {}"

Text = Callable[[float | None], str]
Document = dict[str, Any]


def too_little_text(seconds: float | None) -> str:
    """Return a warning if a loss is of too little held-out audio; empty if it is enough or not known."""
    if seconds is None or seconds >= FEWEST_SECONDS:
        return ""
    return f"less than {FEWEST_SECONDS:.0f} s of audio: nothing follows from this figure"


def summary_table(scores: Sequence[Score], sample_rate_hz: int, quantizer: Quantizer) -> Table:
    """Return bits/sample of all clips together, the model above the trivial baselines."""
    seconds = total(scores).n_samples / sample_rate_hz
    clips = f"{pluralize(len(scores), 'clip')}, {format_duration(seconds)}"
    title = f"bits/sample of {clips}, {quantizer} (lower is better)"
    more = "; ".join(filter(None, [MARGIN_IN_WORDS.format("clips"), too_little_text(seconds)]))
    columns, rows = _compared(comparison(scores), "bits/sample", "this model minus it", _bits, _bits)
    return Table(title, columns, rows, more)


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


def cost_table(costs: Mapping[str, float]) -> Table:
    """Return the table of what each lower precision costs in sampling, if the training measured it."""
    rows = [(f"{name} weights", f"{round(cost, 4) + 0.0:+.4f}") for name, cost in costs.items()]
    return Table("bits/sample that a lower --precision of generate adds", (), rows)


def series_tables(scores: Sequence[SeriesScore], loss_unit: LossUnit, summary: bool) -> list[Table]:
    """Return the worst series, and the model above the trivial baselines on all series together."""
    everything = all_series(scores)
    models = [everything.errors, *everything.baselines.values()]
    horizon = len(everything.errors.by_horizon)
    heading = "all" if horizon == 1 else f"next {horizon}"
    columns, rows = _compared(series_comparison(scores), heading, "minus it", loss_unit.format, _rough)
    keys = {"at the end": "error_at_end"}
    if horizon > 1:
        keys = {"next value": "next_value", "at the end": "next_value_at_end", f"{heading} at the end": "error_at_end"}
    for row, errors in zip(rows, models, strict=True):
        row += [loss_unit.format(errors.as_dict()[key]) for key in keys.values()]
    together = Table(
        f"{loss_unit.name} of {len(scores):,} series, {everything.errors.n_positions:,} positions (lower is better)",
        (*columns, *keys),
        rows,
        MARGIN_IN_WORDS.format("series"),
    )
    if summary or len(scores) == 1:
        return [together]
    worst = []
    for score in sorted(scores, key=lambda score: -score.errors.mean):
        best = min(errors.mean for errors in score.baselines.values())
        figures = loss_unit.format(score.errors.mean), loss_unit.format(best)
        worst.append((printable(score.name), f"{score.errors.n_positions:,}", *figures))
    headings = ("series", "positions", THIS_MODEL, BEST_BASELINE)
    return [first_rows("Each series, the worst first", headings, worst, MOST_SERIES), together]


def _compared(
    compared: Comparison, heading: str, minus: str, figure: Text, margin: Text
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return columns and rows of the model and the trivial baselines, with their margins and the model minus each."""
    differences = [minus, MARGIN] if compared.minus else []

    def row(name: str, each: Estimate) -> list[str]:
        cells = [name, figure(each.figure), margin(each.margin)]
        if name in compared.minus:
            less = compared.minus[name]
            return [*cells, ("+" if less.figure > 0 else "") + figure(less.figure), margin(less.margin)]
        return [*cells, *("" for _ in differences)]

    rows = [row(name, each) for name, each in {THIS_MODEL: compared.model, **compared.baselines}.items()]
    return ("", heading, MARGIN, *differences), rows


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
        parts: of the clips' first and last 10 s, where they are long.
        heard: in the clips, and in the recordings.
    """

    samples: SampleFigures
    references: dict[str, SampleFigures]
    parts: dict[str, SampleFigures]
    heard: dict[str, Heard]

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
        rows = {SAMPLES: self.samples, **self.parts, **self.references}
        columns = ("", "score", "95% interval", "loud", "levels apart", "silent", "first sound", "centroid")
        return Table(
            f"Sample statistics of {pluralize(self.samples.n_clips, 'clip')}, {format_duration(self.samples.seconds)} "
            "(lower scores are better)",
            columns,
            [(name, *_cells(figures)) for name, figures in rows.items()],
            f"{self._way()}{self._lacks_voice()}",
        )

    def _way(self) -> str:
        if self.likeness is None:
            return "the recordings are too few or too uniform to compare with: an impostor scores as well"
        if self.likeness < 0:
            return "worse than the better impostor"
        return f"{100 * self.likeness:.0f}% of the way from the better impostor's score to the recordings'"

    def _lacks_voice(self) -> str:
        """Return a warning if the clips have a pitch for less than half as long as recordings that have one."""
        clips, recordings = (each.voiced for each in self.heard.values())
        surely = recordings.interval[0]
        if self.likeness is None or surely < VOICED or 2 * clips.interval[1] >= surely:
            return ""
        shares = f"{clips.value:.0%} of the frames have a pitch, of the recordings {recordings.value:.0%}"
        return f"; but {shares}: mostly noise"

    def heard_table(self) -> Table:
        """Return what is heard as a table, each figure with its 95% interval."""

        def row(name: str, unit: str, figures: Sequence[Figure | None], scale: float = 1, digits: int = 1) -> list[str]:
            cells = [name]
            for figure in figures:
                texts = [] if figure is None else [f"{scale * x:,.{digits}f}" for x in (figure.value, *figure.interval)]
                cells += [texts[0] + unit, " to ".join(texts[1:])] if texts else ["-", ""]
            return cells

        heard = self.heard.values()
        return Table(
            "What is heard",
            ("", *(cell for name in self.heard for cell in (name, "95% interval"))),
            [
                row("pitch", " Hz", [each.pitch_hz for each in heard], digits=0),
                row("voiced", "%", [each.voiced for each in heard], 100, 0),
                row("onsets a second", "", [each.onsets for each in heard]),
                row("pauses in 10 s", "", [each.pauses for each in heard]),
            ],
        )

    def document(self) -> dict[str, Any]:
        """Return the figures for ``--json``."""
        return {**asdict(self), "likeness": self.likeness}


def compare_samples(recordings: RecordingStatistics, clips: Sequence[Floats]) -> SampleComparison:
    """Compare clips with recordings.

    Args:
        recordings: their statistics.
        clips: (T,) waveforms at the recordings' rate.
    """
    heard = {
        name: measure_heard(some, recordings.rate_hz, recordings.loud_db)
        for name, some in ((SAMPLES, clips), ("recordings", recordings.others))
    }
    figures, parts = recordings.figures(clips), recordings.figures_of_ends(clips)
    return SampleComparison(figures, recordings.references(), parts, heard)


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


def csv_text(document: Document) -> str:
    """Return a table with a heading and a line for each clip or series of a document (RFC 4180, line feeds alone)."""
    is_sound = "classes" in document
    keys, figure = (SOUND_KEYS, "bits_per_sample") if is_sound else (SERIES_KEYS, "error")
    rows = []
    for clip in document["clips"]:
        row = {HEADINGS.get(key, key): _cell(clip[key]) for key in keys}
        for name, baseline in clip["baselines"].items():
            row[f"{figure} of {name}"] = baseline if is_sound else baseline[figure]
        rows.append({**row, "trained_on": _cell(clip["trained_on"])})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cell(value: object) -> object:
    """Return a value as a cell: text on one line, with an apostrophe before what a spreadsheet would compute."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value  # nothing is written for None
    shown = printable(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown
