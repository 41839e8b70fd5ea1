"""`wavegen inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wavegen.cli.console import data_progress, print_json, print_notice, print_tables
from wavegen.cli.options import Json
from wavegen.errors import UsageError


def inspect(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="A folder, a file of audio or series, a config, a checkpoint or a run; several runs to compare.",
        ),
    ],
    listen: Annotated[
        bool,
        typer.Option("--listen", help="Decode a folder's files: levels, clipping, silence, duplicates."),
    ] = False,
    as_json: Json = False,
    plot: Annotated[str | None, typer.Option(metavar="FILE.png", help="Draw a picture of it.")] = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE.html", help="Write a page about a run: curves, auditions, samples.")
    ] = None,
    temperatures: Annotated[str, typer.Option(help="Of the page's new samples.")] = "0.95,1,1.05",
    sample_seconds: Annotated[float, typer.Option(help="Length of each new sample; 0 for none.")] = 4.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing picture or page.")] = False,
    drop_cache: Annotated[
        bool, typer.Option("--drop-cache", help="Afterwards delete what was decoded from a folder's files.")
    ] = False,
) -> None:
    """Show what something is."""
    from wavegen.data.cache_index import cache_folder, remove_unused
    from wavegen.output_file import check_writable
    from wavegen.report.inspection import inspect_paths
    from wavegen.report.page import SampleRequest, check_page, write_page
    from wavegen.report.pictures import draw

    if drop_cache and (len(paths) != 1 or not Path(paths[0]).is_dir()):
        raise UsageError(f"--drop-cache: expected one folder of recordings, found {' '.join(paths)}")
    if plot is not None:
        check_writable(Path(plot), overwrite, ending=".png")
    request = SampleRequest.parse(temperatures, sample_seconds)
    if html is not None:
        check_page(paths, Path(html), overwrite)
    inspection = inspect_paths(paths, data_progress("reading"), hear=listen)
    if as_json:
        print_json(inspection.facts)
    else:
        print_tables(inspection.tables)
    if plot is not None:
        draw(inspection, Path(plot))
        print_notice(f"drawn: {plot}")
    if html is not None:
        n_bytes = write_page(inspection, Path(html), request, data_progress("generating", "sample"))
        print_notice(f"written: {html}, {n_bytes / 1e6:.1f} MB")
    if drop_cache:
        if inspection.kind != "folder":
            raise UsageError(f"--drop-cache: expected one folder of recordings, found {paths[0]}: a {inspection.kind}")
        dropped = remove_unused(cache_folder(), Path(paths[0]))
        print_notice(f"dropped from the cache: {dropped.n_files:,} files, {dropped.n_bytes / 1e6:.1f} MB")
