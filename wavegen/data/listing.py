"""The files of a corpus: which there are, what each is for, and its label."""

from __future__ import annotations

import codecs
import contextlib
import functools
import os
import posixpath
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

from wavegen.audio.finding import FoundAudio, find_audio
from wavegen.data.corpus import Split
from wavegen.errors import UsageError
from wavegen.text import list_first, pluralize, printable


@dataclass(frozen=True)
class File:
    """A file of a corpus: its name in it, where it lies, what it is for, and its label."""

    name: str
    path: Path
    split: Split
    label: str
    is_loose: bool  # in no sub-folder that could be its label


def list_files(
    folder: Path, held_out: Path | None, find: Callable[[Path], FoundAudio] = find_audio
) -> tuple[list[File], dict[str, str], int]:
    """Find the files to decode, the reasons why others are not, and how many are no audio.

    Args:
        folder: the corpus.
        held_out: a folder of validation files or a list of them.
        find: lists the files of a folder.
    """
    found = find(folder)
    unusable = dict(found.unusable)
    if held_out is None or not held_out.is_dir():
        listed = set() if held_out is None else _read_names(held_out, folder, {*found.names, *unusable})
        files = [
            File(name, folder / name, "validation" if name in listed else "train", *_label(name, folder))
            for name in found.names
        ]
        return files, unusable, found.n_ignored

    held_out_real = held_out.resolve()

    @functools.cache
    def is_held_out(inside: str) -> bool:
        return (folder / inside).resolve().is_relative_to(held_out_real)

    files = [
        File(name, folder / name, "train", *_label(name, folder))
        for name in found.names
        if not is_held_out(posixpath.dirname(name))
    ]
    held = find(held_out)
    prefix = os.path.relpath(held_out.absolute(), folder.absolute()).replace(os.sep, "/")
    # corpus/held_out/anna/1.wav is anna's, and so is corpus/anna/held_out/1.wav
    nested = not prefix.startswith("..") and "/" in prefix
    for name in held.names:
        full_name = posixpath.join(prefix, name)
        label = _label(full_name, folder) if nested else _label(name, held_out)
        files.append(File(full_name, held_out / name, "validation", *label))
    unusable |= {posixpath.join(prefix, name): reason for name, reason in held.unusable}
    n_ignored = found.n_ignored + (held.n_ignored if prefix.startswith("..") else 0)
    return sorted(files, key=lambda file: file.name), unusable, n_ignored


def _label(name: str, folder: Path) -> tuple[str, bool]:
    """The first folder on the way to a file, or the corpus folder's own name; and whether it is the latter."""
    first, slash, _ = name.partition("/")
    return (first, False) if slash else (folder.resolve().name, True)


def look_up(validation: Path, folder: Path) -> Path:
    """Find the folder or list of validation files: from the working directory, else from the corpus folder."""
    for path in (validation, folder / validation):
        with contextlib.suppress(OSError):  # a name too long to exist
            if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
                raise UsageError(f"data.validation: {printable(path)} holds the training folder itself")
            if path.is_dir() or path.is_file():
                return path
    raise UsageError(
        f"data.validation: expected a share, a folder or a list of files, found nothing at {printable(validation)},"
        f" here or in {printable(folder)}"
    )


def _read_names(listing: Path, folder: Path, known: Set[str]) -> set[str]:
    """Read a list of files of the corpus, one a line.

    Raises:
        UsageError: a file is not in the folder; the message names the first of them.
    """
    text = os.fsdecode(listing.read_bytes().removeprefix(codecs.BOM_UTF8))
    names = {posixpath.normpath(line.strip()) for line in text.split("\n") if line.strip()}
    if unknown := sorted(names - known):
        raise UsageError(
            f"{printable(listing)}: {pluralize(len(unknown), 'name is')} not among the files of {printable(folder)}:"
            f" {list_first(map(printable, unknown))}"
        )
    return names
