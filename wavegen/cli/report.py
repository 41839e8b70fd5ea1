"""`wavegen report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wavegen.cli.console import data_progress, print_notice
from wavegen.errors import UsageError
from wavegen.text import format_bytes, printable


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE.html", help="File to write.")] = "report.html",
    temperatures: Annotated[
        str, typer.Option(help="Sampling temperatures of the new samples, separated by commas.")
    ] = "0.95,1,1.05",
    sample_seconds: Annotated[float, typer.Option(help="Length of each new sample in seconds; 0 for none.")] = 4.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing page.")] = False,
) -> None:
    """Write an HTML page about a run: curves, auditions, new samples to play, and its configuration.

    wavegen report runs/my_recordings ; wavegen report runs/my_recordings -o page.html --temperatures 0.9,1
    """
    from wavegen.inspect.run import inspect_run
    from wavegen.output_file import check_writable
    from wavegen.report.page import write_page
    from wavegen.report.samples import SampleRequest
    from wavegen.runs.run_folder import is_run

    request = SampleRequest.parse(temperatures, sample_seconds)
    if not is_run(Path(run)):
        raise UsageError(f"expected a run folder, found none at {printable(run)}")
    check_writable(Path(output), overwrite, ending=".html")
    n_bytes = write_page(inspect_run(Path(run)), Path(output), request, data_progress("generating", "sample"))
    print_notice(f"written: {output}, {format_bytes(n_bytes)}")
