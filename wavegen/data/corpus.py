"""A corpus: clips, what each is for and under which label, and what of the folder is not used and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from wavegen.audio.quantize import Classes
from wavegen.text import printable

Split = Literal["train", "validation"]
Manifest = list[dict[str, Any]]

TAIL = "#tail"  # marks the held-out end of a clip; no audio file's name ends so


class Stored(Protocol):
    """Where the whole of what a clip belongs to lies."""

    @property
    def n_samples(self) -> int:
        """Its length."""

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
