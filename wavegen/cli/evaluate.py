"""`wavegen evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wavegen.cli.console import data_progress, print_json, print_notice, print_tables, shorten_path
from wavegen.cli.options import OUTPUT, Device, Json, Source, given_options, refuse
from wavegen.errors import UsageError

if TYPE_CHECKING:
    from wavegen.api import TrainedModel
    from wavegen.report.score_files import Document, Row
    from wavegen.report.tables import Table
    from wavegen.series.forecast import Forecaster


LIKELIHOOD, SAMPLES = "Likelihood and forecasts", "Sample statistics (--samples)"  # groups of options in --help


def evaluate(
    context: typer.Context,
    source: Source,
    audio: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="Audio or series to score, or folders of either.  [default: the run's held-out data]",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Label of all files, or a mix such as a=0.7,b=0.3.  [default: the name of each file's folder]",
            rich_help_panel=LIKELIHOOD,
        ),
    ] = None,
    summary: Annotated[
        bool,
        typer.Option("--summary", help="Print the figures of all clips together only.", rich_help_panel=LIKELIHOOD),
    ] = False,
    test: Annotated[
        bool,
        typer.Option(
            "--test",
            help="Score the test split of synthetic series.",
            rich_help_panel=LIKELIHOOD,
        ),
    ] = False,
    samples: Annotated[
        bool,
        typer.Option(
            "--samples",
            help="Compare the sound of new clips, or of the given files, with the run's recordings.",
            rich_help_panel=SAMPLES,
        ),
    ] = False,
    clips: Annotated[
        int, typer.Option("--clips", help="Number of new clips.", min=1, max=500, rich_help_panel=SAMPLES)
    ] = 16,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Length of each new clip.", rich_help_panel=SAMPLES)
    ] = 10.0,
    one_shot: Annotated[
        bool,
        typer.Option("--one-shot", help="End each new clip where its sound has faded.", rich_help_panel=SAMPLES),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the new clips.", rich_help_panel=SAMPLES)] = 0,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            metavar="FILE.png",
            help="Plot spectrograms of ten clips next to recordings.",
            rich_help_panel=SAMPLES,
        ),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
    csv: Annotated[
        str | None,
        typer.Option(
            "--csv",
            metavar="FILE.csv",
            help="Write one line per clip to a CSV file; - for standard output.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file of --csv or --plot.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Score a model on held-out audio or series, and compare it with trivial baselines.

    wavegen evaluate runs/my_recordings ; wavegen evaluate runs/my_recordings other.wav folder/ --csv scores.csv ;
    wavegen evaluate runs/my_recordings --samples --plot spectrograms.png
    """
    from wavegen.api import load
    from wavegen.output_file import check_writable

    if csv == "-" and as_json:
        raise UsageError("--csv - and --json: both go to standard output; give one of them, or a file")
    if csv is not None and csv != "-":
        check_writable(Path(csv), overwrite, ending=".csv")
    trained, paths = load(source, device), [Path(path) for path in audio or []]
    given = given_options(context)
    if samples:
        trained.check_sound("--samples")
        refuse(given & {"label", "summary", "test", "csv"}, set(), "--samples")
        if plot is not None:
            check_writable(Path(plot), overwrite, ending=".png")
        if paths:
            refuse(given & {"clips", "seconds", "seed", "one_shot"}, set(), "clips that are there already")
        target = None if plot is None else Path(plot)
        _evaluate_samples(trained, paths, clips, seconds, seed, one_shot, as_json, target)
        return
    refuse(given & {"clips", "seconds", "seed", "one_shot", "plot"}, set(), "bits/sample, only with --samples")
    if trained.forecaster is not None:
        allowed = {"source", "audio", "summary", "test", "device", "as_json", "csv", "overwrite"}
        refuse(given, allowed, "a model of series")
        document, tables, rows = _series_scores(trained.forecaster, paths, test, summary)
    else:
        refuse(given & {"test"}, set(), "a model of sound")
        document, tables, rows = _sound_scores(trained, paths, label, summary)
    _write_scores(document, tables, rows, as_json, csv)


