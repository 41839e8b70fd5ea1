"""`wavegen evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wavegen.cli import console
from wavegen.cli.console import Device, Json, Overwrite, Source, option
from wavegen.errors import UsageError
from wavegen.output_file import check_writable, write_output
from wavegen.report import Table, print_tables
from wavegen.text import guide, printable

if TYPE_CHECKING:
    from wavegen.api import TrainedModel
    from wavegen.audio.quantize import Floats
    from wavegen.evaluation.sample_statistics import RecordingStatistics
    from wavegen.report.scores import Document
    from wavegen.series.forecast import Forecaster


LIKELIHOOD, SAMPLES = "Likelihood and forecasts", "Sample statistics (--samples)"  # groups of options in --help
FILES_HELP = "Audio or series to score, or folders of either.  [default: the run's held-out data]"
LABEL_HELP = "Label of all files, or a mix such as a=0.7,b=0.3.  [default: the name of each file's folder]"
SAMPLES_HELP = "Compare the sound of new clips, or of the given files, with the run's recordings."
RECORDINGS_HELP = "Recordings to compare with; repeatable.  [default: those of the training]"
PLOT_HELP = "Plot spectrograms of ten clips next to recordings; of a series model its errors by steps ahead."
CSV_HELP = "Write one line per clip to a CSV file; - for standard output."


def evaluate(
    context: typer.Context,
    source: Source,
    audio: Annotated[list[str] | None, typer.Argument(metavar="FILE", help=FILES_HELP)] = None,
    label: Annotated[str | None, option(LIKELIHOOD, LABEL_HELP, metavar="NAME")] = None,
    summary: Annotated[bool, option(LIKELIHOOD, "Print only the figures of all clips together.", "--summary")] = False,
    test: Annotated[bool, option(LIKELIHOOD, "Score the test split of synthetic series.", "--test")] = False,
    samples: Annotated[bool, option(SAMPLES, SAMPLES_HELP, "--samples")] = False,
    clips: Annotated[int, option(SAMPLES, "Number of new clips.", min=1, max=500)] = 16,
    seconds: Annotated[float, option(SAMPLES, "Length of each new clip.")] = 10.0,
    recordings: Annotated[list[str] | None, option(SAMPLES, RECORDINGS_HELP, metavar="DIR|FILE")] = None,
    one_shot: Annotated[bool, option(SAMPLES, "End each new clip where its sound has faded.", "--one-shot")] = False,
    seed: Annotated[int, option(SAMPLES, "Random seed of the new clips.")] = 0,
    plot: Annotated[str | None, option(SAMPLES, PLOT_HELP, metavar="FILE.png")] = None,
    device: Device = "auto",
    as_json: Json = False,
    csv: Annotated[str | None, option("Output", CSV_HELP, metavar="FILE.csv")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Score a model on held-out audio or series, or by its samples. Baselines and impostors stand beside it.

    wavegen evaluate runs/my_recordings ; wavegen evaluate runs/my_recordings other.wav folder/ --csv scores.csv ;
    wavegen evaluate runs/my_recordings --samples --plot spectrograms.png
    """
    from wavegen import api
    from wavegen.evaluation.clips import load_unprepared

    if csv == "-" and as_json:
        raise UsageError("--csv - and --json: both go to standard output; give one of them, or a file")
    if csv is not None and csv != "-":
        check_writable(Path(csv), overwrite, ending=".csv")
    trained, paths = api.load(source, device), [Path(path) for path in audio or []]
    given, of_new_clips = console.given_options(context), {"clips", "seconds", "seed", "one_shot"}
    if plot is not None and (samples or trained.forecaster is not None):
        check_writable(Path(plot), overwrite, ending=".png")
    if samples:
        trained.check_sound("--samples")
        console.refuse(given & {"label", "summary", "test", "csv"}, "--samples")
        if paths:
            console.refuse(given & of_new_clips, "clips that are there already")
        compared_with = trained.clips.recording_statistics(
            console.data_progress(), console.print_notice, [Path(path) for path in recordings or []]
        )
        if paths:
            waveforms = load_unprepared(paths, trained.sample_rate_hz, console.print_notice)
        else:
            waveforms = _new_clips(trained, clips, seconds, seed, one_shot)
        _evaluate_samples(waveforms, compared_with, as_json, plot)
        return
    console.refuse(given & {"recordings"}, "bits/sample, only with --samples")
    if trained.forecaster is not None:
        console.refuse(given & {"label", *of_new_clips}, "a model of series")
        document, tables = _series_scores(trained.forecaster, paths, test, summary)
        if plot is not None:
            from wavegen.report.curves import draw_horizons

            draw_horizons(Path(plot), source, document)
            console.print_notice(f"written: {printable(plot)}")
    else:
        console.refuse(given & {*of_new_clips, "plot"}, "bits/sample, only with --samples")
        console.refuse(given & {"test"}, "a model of sound")
        document, tables = _sound_scores(trained, paths, label, summary)
    _write_scores(document, tables, as_json, csv)


