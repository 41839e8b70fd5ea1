"""`wavegen forecast`, `wavegen export` and `wavegen bench`: what else can be done with a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wavegen.cli.console import (
    Device,
    Json,
    Overrides,
    Overwrite,
    Preset,
    Source,
    load_settings,
    option,
    print_json,
    print_notice,
)
from wavegen.device import processor_name
from wavegen.errors import UsageError
from wavegen.report import Table, facts, print_tables
from wavegen.text import format_bytes, format_duration, pluralize, printable

if TYPE_CHECKING:
    from wavegen.bench.rows import Row
    from wavegen.config import Config

SERIES_HELP = "Series to continue: .csv with one column per series, or .npy."
STEPS_HELP = "Values to forecast; those beyond the model's horizon build on forecasts.  [default: the horizon]"
HOLD_BACK_HELP = "Forecast this many last values of each series without seeing them."
FORECAST_PLOT_HELP = "Plot the series with their forecasts."
SERIES_OUTPUT_HELP = "File to write: .csv or .npy; - for CSV to standard output."
EXPORT_OUTPUT_HELP = "File to write: .safetensors for the weights, or .onnx for one sampling step."


def forecast(
    source: Source,
    series: Annotated[str, typer.Argument(metavar="FILE", help=SERIES_HELP)],
    output: Annotated[str, option("Output", SERIES_OUTPUT_HELP, "-o", "--output", metavar="FILE")] = "forecast.csv",
    steps: Annotated[int | None, option("Forecast", STEPS_HELP)] = None,
    hold_back: Annotated[int, option("Forecast", HOLD_BACK_HELP, min=0)] = 0,
    plot: Annotated[str | None, option("Output", FORECAST_PLOT_HELP, metavar="FILE.png")] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Forecast the next values of series of numbers.

    wavegen forecast runs/waves series.csv ; wavegen forecast runs/waves series.npy --steps 25 -o ahead.npy ;
    wavegen forecast runs/waves series.csv --hold-back 10 --plot ahead.png
    """
    from wavegen.api import load
    from wavegen.output_file import check_writable, write_output
    from wavegen.series.files import check_output, read_series, write_series

    check_output(output, overwrite)
    if plot is not None:
        check_writable(Path(plot), overwrite, ending=".png")
    trained = load(source, device)
    if (forecaster := trained.forecaster) is None:
        raise UsageError("forecast: expected a model of series of numbers, found a model of sound")
    known = read_series(Path(series))
    if known.left_out:
        print_notice(f"{printable(series)}: columns without numbers are left out: {', '.join(known.left_out)}")
    shortest = min(map(len, known.series.values()))
    if hold_back >= shortest:
        raise UsageError(f"--hold-back: expected less than the shortest series, {shortest:,} values, found {hold_back}")
    ahead = hold_back if hold_back and steps is None else steps
    forecasts = {
        name: forecaster.forecast(values[: len(values) - hold_back], ahead) for name, values in known.series.items()
    }
    write_series(output, forecasts, sys.stdout)
    if plot is not None:
        from wavegen.report.plots import to_png
        from wavegen.report.plots.recordings import forecast_figure

        heading = f"{printable(source)}: forecasts of {printable(series)}"
        write_output(Path(plot), to_png(forecast_figure(heading, known.series, forecasts, hold_back)))
        print_notice(f"written: {plot}")
    where = "standard output" if output == "-" else printable(output)
    n_values = len(next(iter(forecasts.values())))
    print_notice(f"{where}: {pluralize(len(forecasts), 'series', 'series')}, the next {n_values:,} values of each")