def _evaluate_samples(
    trained: TrainedModel,
    paths: Sequence[Path],
    clips: int,
    seconds: float,
    seed: int,
    one_shot: bool,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Compare new clips, or those of files, with the training recordings; print and plot the statistics."""
    import numpy as np

    from wavegen.cli.progress import ProgressBar
    from wavegen.evaluation.clips import load_unprepared
    from wavegen.report.plots.audio import draw_beside
    from wavegen.report.scores import SampleComparison
    from wavegen.sampling.generator import samples_in

    progress = data_progress()
    recordings = trained.clips.recording_statistics(progress)
    if not paths and (warning := trained.undertrained_warning()):
        print_notice(warning)
    if paths:
        waveforms = load_unprepared(paths, trained.sample_rate_hz, print_notice)
    elif one_shot:
        waveforms = trained.generate_one_shots(seconds, count=clips, seed=seed, notice=print_notice)
    else:
        with ProgressBar("generating", clips * samples_in(seconds, trained.sample_rate_hz), unit="sample") as bar:
            blocks = []
            for block in trained.stream(seconds, count=clips, seed=seed, notice=print_notice):
                blocks.append(block)
                bar.move_to(bar.count + block.size)
        waveforms = list(np.concatenate(blocks, axis=1))
    compared = SampleComparison(recordings.figures(waveforms), recordings.references())
    if as_json:
        print_json(compared.document())
    else:
        print_tables([compared.table()])
    if plot is not None:
        draw_beside(plot, waveforms, recordings.others, trained.sample_rate_hz)
        print_notice(f"written: {shorten_path(str(plot))}")


def _sound_scores(
    trained: TrainedModel, paths: Sequence[Path], label: str | None, summary: bool
) -> tuple[Document, list[Table], list[Row]]:
    """Score clips; return the document for --json, the tables, and the rows for --csv."""
    from wavegen.cli.progress import ProgressBar
    from wavegen.evaluation.evaluation import score_clips
    from wavegen.report.score_files import sound_document, sound_rows
    from wavegen.report.scores import clip_table, cost_tables, label_tables, summary_table

    if label is not None and not paths:
        raise UsageError("--label: expected AUDIO files to score; held-out clips have their own labels")
    if label is not None and not trained.labels:
        raise UsageError("--label: this model has no labels; leave it out")
    progress = data_progress()
    weights = None if label is None else trained.generator.label_weights(label)
    loader = trained.clips
    clips = loader.load(paths, print_notice, weights, progress) if paths else loader.held_out(progress, print_notice)
    baselines = loader.fit_baselines(print_notice, progress)
    with ProgressBar("scoring", sum(len(clip.classes) for clip in clips), unit="sample") as bar:
        scores = score_clips(trained.network, clips, trained.quantizer, baselines, lambda n: bar.move_to(bar.count + n))
    rate, costs = trained.sample_rate_hz, trained.precision_costs
    parts = [] if summary else [*([clip_table(scores, rate)] if len(scores) > 1 else []), *label_tables(scores, rate)]
    return (
        sound_document(scores, rate, trained.quantizer, costs),
        [*parts, summary_table(scores, rate, trained.quantizer), *cost_tables(costs)],
        sound_rows(scores, rate),
    )


def _series_scores(
    forecaster: Forecaster, paths: Sequence[Path], test: bool, summary: bool
) -> tuple[Document, list[Table], list[Row]]:
    """Score series; return the document for --json, the tables, and the rows for --csv."""
    from wavegen.cli.progress import ProgressBar
    from wavegen.evaluation.loss_unit import loss_unit_of
    from wavegen.report.score_files import series_document, series_rows
    from wavegen.report.scores import series_tables
    from wavegen.series.scores import score_series

    series = forecaster.series_to_score(paths, test, print_notice)
    linear = forecaster.fit_linear_forecast(print_notice)
    with ProgressBar("scoring", None, unit="position") as bar:
        errors = forecaster.score_series(series, lambda n: bar.move_to(bar.count + n))
    scores = score_series(series, errors, linear, forecaster.config.output.horizon, forecaster.config.output.error)
    loss_unit = loss_unit_of(forecaster.config)
    return series_document(scores, loss_unit), series_tables(scores, loss_unit, summary), series_rows(scores)


def _write_scores(
    document: Document, tables: Sequence[Table], rows: Sequence[Row], as_json: bool, csv: str | None
) -> None:
    """Write the CSV file, then print."""
    from wavegen.output_file import write_output
    from wavegen.report.score_files import csv_text

    if csv is not None and csv != "-":
        write_output(Path(csv), csv_text(rows).encode())
        print_notice(f"written: {shorten_path(csv)}")
    if csv == "-":
        typer.echo(csv_text(rows), nl=False)
    elif as_json:
        print_json(document)
    else:
        print_tables(tables)
