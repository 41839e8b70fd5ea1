"""Find the audio files in a folder, and the reasons why others cannot be used."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

from wavegen.errors import DataError, UsageError
from wavegen.text import describe_kind, printable

# fmt: off
READABLE = frozenset((
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif", ".aiff",
    ".aifc", ".au", ".snd", ".caf", ".voc", ".sph", ".nist", ".sf", ".ircam", ".svx", ".8svx", ".paf", ".pvf",
))
NEEDS_CONVERSION = frozenset((
    ".m4a", ".m4b", ".aac", ".mp4", ".m4v", ".mov", ".wma", ".asf", ".webm", ".mka", ".mkv", ".avi", ".3gp", ".amr",
    ".ac3", ".eac3", ".dts", ".ape", ".wv", ".tta", ".mpc", ".alac", ".ra", ".rm", ".spx", ".gsm", ".dsf", ".dff",
))
# fmt: on
SERIES_ENDINGS = frozenset((".npy", ".csv"))  # series of numbers, see wavegen.series.files


@dataclass(frozen=True)
class FoundAudio:
    """The files in a folder. Names are relative to it, with forward slashes, sorted.

    Attributes:
        names: regular files with a wanted ending: for audio one that libsndfile reads.
        unusable: (name, reason) of entries that look like one, or like a folder, and cannot be used.
        n_ignored: number of all other entries: text, pictures, hidden files and hidden folders.
    """

    names: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...]
    n_ignored: int


def find_audio(folder: Path) -> FoundAudio:
    """List the audio files in a folder and all folders below; arguments and errors as ``find_files``."""
    return find_files(folder, READABLE, NEEDS_CONVERSION, "recordings")


def find_files(folder: Path, readable: Set[str], hopeless: Set[str], what: str) -> FoundAudio:
    """List the files of some endings in a folder and all folders below; no file is opened.

    Args:
        folder: to search.
        readable: endings of the files that are wanted, in lower case, with their dot.
        hopeless: endings of audio in formats that cannot be read.
        what: what the folder should hold, for errors.

    Links are followed. A folder that is reached twice, by a link or a loop of links, counts once, under its
    own name rather than the link's.

    Raises:
        UsageError: the folder does not exist or is something else.
        DataError: it cannot be listed.
    """
    where = printable(folder)
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except OSError as error:
        raise UsageError(f"{where}: expected a folder of {what}, found none ({error.strerror})") from error
    if not is_folder:
        raise UsageError(f"{where}: expected a folder of {what}, found a file")
    names: list[str] = []
    unusable: list[tuple[str, str]] = []
    n_ignored = 0
    visited: dict[tuple[int, int], str] = {}
    folders = [""]  # relative, each ending in a slash
    links: list[str] = []  # looked into after all real folders
    while folders or links:
        inside = folders.pop() if folders else links.pop(0)
        try:
            status = (folder / inside).stat()
            first = visited.setdefault((status.st_dev, status.st_ino), inside)
            if first != inside:
                known_as = "the folder itself" if first == "" else printable(first)
                unusable.append((inside, f"a link to a folder that is already in: {known_as}"))
                continue
            with os.scandir(folder / inside) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if inside == "":
                raise DataError(f"{where}: cannot be listed ({error.strerror})") from error
            unusable.append((inside, f"cannot be listed ({error.strerror})"))
            continue
        for entry in entries:
            name = inside + entry.name
            if entry.name.startswith("."):
                n_ignored += 1
            elif _is(entry.is_dir):
                (links if entry.is_symlink() else folders).append(name + "/")
            elif not _is(entry.is_file):
                unusable.append((name, describe_kind(folder / name)))
            elif suffix(entry.name) in readable:
                names.append(name)
            elif suffix(entry.name) in hopeless:
                unusable.append((name, ffmpeg_command(entry.name)))
            else:
                n_ignored += 1
    return FoundAudio(tuple(sorted(names)), tuple(sorted(unusable)), n_ignored)


def _is(kind: Callable[[], bool]) -> bool:
    """Return whether an entry is of a kind; a link to itself is of none."""
    try:
        return kind()
    except OSError:
        return False


def suffix(name: str) -> str:
    """Return a file name's ending in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (a scan of 10,000 names; a Path each costs more)


def ffmpeg_command(name: str) -> str:
    """Return the reason for a format that libsndfile lacks, and the command that converts it."""
    source = printable(name)
    target = printable(Path(name).with_suffix(".flac").name)
    return f"libsndfile cannot read this format; convert it: ffmpeg -i {shlex.quote(source)} {shlex.quote(target)}"
