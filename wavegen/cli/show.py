"""`wavegen inspect`, `wavegen report`, `wavegen config` and `wavegen cache`: commands that show what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wavegen.cli.console import Json, Overwrite, data_progress, option, print_json, print_notice
from wavegen.errors import UsageError
from wavegen.report import Table, facts, print_tables
from wavegen.text import format_bytes, pluralize, printable

PATH_HELP = "Folder, audio or series file, config, checkpoint or run; several runs are compared."


def inspect(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help=PATH_HELP)],
    listen: Annotated[
        bool, option("Decoding", "Decode a folder's files to find clipping, silence and duplicates.", "--listen")
    ] = False,
    as_json: Json = False,
    plot: Annotated[str | None, option("Output", "Plot what is inspected into a PNG file.", metavar="FILE.png")] = None,
    overwrite: Overwrite = False,
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


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    output: Annotated[str, option("Output", "File to write.", "-o", "--output", metavar="FILE.html")] = "report.html",
    overwrite: Overwrite = False,
    temperatures: Annotated[
        str, option("New samples", "Sampling temperatures of the new samples, separated by commas.")
    ] = "0.95,1,1.05",
    sample_seconds: Annotated[float, option("New samples", "Length of each new sample in seconds; 0 for none.")] = 4.0,
) -> None:
    """Write an HTML page about a run: curves, auditions, new samples to play, and its configuration.

    wavegen report runs/my_recordings ; wavegen report runs/my_recordings -o page.html --temperatures 0.9,1
    """
    from wavegen.audio.read import is_run
    from wavegen.inspect.runs import inspect_run
    from wavegen.output_file import check_writable
    from wavegen.report.page import write_page
    from wavegen.report.samples import SampleRequest

    request = SampleRequest.parse(temperatures, sample_seconds)
    if not is_run(Path(run)):
        raise UsageError(f"expected a run folder, found none at {printable(run)}")
    check_writable(Path(output), overwrite, ending=".html")
    n_bytes = write_page(inspect_run(Path(run)), Path(output), request, data_progress("generating", "sample"))
    print_notice(f"written: {output}, {format_bytes(n_bytes)}")


def config(
    preset: Annotated[str | None, typer.Argument(metavar="[PRESET]", help="Preset to print.")] = None,
    schema: Annotated[bool, option("Output", "Print the JSON Schema, for editors.", "--schema")] = False,
) -> None:
    """List the presets, or print one to edit.

    wavegen config ; wavegen config small > my.yaml
    """
    from wavegen.config import json_schema, preset_summaries, preset_text

    if schema and preset is not None:
        raise UsageError("--schema: the schema is the same for all presets; leave out the preset or --schema")
    if schema:
        typer.echo(json.dumps(json_schema(), indent=2))
    elif preset is not None:
        typer.echo(preset_text(preset), nl=False)
    else:
        print_tables([Table("Presets: wavegen config NAME > my.yaml", (), list(preset_summaries().items()))])


def cache(
    folder: Annotated[str | None, typer.Argument(metavar="[DIR]", help="Folder of recordings.")] = None,
    free: Annotated[
        bool, option("Cache", "Delete the decoded audio of DIR; the next training decodes it again.", "--free")
    ] = False,
) -> None:
    """Show the disk space that decoded recordings take, in total and for one folder, or free it.

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
        print_notice(f"freed: {counted}")
    else:
        print_tables([facts(printable(place), in_all=format_bytes(cache_bytes(place)), this_folder=counted)])
