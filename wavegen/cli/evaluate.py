"""`wavegen evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wavegen.cli.options import Device, Json, given_options, refuse
from wavegen.cli.saying import data_progress, notice, show
from wavegen.errors import UsageError

if TYPE_CHECKING:
    from wavegen.trained import TrainedModel


def evaluate(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run folder or a checkpoint.")],
    audio: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]...", help="Audio or series to score, or folders of it; else what the run held out."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of all AUDIO; or a mix a=0.7,b=0.3.  [default: the folder]"),
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Only all clips together.")] = False,
    test: Annotated[
        bool, typer.Option("--test", help="Score the made-up series that are neither trained on nor held out.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score audio in bits/sample, or forecasts of series, beside trivial baselines fitted on the training split."""
    from wavegen.evaluation.evaluation import score_clips, total
    from wavegen.report.scores import clip_table, cost_tables, summary_table
    from wavegen.report.terminal import ProgressBar
    from wavegen.trained import load

    trained = load(source, device)
    if trained.is_series:
        refuse(given_options(context), {"source", "audio", "summary", "test", "device", "as_json"}, "a model of series")
        _evaluate_series(trained, [Path(path) for path in audio or []], test, summary, as_json)
        return
    refuse(given_options(context) & {"test"}, set(), "a model of sound")
    if label is not None and not audio:
        raise UsageError("--label: expected AUDIO to score beside it; held-out clips have their own labels")
    if label is not None and not trained.labels:
        raise UsageError("--label: this model has no labels; leave it out")
    paths = [Path(path) for path in audio or []]
    clips = trained.read_all(paths, notice, label) if paths else trained.held_out(data_progress())
    baselines = trained.fit_baselines(notice, data_progress())
    with ProgressBar("scoring", sum(len(clip.classes) for clip in clips), unit="sample") as bar:
        scores = score_clips(trained.network, clips, trained.quantizer, baselines, lambda n: bar.move_to(bar.count + n))
    rate = trained.sample_rate_hz
    if as_json:
        costs = trained.precision_costs
        clip_scores = [score.as_dict(rate) for score in scores]
        sound = {"quantization": trained.quantizer.kind, "classes": trained.quantizer.classes}
        document = {**total(scores).as_dict(rate), **sound, "precision_costs": costs, "clips": clip_scores}
        typer.echo(json.dumps(document, indent=2))
    else:
        each = [] if summary or len(scores) == 1 else [clip_table(scores, rate)]
        show([*each, summary_table(scores, rate, trained.quantizer), *cost_tables(trained.precision_costs)])


def _evaluate_series(trained: TrainedModel, paths: list[Path], test: bool, summary: bool, as_json: bool) -> None:
    """Score a model of series."""
    from wavegen.evaluation.measure import measure_of
    from wavegen.evaluation.series import score_series
    from wavegen.report.scores import series_document, series_tables
    from wavegen.report.terminal import ProgressBar

    series = trained.series_to_score(paths, test, notice)
    linear = trained.fit_linear_forecast(notice)
    with ProgressBar("scoring", None, unit="position") as bar:
        errors = trained.score_series(series, lambda n: bar.move_to(bar.count + n))
    scores = score_series(series, errors, linear, trained.config.output.horizon, trained.config.output.error)
    measure = measure_of(trained.config)
    if as_json:
        typer.echo(json.dumps(series_document(scores, measure), indent=2))
    else:
        show(series_tables(scores, measure, summary))
