"""The files of a corpus, their splits and their labels."""

from __future__ import annotations

import codecs
import contextlib
import functools
import os
import posixpath
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from wavegen.audio.read import FoundAudio, find_audio
from wavegen.data.corpus import TAIL, Item, Split
from wavegen.errors import DataError, UsageError
from wavegen.text import list_first, pluralize, printable

FEW_FILES = 10  # fewer are too few to hold out whole ones


@dataclass(frozen=True)
class File:
    """A file of a corpus: its name, path, split and label."""

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


def folder_label(name: str, folder: Path) -> str:
    """Return a file's label: the first folder on the way to it, or else the name of the folder itself.

    Args:
        name: of the file, relative to the folder, with forward slashes.
        folder: that is searched.
    """
    first, slash, _ = name.partition("/")
    return first if slash else folder.resolve().name


def _label(name: str, folder: Path) -> tuple[str, bool]:
    return folder_label(name, folder), "/" not in name


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


def split_clips(
    clips: Sequence[Item], validation: float | str | Path, folder: Path, noun: str = "file", shortest: int = 1
) -> tuple[list[Item], list[str]]:
    """Hold out a share of the clips; or check that those held out by name are some of them, and not all.

    Args:
        clips: all of them, with their splits where these were given by name.
        validation: a share, or where the names came from.
        folder: of the corpus.
        noun: what a clip is.
        shortest: samples of the least part of a clip that is of use.

    Returns:
        The clips with their splits, and notes for the user.

    Raises:
        DataError: there is nothing to train on, or nothing to validate on where it was asked for by name.
    """
    if isinstance(validation, int | float):
        return _hold_out_share(clips, validation, noun, shortest)
    for split, text in (("train", f"every usable {noun}"), ("validation", f"no usable {noun}")):
        if not any(clip.split == split for clip in clips):
            raise DataError(f"{printable(validation)}: holds out {text} of {printable(folder)}; see data.validation")
    return list(clips), []


def _hold_out_share(clips: Sequence[Item], share: float, noun: str, shortest: int) -> tuple[list[Item], list[str]]:
    """Split by content: the split of a file depends on its bytes alone."""
    if share == 0:
        figure = "bits/sample" if noun == "file" else "error"
        return list(clips), [f"Nothing is held out (data.validation is 0): there will be no held-out {figure}."]
    chosen = [int(clip.content_hash[:16], 16) / 2**64 < share for clip in clips]
    if len(clips) >= FEW_FILES and any(chosen) and not all(chosen):
        splits: list[Split] = ["validation" if held else "train" for held in chosen]
        return [clip.part(clip.name, split, 0, clip.n_samples) for clip, split in zip(clips, splits, strict=True)], []
    parts, files = [], "series" if noun == "series" else f"{noun}s"
    for clip in clips:
        n_tail = min(max(shortest, round(share * clip.n_samples)), clip.n_samples - shortest)
        n_tail = n_tail if n_tail >= shortest else 0
        head = clip.n_samples - n_tail
        parts.append(clip.part(clip.name, "train", 0, head))
        if n_tail:
            parts.append(clip.part(clip.name + TAIL, "validation", head, clip.n_samples))
    why = (
        f"There are fewer than {FEW_FILES} usable {files}"
        if len(clips) < FEW_FILES
        else f"A share of {share:g} selects {'all' if all(chosen) else 'none'} of the {files}"
    )
    return parts, [f"{why}: the last {100 * share:.3g}% of each is held out instead of whole {files}."]
