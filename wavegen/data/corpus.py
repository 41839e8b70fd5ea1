"""A corpus: its clips with their splits and labels, the files that are not used, and what a training saw of it."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from wavegen.audio.frames import StoredFrames, map_array
from wavegen.audio.quantize import Classes
from wavegen.errors import DataError, UsageError, WavegenError
from wavegen.text import list_first, printable

Split = Literal["train", "validation"]
Manifest = list[dict[str, Any]]

Progress = Callable[[int, int], None]  # (done, in all)

FEW_FILES = 10  # fewer are too few to hold out whole ones
TAIL = "#tail"  # marks the held-out end of a clip; no audio file's name ends so


@dataclass(frozen=True)
class StoredClip:
    """The classes of a whole file in the cache.

    Attributes:
        path: of the file that holds the classes and nothing else.
        dtype: of the classes, one or two bytes each.
        content_hash: SHA-256 of the audio file's bytes, in hexadecimal.
        n_samples: number of classes, 1 or more.
        source_seconds, trimmed_seconds: as ``wavegen.audio.waveform.LoadedAudio``.
        peak: largest absolute amplitude before the level was set.
        warnings: as ``LoadedAudio``, a line each.
    """

    path: Path
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16]
    content_hash: str
    n_samples: int
    source_seconds: float
    trimmed_seconds: float
    peak: float
    warnings: str = ""

    def classes(self) -> Classes:
        """Map the classes into memory, read-only; the file stays open as long as the array lives.

        Returns:
            (n_samples,) uint8 or uint16.

        Raises:
            DataError: the cache was removed or changed since it was opened.
        """
        try:
            return np.asarray(np.memmap(self.path, self.dtype, mode="r", shape=(self.n_samples,)))
        except (OSError, ValueError) as error:
            # strerror is without the path, which the message begins with
            why = (error.strerror if isinstance(error, OSError) else None) or error
            raise DataError(
                f"{printable(self.path)}: this part of the cache is missing ({why}); start again to rebuild it"
            ) from error


@dataclass(frozen=True)
class ClipFeatures:
    """The features of a clip.

    Attributes:
        path: of the file, which may hold more than those of this clip.
        shape: of the file's array, (F, D) or (F,).
        content_hash: SHA-256 of the file's bytes, in hexadecimal.
        hop_length: samples of a frame.
        n_samples: of the clip.
        first: the clip's first frame.
    """

    path: Path
    shape: tuple[int, ...]
    content_hash: str
    hop_length: int
    n_samples: int
    first: int = 0

    @property
    def columns(self) -> int:
        """Columns D of a frame."""
        return columns_of(self.shape)

    def part(self, start: int, stop: int) -> ClipFeatures:
        """Return the features of the clip's samples from start, a multiple of the hop, to stop."""
        return replace(self, n_samples=stop - start, first=self.first + start // self.hop_length)

    def frames(self) -> StoredFrames:
        """Map the features into memory.

        Raises:
            DataError: the file was removed or changed since it was checked.
        """
        try:
            array = map_array(self.path)
        except ValueError as error:
            raise DataError(f"{printable(self.path)}: expected the features of before, found {error}") from None
        if array.shape != self.shape:
            raise DataError(f"{printable(self.path)}: expected the shape {self.shape} of before, found {array.shape}")
        stop = self.first + -(-self.n_samples // self.hop_length)
        frames = array.reshape(len(array), -1)[self.first : stop]
        return StoredFrames(frames, min(len(frames) * self.hop_length, self.n_samples))


def columns_of(shape: Sequence[int]) -> int:
    """Return the columns D of an array (F, D) or (F,)."""
    return shape[1] if len(shape) > 1 else 1


def features_path(recording: Path) -> Path:
    """Return the path of a recording's features."""
    return recording.with_suffix(".npy")


@dataclass(frozen=True)
class CorpusItem(ABC):
    """One item of a corpus: a clip, or a series of numbers.

    Attributes:
        name: unique in its corpus: a path relative to its folder, with forward slashes; `TAIL` marks a held-out end.
        n_samples: its length, 1 or more.
        label: what it is conditioned on, if anything.
        split: whether it is trained or validated on.
        content_hash: SHA-256 of its content, in hexadecimal; that of the whole where it is a part.
    """

    name: str
    n_samples: int
    label: str | None
    split: Split
    content_hash: str

    @abstractmethod
    def part(self, name: str, split: Split, start: int, stop: int) -> Self:
        """Return the samples from start to stop as an item of their own."""


Item = TypeVar("Item", bound=CorpusItem)


@dataclass(frozen=True)
class Clip(CorpusItem):
    """The audio of one file, or the first or last part of one, as classes.

    Attributes:
        stored: the whole file's classes in the cache.
        start: where the clip begins in them.
        features: that it is conditioned on, if any.
    """

    stored: StoredClip
    start: int = 0
    features: ClipFeatures | None = None

    def classes(self) -> Classes:
        """Map the (n_samples,) classes into memory, read-only; the file is open as long as the array lives."""
        return self.stored.classes()[self.start : self.start + self.n_samples]

    def part(self, name: str, split: Split, start: int, stop: int) -> Self:
        """Return the samples from start to stop as a clip; one with features begins and ends with a frame."""
        hop = 1 if self.features is None else self.features.hop_length
        start, stop = start - start % hop, stop if stop == self.n_samples else stop - stop % hop
        features = None if self.features is None else self.features.part(start, stop)
        return replace(self, name=name, n_samples=stop - start, split=split, start=start, features=features)


@dataclass(frozen=True)
class Corpus(Generic[Item]):
    """All clips of a folder, or all series of numbers.

    Attributes:
        folder: where they come from.
        clips: sorted by name.
        unusable: (name, reason) of each file that is not used.
        shortened: (name, reason) of each file of which only a part is used.
        notes: messages for the user.
    """

    folder: Path
    clips: tuple[Item, ...]
    unusable: tuple[tuple[str, str], ...] = ()
    shortened: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def train(self) -> tuple[Item, ...]:
        """The clips to train on."""
        return tuple(clip for clip in self.clips if clip.split == "train")

    @property
    def validation(self) -> tuple[Item, ...]:
        """The held-out clips."""
        return tuple(clip for clip in self.clips if clip.split == "validation")

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, sorted; none where clips carry none."""
        return tuple(sorted({clip.label for clip in self.clips if clip.label is not None}))

    def manifest(self) -> Manifest:
        """Return the manifest of the clips for checkpoints; ``manifest_differences`` finds later changes."""
        keys = ("name", "n_samples", "content_hash", "split", "label")
        return [
            {key: getattr(clip, key) for key in keys}
            | ({} if (known := getattr(clip, "features", None)) is None else {"features": known.content_hash})
            for clip in self.clips
        ]


def split_clips(
    clips: Sequence[Item], validation: float | str, folder: Path, noun: str = "file", shortest: int = 1
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


def by_content(clips: Sequence[Item]) -> list[Item]:
    """Sort clips by content, in an order that does not depend on their names."""
    return sorted(clips, key=lambda clip: (clip.content_hash, clip.name))


def manifest_differences(before: Manifest, now: Manifest) -> list[str]:
    """List the differences of two manifests.

    Returns:
        A line each for the clips that were added, removed or changed; none if they agree.
    """
    old, new = ({clip["name"]: clip for clip in manifest} for manifest in (before, now))
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(old.keys() | new.keys()):
        where = printable(name)
        if name not in old or name not in new:
            what, clip = ("removed", old[name]) if name in old else ("added", new[name])
            found[what].append(f"{where} ({clip['split']}, {clip['n_samples']:,} samples)")
        elif changes := _changes(old[name], new[name]):
            found["changed"].append(f"{where} ({'; '.join(changes)})")
    return [
        f"{what}: {list_first(clips)}" if len(clips) == 1 else f"{len(clips):,} {what}: {list_first(clips)}"
        for what, clips in found.items()
    ]


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs between two entries of manifests, key by key; of hashes only that they do."""
    hashes = {"content_hash": "other content", "features": "other features"}
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [hashes.get(key) or f"{key}: {before[key]!r} before, {now[key]!r} now" for key in keys]


# --- what a training saw -------------------------------------------------------------------------------------------


class TrainingClips:
    """The clips that a model was trained and validated on.

    Args:
        manifest: of the training's checkpoint; None for an exported model, which has no list of its clips.
        read_corpus: reads the training's folder, or generates its synthetic series.
    """

    def __init__(self, manifest: Manifest | None, read_corpus: Callable[[Progress | None], Corpus[Any]]) -> None:
        self.manifest, self._read_corpus = manifest, read_corpus
        self._corpus: Corpus[Any] | None = None

    def corpus(self, progress: Progress | None = None) -> Corpus[Any]:
        """Return the corpus of the training's folder as it is now; it is read at the first call.

        Raises:
            UsageError: the folder is not there.
            DataError: it holds nothing to train on.
        """
        if self._corpus is None:
            self._corpus = self._read_corpus(progress)
        return self._corpus

    def of_split(self, split: Split, progress: Progress | None = None) -> list[Any]:
        """Return the clips of a split that are unchanged since the training.

        Raises:
            DataError: there are none, or they are not there any more.
            UsageError: the model was exported, without a list of its clips.
        """
        if self.manifest is None:
            raise UsageError("an exported model has no list of its training and held-out clips; give files")
        known = _hashes(self.manifest, split)
        corpus = self.corpus(progress)
        clips = [clip for clip in corpus.clips if clip.split == split and clip.content_hash in known]
        if not clips:
            did = "held out" if split == "validation" else "used"
            raise DataError(f"{corpus.folder}: expected the clips that the training {did}, found none")
        return clips

    def index(self, progress: Progress | None = None) -> TrainingClipIndex:
        """Return the index of the clips that were trained on, by their samples where their folder is still there."""
        clips: Sequence[Clip] = ()
        if self.manifest is not None:
            with suppress(WavegenError):
                clips = self.corpus(progress).clips
        return TrainingClipIndex(self.manifest, clips)


class TrainingClipIndex:
    """An index of the training clips by content, because names and formats may change.

    Args:
        manifest: of a checkpoint; None for an exported model, which has no list.
        corpus: the training's clips as they are now; without them only files of identical bytes are found.
    """

    def __init__(self, manifest: Manifest | None, corpus: Iterable[Clip] = ()) -> None:
        self._is_known, self._hashes = manifest is not None, _hashes(manifest or [], "train")
        self._by_length: defaultdict[int, list[StoredClip]] = defaultdict(list)
        for clip in corpus:
            if clip.split == "train" and clip.content_hash in self._hashes:
                self._by_length[clip.stored.n_samples].append(clip.stored)
        self._of_length = functools.cache(self._read_length)

    def contains(self, content_hash: str, samples: npt.NDArray[Any]) -> bool | None:
        """Return whether a clip was trained on: a file of the same bytes, or one decoded to the same samples.

        None where that is not known.

        Args:
            content_hash: SHA-256 of the file; of a series, of its values.
            samples: (T,) of the whole file, as the network sees them.
        """
        if not self._is_known:
            return None
        if content_hash in self._hashes:
            return True
        alike = self._of_length(len(samples))
        return bool(alike) and _digest(samples) in alike

    def contains_held_out(self, name: str, content_hash: str, samples: npt.NDArray[Any]) -> bool | None:
        """Return whether a held-out clip was trained on under another name; the end of a file was not.

        Args:
            name: in the corpus.
            content_hash: as ``contains``.
            samples: as ``contains``.
        """
        return not name.endswith(TAIL) and self.contains(content_hash, samples)

    def _read_length(self, n_samples: int) -> set[bytes]:
        """Return digests of the files of a length."""
        return {_digest(stored.classes()) for stored in self._by_length[n_samples]}


def _hashes(manifest: Manifest, split: Split) -> set[str]:
    return {clip["content_hash"] for clip in manifest if clip["split"] == split}


def _digest(samples: npt.NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(samples).data).digest()
