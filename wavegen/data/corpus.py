"""A folder of recordings as clips: what is used, for what, under which label, and what is not and why."""

from __future__ import annotations

import codecs
import contextlib
import functools
import os
import posixpath
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from wavegen.audio.finding import READABLE, FoundAudio, find_audio, printable
from wavegen.audio.quantize import Classes, Quantizer
from wavegen.audio.signal import INAUDIBLE, Level
from wavegen.data.cache import ClipCache, ClipSettings, Progress, StoredClip
from wavegen.errors import DataError, UsageError

Split = Literal["train", "validation"]
Labels = Literal["none", "subfolders"]
Manifest = list[dict[str, Any]]

FEW_FILES = 10  # fewer are too few to hold out whole ones
TAIL = "#tail"  # marks the held-out end of a clip; no audio file's name ends so
MISSING_SECONDS = 0.1  # lossy formats claim some padding more than they hold
LOUD_PEAK = 1.25  # resampling and lossy formats overshoot by less
SHOWN = 5  # names or reasons in one message


class Stored(Protocol):
    """Where the whole of what a clip belongs to lies."""

    @property
    def peak(self) -> float:
        """The largest absolute value."""

    def classes(self) -> Any:
        """All of it: (T,) classes, or values of a series."""


@dataclass(frozen=True)
class Clip:
    """The audio of one file, or the first or last part of one, as classes; or so of a series, as values.

    Attributes:
        name: the file's path relative to the corpus folder, with forward slashes; `TAIL` marks a held-out end.
        n_samples: its length, 1 or more.
        label: what it is conditioned on, if anything.
        split: whether it is trained or validated on.
        content_hash: SHA-256 of the file.
        seconds: its length in the file, before trimming.
        stored: the whole file's classes in the cache, or the whole series.
        start: where the clip begins in them.
    """

    name: str
    n_samples: int
    label: str | None
    split: Split
    content_hash: str
    seconds: float
    stored: Stored
    start: int = 0

    def classes(self) -> Classes:
        """Map the (n_samples,) classes into memory, read-only; the file is open as long as the array lives.

        Those of a series are float64 values: see ``wavegen.data.series.values_of``.
        """
        classes: Classes = self.stored.classes()[self.start : self.start + self.n_samples]
        return classes

    def part(self, name: str, split: Split, start: int, stop: int) -> Clip:
        """The clip's samples from start to stop as a clip of their own."""
        seconds = self.seconds * (stop - start) / self.n_samples
        return Clip(name, stop - start, self.label, split, self.content_hash, seconds, self.stored, start)


