"""The shorter commands: `wavegen inspect`, `report`, `config`, `cache`, `forecast`, `export` and `bench`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wavegen.cli import console
from wavegen.cli.console import Device, Json, Overrides, Overwrite, Preset, Source, option
from wavegen.device import processor_name
from wavegen.errors import ParameterError, UsageError
from wavegen.output_file import check_writable, write_output
from wavegen.report import Table, facts, print_tables
from wavegen.text import format_bytes, format_duration, pluralize, printable

if TYPE_CHECKING:
    from wavegen.bench import Machine, Row
    from wavegen.config import Config

PATH_HELP = "Folder, audio or series file, config, checkpoint or run; several runs are compared."
SERIES_HELP = "Series to continue: .csv with one column per series, or .npy."
STEPS_HELP = "Values to forecast; those beyond the model's horizon build on forecasts.  [default: the horizon]"
HOLD_BACK_HELP = "Forecast this many last values of each series without seeing them."
SERIES_OUTPUT_HELP = "File to write: .csv or .npy; - for CSV to standard output."
EXPORT_OUTPUT_HELP = "File to write: .safetensors for the weights, or .onnx for one sampling step."


def inspect(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help=PATH_HELP)],
    listen: Annotated[
        bool, option("Decoding", "Decode a folder's files to find clipping, silence and duplicates.", "--listen")
    ] = False,
    as_json: Json = False,
    plot: Annotated[str | None, option("Output", "Plot what is inspected into a PNG file.", metavar="FILE.png")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Describe recordings, a config, a model or a run. Several runs are compared.

    wavegen inspect my_recordings/ --listen ; wavegen inspect runs/one runs/other --plot both.png
    """
    from wavegen.inspect import as_dict, inspect_paths
    from wavegen.report.inspected import draw, tables_of

    if plot is not None:
        check_writable(Path(plot), overwrite, ending=".png")
    found = inspect_paths(paths, console.data_progress("reading"), decode=listen)
    if as_json:
        console.print_json(as_dict(found))
    else:
        print_tables(tables_of(found))
    if plot is not None:
        draw(found, Path(plot))
        console.print_notice(f"written: {plot}")


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    output: Annotated[str, option("Output", "File to write.", "-o", "--output", metavar="FILE.html")] = "report.html",
    overwrite: Overwrite = False,
    temperatures: Annotated[
        str, option("New samples", "Sampling temperatures of the new samples, separated by commas.")
    ] = "0.95,1,1.05",
    sample_seconds: Annotated[float, option("New samples", "Length of each new sample in seconds; 0 for none.")] = 4.0,
) -> None:
    """Write an HTML page about a run. It has curves, auditions, new samples to play, and the configuration.

    wavegen report runs/my_recordings ; wavegen report runs/my_recordings -o page.html --temperatures 0.9,1
    """
    from wavegen.audio.read import is_run
    from wavegen.inspect.runs import inspect_run
    from wavegen.report.page import build_page

    if not is_run(Path(run)):
        raise UsageError(f"expected a run folder, found none at {printable(run)}")
    check_writable(Path(output), overwrite, ending=".html")
    numbers = _parse_temperatures(temperatures)
    if not 0 <= sample_seconds <= 60:
        raise ParameterError("sample_seconds", f"expected 0 to 60, found {sample_seconds:g}")
    progress = console.data_progress("generating", "sample")
    page = build_page(inspect_run(Path(run)), numbers, sample_seconds, progress).encode()
    write_output(Path(output), page)
    console.print_notice(f"written: {output}, {format_bytes(len(page))}")


def _parse_temperatures(text: str) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = [-1.0]
    if not all(0 <= number < float("inf") for number in numbers):
        raise ParameterError("temperatures", f"expected numbers, 0 or more, such as 0.7,1; found '{text}'")
    return numbers


