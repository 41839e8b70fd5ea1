"""Whether a file may be written, looked at before any work is done for it."""

from __future__ import annotations

from pathlib import Path

from wavegen.audio.finding import printable, what_else
from wavegen.errors import UsageError


def check_writable(path: Path, overwrite: bool, otherwise: str = "") -> None:
    """Make sure that a file may be written.

    Args:
        path: of the file.
        overwrite: an existing file may be replaced.
        otherwise: what else to do where something that is no file is in the way.

    Raises:
        UsageError: it exists, is no file, or its folder is missing.
    """
    where = printable(path)
    try:
        if not path.parent.is_dir():
            raise UsageError(f"{where}: the folder {printable(path.parent)} does not exist; make it first")
        exists = path.exists()
    except OSError as error:  # such as a name too long
        raise UsageError(f"{where}: cannot be written ({error.strerror})") from None
    if exists and not path.is_file():
        raise UsageError(f"{where}: expected a file to write, found {what_else(path)}{otherwise}")
    if exists and not overwrite:
        raise already_there(where)


def already_there(where: str) -> UsageError:
    """The error of a file that exists, and is not to be replaced."""
    return UsageError(f"{where}: already exists; give another name, or --overwrite to replace it")
