"""Output files: checked before the work begins, then written whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from wavegen.errors import UsageError, WavegenError
from wavegen.text import describe_kind, printable


def check_writable(path: Path, overwrite: bool, *, ending: str | None = None, alternative: str = "") -> None:
    """Check that a file can be written, before the work for it begins.

    Args:
        path: of the file.
        overwrite: an existing file may be replaced.
        ending: that its name must have, with the dot.
        alternative: to suggest in the message where the path is not a regular file.

    Raises:
        UsageError: it has another ending, exists, is no file, or its folder is missing or cannot be written to.
    """
    if ending is not None and path.suffix.lower() != ending:
        raise UsageError(f"{printable(path)}: expected a name that ends in {ending}")
    try:
        has_folder, exists = path.parent.is_dir(), path.exists()
    except OSError as error:  # such as a name too long
        raise UsageError(f"{printable(path)}: cannot be written ({error.strerror})") from None
    if not has_folder:
        raise UsageError(f"{printable(path)}: the folder {printable(path.parent)} does not exist; make it first")
    if exists and not path.is_file():
        raise UsageError(f"{printable(path)}: expected a file to write, found {describe_kind(path)}{alternative}")
    if exists and not overwrite:
        raise already_exists(path)
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{printable(path)}: the folder {printable(path.parent)} cannot be written to")


def already_exists(path: Path) -> UsageError:
    """Return the error of a file that exists and is not to be replaced."""
    text = f"{printable(path)}: already exists; give another name, or {{overwrite}} to replace it"
    return UsageError(text, {"overwrite": True})


def write_output(path: Path, content: bytes) -> None:
    """Write a file as ``write_atomically``, with an error for users.

    Raises:
        WavegenError: it cannot be written; what was there before stays.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise WavegenError(f"{printable(path)}: cannot be written ({error.strerror})") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically, through a temporary one in its folder (``.NAME.*.tmp``, left only by a kill -9).

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if sys.platform != "win32":  # where folders cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the rename itself survives a power cut
        finally:
            os.close(folder)