def config(
    preset: Annotated[str | None, typer.Argument(metavar="PRESET", help="Preset to print.")] = None,
    schema: Annotated[bool, option("Output", "Print the JSON Schema, for editors.", "--schema")] = False,
) -> None:
    """List the presets, or print one to edit.

    wavegen config ; wavegen config small > my.yaml
    """
    from wavegen.config import all_preset_names, json_schema, preset_summaries, preset_text

    if schema and preset is not None:
        raise UsageError("--schema: the schema is the same for all presets; leave out the preset or --schema")
    if schema:
        typer.echo(json.dumps(json_schema(), indent=2))
    elif preset is not None:
        typer.echo(preset_text(preset), nl=False)
    else:
        kinds = ", ".join(name.removeprefix("textbook/") for name in all_preset_names() if "/" in name)
        rows = [*preset_summaries().items(), ("textbook/NAME", f"forecasters of number series to compare: {kinds}")]
        print_tables([Table("Presets: wavegen config NAME > my.yaml", (), rows)])


def cache(
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="Folder of recordings.")] = None,
    free: Annotated[
        bool, option("Cache", "Delete the decoded audio of DIR; the next training decodes it again.", "--free")
    ] = False,
) -> None:
    """Show or free the disk space of decoded recordings. Without DIR it shows the total.

    wavegen cache ; wavegen cache my_recordings/ --free
    """
    from wavegen.data.cache import cache_bytes, cache_folder, cached_bytes_of, remove_unused

    if folder is None and free:
        raise UsageError("--free: expected a folder of recordings, found none: wavegen cache DIR --free")
    if folder is not None and not Path(folder).is_dir():
        raise UsageError(f"{printable(folder)}: expected a folder of recordings, found none")
    place = cache_folder()
    if folder is None:
        print_tables([facts(printable(place), in_all=format_bytes(cache_bytes(place)))])
        return
    found = (remove_unused if free else cached_bytes_of)(place, Path(folder))
    counted = f"{pluralize(found.n_files, 'file')}, {format_bytes(found.n_bytes)}"
    if free:
        console.print_notice(f"freed: {counted}")
    else:
        print_tables([facts(printable(place), in_all=format_bytes(cache_bytes(place)), this_folder=counted)])


def forecast(
    source: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="Run folder or checkpoint file, of series.")],
    series: Annotated[str, typer.Argument(metavar="FILE", help=SERIES_HELP)],
    output: Annotated[str, option("Output", SERIES_OUTPUT_HELP, "-o", "--output", metavar="FILE")] = "forecast.csv",
    steps: Annotated[int | None, option("Forecast", STEPS_HELP)] = None,
    hold_back: Annotated[int, option("Forecast", HOLD_BACK_HELP, min=0)] = 0,
    plot: Annotated[str | None, option("Output", "Plot the series with their forecasts.", metavar="FILE.png")] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Forecast the next values of series of numbers.

    wavegen forecast runs/waves series.csv ; wavegen forecast runs/waves series.npy --steps 25 -o ahead.npy ;
    wavegen forecast runs/waves series.csv --hold-back 10 --plot ahead.png
    """
    from wavegen.api import load
    from wavegen.series.files import check_output, read_series, write_series

    check_output(output, overwrite)
    if plot is not None:
        check_writable(Path(plot), overwrite, ending=".png")
    trained = load(source, device)
    if (forecaster := trained.forecaster) is None:
        raise UsageError("forecast: expected a model of series of numbers, found a model of sound")
    known = read_series(Path(series))
    if known.left_out:
        console.print_notice(f"{printable(series)}: columns without numbers are left out: {', '.join(known.left_out)}")
    shortest = min(map(len, known.series.values()))
    if hold_back >= shortest:
        raise UsageError(f"--hold-back: expected less than the shortest series, {shortest:,} values, found {hold_back}")
    ahead = hold_back if hold_back and steps is None else steps
    forecasts = {
        name: forecaster.forecast(values[: len(values) - hold_back], ahead) for name, values in known.series.items()
    }
    write_series(output, forecasts, sys.stdout)
    if plot is not None:
        from wavegen.report.curves import forecast_figure
        from wavegen.report.plots import encode

        heading = f"{printable(source)}: forecasts of {printable(series)}"
        write_output(Path(plot), encode(forecast_figure(heading, known.series, forecasts, hold_back)))
        console.print_notice(f"written: {plot}")
    where = "standard output" if output == "-" else printable(output)
    counted, n_values = pluralize(len(forecasts), "series", "series"), len(next(iter(forecasts.values())))
    console.print_notice(f"{where}: {counted}, the next {n_values:,} values of each")


def export(
    source: Source,
    output: Annotated[str, option("Output", EXPORT_OUTPUT_HELP, "-o", "--output", metavar="FILE")],
    precision: Annotated[str, option("Output", "Precision of the weights: float32 or bfloat16.")] = "float32",
    overwrite: Overwrite = False,
) -> None:
    """Export a model for inference. It has the averaged weights, or one sampling step in ONNX.

    wavegen export runs/my_recordings -o model.safetensors --precision bfloat16 ;
    wavegen export runs/my_recordings -o step.onnx
    """
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
    console.print_notice(f"written: {output}, {format_bytes(path.stat().st_size)}, averaged weights in {precision}")


def bench(
    source: Annotated[
        str | None,
        typer.Argument(metavar="RUN|CHECKPOINT", help="Model to measure.  [default: a new one from --config]"),
    ] = None,
    config: Preset = None,
    overrides: Overrides = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure how fast this machine generates and trains. A GPU is measured too, where there is one.

    wavegen bench ; wavegen bench runs/my_recordings --json ; wavegen bench --config gpu-small --device cuda
    """
    from wavegen.api import load
    from wavegen.bench import measure

    if source is not None and (config is not None or overrides):
        raise UsageError("expected a run or a checkpoint, or --config and --set, found both; give one of them")
    trained = None if source is None else load(source, "cpu")
    settings = console.load_settings(config, list(overrides or [])) if trained is None else trained.config
    if settings.output.kind == "regression":
        raise UsageError("bench: expected a model of sound, found output.kind: regression")
    model = None if trained is None else trained.network
    machine, rows = measure(settings, model, device, console.print_notice)
    measured: list[Row] = []
    try:
        measured.extend(rows)
    finally:  # after Ctrl-C what was measured by then
        _print_speeds(settings, machine, measured, as_json)