def export(
    source: Source,
    output: Annotated[str, option("Output", EXPORT_OUTPUT_HELP, "-o", "--output", metavar="FILE")],
    precision: Annotated[str, option("Output", "Precision of the weights: float32 or bfloat16.")] = "float32",
    overwrite: Overwrite = False,
) -> None:
    """Export a model for inference: its averaged weights, or one sampling step in ONNX.

    wavegen export runs/my_recordings -o model.safetensors --precision bfloat16 ;
    wavegen export runs/my_recordings -o step.onnx
    """
    from wavegen.output_file import check_writable, write_output
    from wavegen.runs.checkpoint import for_use, goes_to_onnx, load_checkpoint, save_checkpoint
    from wavegen.runs.run_folder import find_checkpoint
    from wavegen.sampling.onnx_step import onnx_step

    path = Path(output)
    to_onnx = goes_to_onnx(path, precision)
    check_writable(path, overwrite, ending=path.suffix)
    checkpoint = load_checkpoint(find_checkpoint(Path(source)))
    if to_onnx:
        write_output(path, onnx_step(checkpoint.average, checkpoint.config))
    else:
        save_checkpoint(for_use(checkpoint, precision), path)
    print_notice(f"written: {output}, {format_bytes(path.stat().st_size)}, averaged weights in {precision}")


def bench(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[RUN|CHECKPOINT]", help="Model to measure.  [default: a new one from --config]"),
    ] = None,
    config: Preset = None,
    overrides: Overrides = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure how fast this machine generates and trains: its CPU, and its GPU where it has one.

    wavegen bench ; wavegen bench runs/my_recordings --json ; wavegen bench --config gpu-small --device cuda
    """
    from wavegen.api import load
    from wavegen.bench.rows import measure

    if source is not None and (config is not None or overrides):
        raise UsageError("expected a run or a checkpoint, or --config and --set, found both; give one of them")
    trained = None if source is None else load(source, "cpu")
    settings = load_settings(config, list(overrides or [])) if trained is None else trained.config
    if settings.output.kind == "regression":
        raise UsageError("bench: expected a model of sound, found output.kind: regression")
    model = None if trained is None else trained.network
    machine, rows = measure(settings, model, device, print_notice)
    measured: list[Row] = []
    with suppress(KeyboardInterrupt):  # what was measured by then is printed
        measured.extend(rows)
    if as_json:
        print_json([vars(row) for row in measured])
        return
    limits = facts(
        f"One core of {processor_name()}",
        **{f"reads {name} weights": f"{rate / 1e9:.0f} GB/s" for name, rate in machine.bytes_per_second.items()},
        multiplies_and_adds=f"{2 * machine.multiply_adds_per_second / 1e9:.0f} GFLOP/s",
    )
    print_tables([limits, *_speed_tables(measured), *_length_of_training(settings, measured)])


def _length_of_training(settings: Config, rows: Sequence[Row]) -> list[Table]:
    """Say how long the configured number of steps takes in the fastest way that was measured."""
    from wavegen.training.compute import AUTO_TARGETS

    speeds = [row.samples_per_second for row in rows if row.work == "train"]
    training = settings.training
    if not speeds or training.steps is None:
        return []
    windows = training.batch_size
    targets = AUTO_TARGETS if windows == "auto" else windows * training.window_targets
    seconds = training.steps * targets / max(speeds)
    return [facts("wavegen train", steps=f"{training.steps:,}, about {format_duration(seconds)}")]


def _speed_tables(rows: Sequence[Row]) -> list[Table]:
    shared = ("", "precision", "batch", "threads")
    generating, training = [], []
    for row in rows:
        where = str(row.threads) if row.device == "cpu" else row.device
        cells = (row.engine, row.precision, str(row.batch), where, f"{row.samples_per_second:,.0f}")
        share = "" if row.share_of_limit is None else f"{100 * row.share_of_limit:.0f}%"
        if row.work == "generate":
            generating.append((*cells, f"{row.times_real_time:.2f}", share))
        else:
            memory = "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e9:.2f} GB"
            training.append((*cells, f"{row.input_steps_per_second or 0.0:,.0f}", share, memory))
    of_training = ("targets/s", "input steps/s", "of its matrix products", "memory")
    return [
        Table("Generating (medians)", (*shared, "samples/s", "x real time", "of the limit"), generating),
        Table("Training (medians)", (*shared, *of_training), training),
    ]
