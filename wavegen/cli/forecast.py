"""`wavegen forecast`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from wavegen.cli.console import print_notice
from wavegen.cli.options import Device, Source
from wavegen.errors import UsageError
from wavegen.text import pluralize, printable


def forecast(
    source: Source,
    series: Annotated[
        str, typer.Argument(metavar="FILE", help="Series to continue: .csv with one column per series, or .npy.")
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="FILE", help="File to write: .csv or .npy; - for CSV to standard output."
        ),
    ] = "forecast.csv",
    steps: Annotated[
        int | None,
        typer.Option(
            help="Values to forecast; those beyond the model's horizon build on forecasts.  [default: the horizon]"
        ),
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Forecast the next values of series of numbers.

    wavegen forecast runs/waves series.csv ; wavegen forecast runs/waves series.npy --steps 25 -o ahead.npy
    """
    from wavegen.api import load
    from wavegen.series.files import check_output, read_series, write_series

    check_output(output, overwrite)
    trained = load(source, device)
    if (forecaster := trained.forecaster) is None:
        raise UsageError("forecast: expected a model of series of numbers, found a model of sound")
    known = read_series(Path(series))
    if known.left_out:
        print_notice(f"{printable(series)}: columns without numbers are left out: {', '.join(known.left_out)}")
    forecasts = {name: forecaster.forecast(values, steps) for name, values in known.series.items()}
    write_series(output, forecasts, sys.stdout)
    where = "standard output" if output == "-" else printable(output)
    n_values = len(next(iter(forecasts.values())))
    print_notice(f"{where}: {pluralize(len(forecasts), 'series', 'series')}, the next {n_values:,} values of each")