def _print_speeds(settings: Config, machine: Machine, measured: Sequence[Row], as_json: bool) -> None:
    if as_json:
        console.print_json([vars(row) for row in measured])
        return
    limits = facts(
        f"One core of {processor_name()}",
        **{f"reads {name} weights": f"{rate / 1e9:.0f} GB/s" for name, rate in machine.bytes_per_second.items()},
        multiplies_and_adds=f"{2 * machine.multiply_adds_per_second / 1e9:.0f} GFLOP/s",
    )
    training = facts("wavegen train", steps=_length_of_training(settings, measured))
    print_tables([training, limits, *_speed_tables(measured)])


def _length_of_training(settings: Config, rows: Sequence[Row]) -> str | None:
    """Return how long the configured number of steps takes in the fastest way that was measured."""
    from wavegen.training.compute import AUTO_TARGETS

    speeds = [row.samples_per_second for row in rows if row.work == "train"]
    training = settings.training
    if not speeds or training.steps is None:
        return None
    windows = training.batch_size
    targets = AUTO_TARGETS if windows == "auto" else windows * training.window_targets
    seconds = training.steps * targets / max(speeds)
    return f"{training.steps:,}, about {format_duration(seconds)}"


def _speed_tables(rows: Sequence[Row]) -> list[Table]:
    shared = ("", "precision", "batch", "threads")
    generating, training = [], []
    for row in rows:
        where = str(row.threads) if row.device == "cpu" else row.device
        cells = (row.engine, row.precision, str(row.batch), where, f"{row.samples_per_second:,.0f}")
        if row.work == "generate":
            share = "" if row.share_of_limit is None else f"{100 * row.share_of_limit:.0f}%"
            generating.append((*cells, f"{row.times_real_time:.2f}", share))
        else:
            memory = "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e9:.2f} GB"
            training.append((*cells, f"{row.input_steps_per_second or 0.0:,.0f}", memory))
    return [
        Table("Generating (medians)", (*shared, "samples/s", "x real time", "of the limit"), generating),
        Table("Training (medians)", (*shared, "targets/s", "input steps/s", "memory"), training),
    ]
