"""Where a picture or a page is written: looked at before the work, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from wavegen.atomic import write_atomically
from wavegen.audio.finding import printable, suffix
from wavegen.audio.target import check_writable
from wavegen.errors import UsageError, WavegenError


def check_target(path: Path, ending: str, overwrite: bool) -> None:
    """Make sure that a file may be written, before hours are spent on what goes into it.

    Args:
        path: of the file.
        ending: that its name must have, with the dot.
        overwrite: an existing file may be replaced.

    Raises:
        UsageError: it has another ending, exists, is no file, or its folder is missing or cannot be written to.
    """
    where = printable(path)
    if suffix(path.name) != ending:
        raise UsageError(f"{where}: expected a name that ends in {ending}")
    check_writable(path, overwrite)
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{where}: the folder {printable(path.parent)} cannot be written to")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as `wavegen.atomic.write_atomically`.

    Raises:
        WavegenError: it cannot be written; what was there before stays.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise WavegenError(f"{printable(path)}: cannot be written ({error.strerror})") from None