def _evaluate_samples(
    waveforms: list[Floats], recordings: RecordingStatistics, as_json: bool, plot: str | None
) -> None:
    """Compare clips with recordings; print the figures, and draw them."""
    from wavegen.report.plots import draw_beside
    from wavegen.report.scores import compare_samples

    compared = compare_samples(recordings, waveforms)
    if as_json:
        console.print_json(compared.document())
    else:
        print_tables([compared.table(), compared.heard_table()])
    if plot is not None:
        draw_beside(Path(plot), waveforms, recordings.others, recordings.rate_hz)
        console.print_notice(f"written: {printable(plot)}")


def _new_clips(trained: TrainedModel, count: int, seconds: float, seed: int, one_shot: bool) -> list[Floats]:
    import numpy as np

    from wavegen.sampling.sampler import samples_in

    if warning := trained.undertrained_warning():
        console.print_notice(warning)
    if one_shot:
        return trained.generate_one_shots(seconds, count=count, seed=seed, notice=console.print_notice)
    blocks = []
    with console.ProgressBar("generating", count * samples_in(seconds, trained.sample_rate_hz), unit="sample") as bar:
        for block in trained.stream(seconds, count=count, seed=seed, notice=console.print_notice):
            blocks.append(block)
            bar.advance(block.size)
    return list(np.concatenate(blocks, axis=1))


def _sound_scores(
    trained: TrainedModel, paths: Sequence[Path], label: str | None, summary: bool
) -> tuple[Document, list[Table]]:
    """Score clips; return the document for --json and --csv, and the tables."""
    from wavegen.evaluation.scores import describe_gain, score_clips, with_shuffled_frames
    from wavegen.report.scores import clip_table, cost_table, label_tables, sound_document, summary_table

    if label is not None and not paths:
        raise UsageError("--label: expected AUDIO files to score; held-out clips have their own labels")
    if label is not None and not trained.labels:
        raise UsageError(f"--label: this model has no labels; leave it out, or see {guide('voices')}")
    progress = console.data_progress()
    weights = None if label is None else trained.generator.label_weights(label)
    loader, notice = trained.clips, console.print_notice
    clips = loader.load(paths, notice, weights, progress) if paths else loader.held_out(progress, notice)
    baselines = loader.fit_baselines(notice, progress)
    shuffled, gain = with_shuffled_frames(clips), None
    n_samples = sum(len(clip.classes) for clip in clips) * (1 if shuffled is None else 2)
    with console.ProgressBar("scoring", n_samples, unit="sample") as bar:
        scores = score_clips(trained.network, clips, trained.quantizer, baselines, bar.advance)
        if shuffled is not None:
            others = score_clips(trained.network, shuffled, trained.quantizer, None, bar.advance)
            saved = sum(other.bits - score.bits for other, score in zip(others, scores, strict=True))
            gain = saved / sum(score.n_samples for score in scores)
    rate, costs = trained.sample_rate_hz, trained.precision_costs
    parts = [] if summary else [*([clip_table(scores, rate)] if len(scores) > 1 else []), *label_tables(scores, rate)]
    document = sound_document(scores, rate, trained.quantizer, costs)
    tables = [*parts, summary_table(scores, rate, trained.quantizer)]
    if gain is not None:
        document["frames_gain"] = gain
        tables.append(Table("Frames", (), [("", describe_gain(gain))]))
    return document, [*tables, cost_table(costs)]


def _series_scores(
    forecaster: Forecaster, paths: Sequence[Path], test: bool, summary: bool
) -> tuple[Document, list[Table]]:
    """Score series; return the document for --json and --csv, and the tables."""
    from wavegen.evaluation.scores import loss_unit_of
    from wavegen.report.scores import series_document, series_tables
    from wavegen.series.scores import score_series

    series = forecaster.series_to_score(paths, test, console.print_notice)
    linear = forecaster.fit_linear_forecast(console.print_notice)
    with console.ProgressBar("scoring", None, unit="position") as bar:
        errors = forecaster.score_series(series, bar.advance)
    scores, loss_unit = score_series(series, errors, linear, forecaster.targets), loss_unit_of(forecaster.config)
    return series_document(scores, loss_unit), series_tables(scores, loss_unit, summary)


def _write_scores(document: Document, tables: Sequence[Table], as_json: bool, csv: str | None) -> None:
    """Write the CSV file, then print."""
    from wavegen.report.scores import csv_text

    if csv is not None and csv != "-":
        write_output(Path(csv), csv_text(document).encode())
        console.print_notice(f"written: {printable(csv)}")
    if csv == "-":
        typer.echo(csv_text(document), nl=False)
    elif as_json:
        console.print_json(document)
    else:
        print_tables(tables)
