"""`wavegen cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wavegen.cli.console import print_notice, print_tables
from wavegen.errors import UsageError
from wavegen.text import format_bytes, pluralize, printable


def cache(
    folder: Annotated[str | None, typer.Argument(metavar="[DIR]", help="Folder of recordings.")] = None,
    free: Annotated[
        bool, typer.Option("--free", help="Delete the decoded audio of DIR; the next training decodes it again.")
    ] = False,
) -> None:
    """Show the disk space that decoded recordings take, in total and for one folder, or free it.

    wavegen cache ; wavegen cache my_recordings/ --free
    """
    from wavegen.data.cache import cache_bytes, cache_folder, cached_bytes_of, remove_unused
    from wavegen.report.tables import facts

    if folder is None and free:
        raise UsageError("--free: expected a folder of recordings, found none: wavegen cache DIR --free")
    if folder is not None and not Path(folder).is_dir():
        raise UsageError(f"{printable(folder)}: expected a folder of recordings, found none")
    place = cache_folder()
    if folder is not None and free:
        freed = remove_unused(place, Path(folder))
        print_notice(f"freed: {pluralize(freed.n_files, 'file')}, {format_bytes(freed.n_bytes)}")
        return
    cached = None if folder is None else cached_bytes_of(place, Path(folder))
    shown = None if cached is None else f"{pluralize(cached.n_files, 'file')}, {format_bytes(cached.n_bytes)}"
    print_tables([facts(printable(place), in_all=format_bytes(cache_bytes(place)), this_folder=shown)])
