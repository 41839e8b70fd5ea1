"""`wavegen inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wavegen.cli.app import Command
from wavegen.cli.console import data_progress, print_json, print_notice, print_tables
from wavegen.cli.options import Json
from wavegen.errors import UsageError

MOVED = {  # options of earlier versions, and the commands that replace them
    "--html": "wavegen report RUN -o FILE.html",
    "--temperatures": "wavegen report RUN --temperatures 0.95,1",
    "--sample-seconds": "wavegen report RUN --sample-seconds 4",
    "--drop-cache": "wavegen cache DIR --free",
}


class InspectCommand(Command):
    """Names the new command of an option that has moved."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse moved options before the others are parsed."""
        for argument in args:
            option = argument.partition("=")[0]
            if option in MOVED:
                raise UsageError(f"{option}: this option has moved; use: {MOVED[option]}")
        return super().parse_args(ctx, args)


def inspect(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Folder, audio or series file, config, checkpoint or run; several runs are compared.",
        ),
    ],
    listen: Annotated[
        bool,
        typer.Option("--listen", help="Decode a folder's files to find clipping, silence and duplicates."),
    ] = False,
    as_json: Json = False,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE.png", help="Plot what is inspected into a PNG file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file of --plot.")] = False,
) -> None:
    """Describe recordings, a config, a checkpoint or a run, or compare several runs.

    wavegen inspect my_recordings/ --listen ; wavegen inspect runs/one runs/other --plot both.png
    """
    from wavegen.inspect import inspect_paths
    from wavegen.output_file import check_writable
    from wavegen.report.inspected import draw, tables_of

    if plot is not None:
        check_writable(Path(plot), overwrite, ending=".png")
    found = inspect_paths(paths, data_progress("reading"), decode=listen)
    if as_json:
        print_json(found.as_dict())
    else:
        print_tables(tables_of(found))
    if plot is not None:
        draw(found, Path(plot))
        print_notice(f"written: {plot}")