@dataclass(frozen=True)
class Corpus:
    """All clips of a folder.

    Attributes:
        folder: where they come from.
        sample_rate_hz: rate of the clips.
        clips: sorted by name.
        unusable: (name, reason) of each file that is not used.
        shortened: (name, what) of each file of which only a part is used.
        n_ignored: entries of the folder that are plainly no audio.
        notes: sentences that the user should read.
    """

    folder: Path
    sample_rate_hz: int
    clips: tuple[Clip, ...]
    unusable: tuple[tuple[str, str], ...]
    shortened: tuple[tuple[str, str], ...]
    n_ignored: int
    notes: tuple[str, ...]

    @property
    def train(self) -> tuple[Clip, ...]:
        """The clips to train on."""
        return tuple(clip for clip in self.clips if clip.split == "train")

    @property
    def validation(self) -> tuple[Clip, ...]:
        """The held-out clips."""
        return tuple(clip for clip in self.clips if clip.split == "validation")

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, sorted; none where clips carry none."""
        return tuple(sorted({clip.label for clip in self.clips if clip.label is not None}))

    @property
    def n_samples(self) -> int:
        """Samples in all clips."""
        return sum(clip.n_samples for clip in self.clips)

    @property
    def minutes(self) -> float:
        """Length of all clips."""
        return self.n_samples / self.sample_rate_hz / 60

    def manifest(self) -> Manifest:
        """What a checkpoint remembers of the clips; `manifest_differences` finds what changed since."""
        return [
            {
                "name": clip.name,
                "n_samples": clip.n_samples,
                "content_hash": clip.content_hash,
                "split": clip.split,
                "label": clip.label,
            }
            for clip in self.clips
        ]


def by_content(clips: Sequence[Clip]) -> list[Clip]:
    """Clips in an order that does not depend on their names."""
    return sorted(clips, key=lambda clip: (clip.content_hash, clip.name))


def manifest_differences(before: Manifest, now: Manifest) -> list[str]:
    """Say how two manifests differ.

    Returns:
        A line for each clip that was added, removed, changed or moved; none if they agree.
    """
    old, new = ({clip["name"]: clip for clip in manifest} for manifest in (before, now))
    lines = []
    for name in sorted(old.keys() | new.keys()):
        where = printable(name)
        if name not in new:
            lines.append(f"removed: {where} ({old[name]['split']}, {old[name]['n_samples']:,} samples)")
            continue
        if name not in old:
            lines.append(f"added: {where} ({new[name]['split']}, {new[name]['n_samples']:,} samples)")
            continue
        was, is_ = old[name], new[name]
        if was["n_samples"] != is_["n_samples"]:
            lines.append(f"changed: {where}: {was['n_samples']:,} samples before, {is_['n_samples']:,} now")
        elif was["content_hash"] != is_["content_hash"]:
            lines.append(f"changed: {where}: other content of the same length")
        if was["split"] != is_["split"]:
            lines.append(f"moved: {where}: from {was['split']} to {is_['split']}")
        if was["label"] != is_["label"]:
            lines.append(f"relabelled: {where}: from {was['label']!r} to {is_['label']!r}")
    return lines


def build_corpus(
    folder: Path,
    *,
    sample_rate_hz: int,
    trim_db: float | None,
    level: Level,
    quantizer: Quantizer,
    validation: float | str | Path,
    labels: Labels,
    cache: ClipCache,
    progress: Progress | None = None,
) -> Corpus:
    """Scan a folder, decode what the cache lacks, split and label the clips.

    Args:
        folder: searched with all folders below it.
        sample_rate_hz: the model's rate.
        trim_db: silence this much below the loudest part is cut off at the ends; None keeps it.
        level: as `wavegen.audio.signal.set_level`.
        quantizer: the map to classes.
        validation: the share of clips to hold out, chosen by their content, so that adding or renaming files moves
            no other; or a folder whose clips are held out, inside `folder` or not; or a text file that names the
            held-out files of `folder`, one a line.
        labels: "subfolders" takes the first folder on the way to a file; "none" gives no labels.
        cache: where decoded clips are kept.
        progress: called with (files done, files in all).

    Raises:
        UsageError: the folder, or what `validation` names, does not exist.
        DataError: there is nothing to train on, or nothing to validate on where it was asked for by name.
    """
    held_out = None if isinstance(validation, int | float) else look_up(Path(validation), folder)
    files, unusable, n_ignored = list_files(folder, held_out)
    settings = ClipSettings(sample_rate_hz, trim_db, level, quantizer)
    outcomes = cache.prepare([file.path for file in files], settings, progress)
    unusable |= {file.name: why for file, why in zip(files, outcomes, strict=True) if isinstance(why, str)}
    whole = [
        Clip(
            name=file.name,
            n_samples=stored.n_samples,
            label=file.label if labels == "subfolders" else None,
            split=file.split,
            content_hash=stored.content_hash,
            seconds=stored.source_seconds,
            stored=stored,
        )
        for file, stored in zip(files, outcomes, strict=True)
        if not isinstance(stored, str)
    ]
    used = [file for file, stored in zip(files, outcomes, strict=True) if not isinstance(stored, str)]
    if not whole:
        raise DataError(_nothing_usable(folder, unusable, n_ignored))
    if isinstance(validation, int | float):
        clips, notes = hold_out_share(whole, validation)
    else:
        clips, notes = whole, []
        for split, text in (("train", "every usable file"), ("validation", "no usable file")):
            if not any(clip.split == split for clip in clips):
                raise DataError(
                    f"{printable(validation)}: holds out {text} of {printable(folder)}; see data.validation"
                )
    return Corpus(
        folder=folder,
        sample_rate_hz=sample_rate_hz,
        clips=tuple(clips),
        unusable=tuple(sorted(unusable.items())),
        shortened=tuple(
            (file.name, what)
            for file, stored in zip(files, outcomes, strict=True)
            if not isinstance(stored, str) and (what := _what_is_missing(stored))
        ),
        n_ignored=n_ignored,
        notes=(*notes, *(_loose_files(used) if labels == "subfolders" else []), *_warnings(clips, level)),
    )


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
            f"{printable(listing)}: {count_of(unknown, 'name')} not among the files of {printable(folder)}:"
            f" {first_few(map(printable, unknown))}"
        )
    return names


def hold_out_share(
    clips: Sequence[Clip], share: float, noun: str = "file", shortest: int = 1
) -> tuple[list[Clip], list[str]]:
    """Split by content: which side a file is on depends on nothing but its bytes.

    Args:
        clips: all of them.
        share: to hold out.
        noun: what a clip is.
        shortest: samples of the least part of a clip that is of use.

    Returns:
        The clips with their splits, and what the user should know of it.
    """
    if share == 0:
        figure = "bits/sample" if noun == "file" else "error"
        return list(clips), [f"Nothing is held out (data.validation is 0): there will be no held-out {figure}."]
    chosen = [int(clip.content_hash[:16], 16) / 2**64 < share for clip in clips]
    if len(clips) >= FEW_FILES and any(chosen) and not all(chosen):
        splits: list[Split] = ["validation" if held else "train" for held in chosen]
        return [replace(clip, split=split) for clip, split in zip(clips, splits, strict=True)], []
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


def _loose_files(files: Sequence[File]) -> list[str]:
    """What the user should know of files that lie beside the sub-folders, or in a folder without any."""
    loose: dict[str, list[str]] = {}
    for file in files:
        if file.is_loose:
            loose.setdefault(file.label, []).append(printable(file.name))
    return [
        f"{count_of(names, 'file')} in no sub-folder, which would be the label, and labelled with the folder's own"
        f" name, {printable(label)}: {first_few(names)}."
        for label, names in loose.items()
    ]


def _warnings(clips: Sequence[Clip], level: Level) -> list[str]:
    """What may be wrong with the clips although each can be used."""
    notes = []
    train = [clip for clip in clips if clip.split == "train"]
    held = [clip for clip in clips if clip.split == "validation" and not clip.name.endswith(TAIL)]
    trained_on = {clip.content_hash for clip in train}
    if copies := [printable(clip.name) for clip in held if clip.content_hash in trained_on]:
        notes.append(f"{count_of(copies, 'held-out file')} also trained on, byte for byte: {first_few(copies)}.")
    labels = {clip.label for clip in train}
    if strange := sorted({clip.label for clip in held if clip.label is not None and clip.label not in labels}):
        notes.append(
            f"{count_of(strange, 'label')} only held out, never trained on: {first_few(map(printable, strange))}."
        )
    if silent := [printable(clip.name) for clip in train if clip.stored.peak < INAUDIBLE]:
        notes.append(f"{count_of(silent, 'file')} silent from end to end: {first_few(silent)}.")
    if level == "keep" and (loud := [printable(clip.name) for clip in train if clip.stored.peak > LOUD_PEAK]):
        what = f"{count_of(loud, 'file')} louder than full scale and clipped (audio.level: peak avoids it)"
        notes.append(f"{what}: {first_few(loud)}.")
    return notes


def _what_is_missing(stored: StoredClip) -> str:
    """What of a file is not used; empty if all of it is."""
    what = []
    if stored.missing_seconds > MISSING_SECONDS:
        what.append(f"damaged or cut off: {stored.missing_seconds:.2f} s less than its header says")
    if stored.trimmed_seconds > 0:
        what.append(f"{stored.trimmed_seconds:.2f} s of silence trimmed")
    return ", ".join(what)


def _nothing_usable(folder: Path, unusable: dict[str, str], n_ignored: int) -> str:
    where = printable(folder)
    if not unusable:
        return (
            f"{where}: expected recordings ({', '.join(sorted(READABLE))}), found none;"
            f" {n_ignored} other entries were ignored"
        )
    reasons = [f"{printable(name)}: {reason}" for name, reason in sorted(unusable.items())]
    return f"{where}: none of the {len(reasons)} audio files can be used: {first_few(reasons)}"


def count_of(things: Sequence[str], noun: str) -> str:
    """How many things there are, up to the verb."""
    return f"1 {noun} is" if len(things) == 1 else f"{len(things)} {noun}s are"


def first_few(lines: Iterable[str]) -> str:
    """The first few, and how many more there are."""
    lines = list(lines)
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more
