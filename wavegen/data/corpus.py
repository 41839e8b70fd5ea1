"""A corpus: its clips with their splits and labels, the files that are not used, and what a training saw of it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Classes
from wavegen.data.features import ClipFeatures
from wavegen.errors import DataError, UsageError, WavegenError
from wavegen.text import list_first, printable

Split = Literal["train", "validation"]
Manifest = list[dict[str, Any]]

Progress = Callable[[int, int], None]  # (done, in all)

TAIL = "#tail"  # marks the held-out end of a clip; no audio file's name ends so


@dataclass(frozen=True)
class StoredClip:
    """The classes of a whole file in the cache.

    Attributes:
        path: of the file that holds the classes and nothing else.
        dtype: of the classes, one or two bytes each.
        content_hash: SHA-256 of the audio file's bytes, in hexadecimal.
        n_samples: number of classes, 1 or more.
        source_seconds, missing_seconds, trimmed_seconds: as ``wavegen.audio.waveform.LoadedAudio``.
        peak: largest absolute amplitude before the level was set.
        warnings: as ``LoadedAudio``, a line each.
    """

    path: Path
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16]
    content_hash: str
    n_samples: int
    source_seconds: float
    missing_seconds: float
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


class CorpusItem(Protocol):
    """One item of a corpus: a clip, or a series of numbers."""

    @property
    def name(self) -> str:
        """Unique in its corpus."""

    @property
    def n_samples(self) -> int:
        """Number of samples, 1 or more."""

    @property
    def label(self) -> str | None:
        """The label that it is conditioned on, if any."""

    @property
    def split(self) -> Split:
        """The split: training or validation."""

    @property
    def content_hash(self) -> str:
        """SHA-256 of its content, in hexadecimal; that of the whole where it is a part."""

    def part(self, name: str, split: Split, start: int, stop: int) -> Self:
        """Return the samples from start to stop as an item of their own."""


Item = TypeVar("Item", bound=CorpusItem)


@dataclass(frozen=True)
class Clip:
    """The audio of one file, or the first or last part of one, as classes.

    Attributes:
        name: the file's path relative to the corpus folder, with forward slashes; `TAIL` marks a held-out end.
        n_samples: its length, 1 or more.
        label: what it is conditioned on, if anything.
        split: whether it is trained or validated on.
        content_hash: SHA-256 of the file.
        stored: the whole file's classes in the cache.
        start: where the clip begins in them.
        features: that it is conditioned on, if any.
    """

    name: str
    n_samples: int
    label: str | None
    split: Split
    content_hash: str
    stored: StoredClip
    start: int = 0
    features: ClipFeatures | None = None

    def classes(self) -> Classes:
        """Map the (n_samples,) classes into memory, read-only; the file is open as long as the array lives."""
        return self.stored.classes()[self.start : self.start + self.n_samples]

    def part(self, name: str, split: Split, start: int, stop: int) -> Clip:
        """Return the samples from start to stop as a clip; one with features begins and ends with a frame."""
        hop = 1 if self.features is None else self.features.hop_length
        start, stop = start - start % hop, stop if stop == self.n_samples else stop - stop % hop
        features = None if self.features is None else self.features.part(start, stop)
        return Clip(name, stop - start, self.label, split, self.content_hash, self.stored, start, features)


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


def by_content(clips: Sequence[Item]) -> list[Item]:
    """Sort clips by content, in an order that does not depend on their names."""
    return sorted(clips, key=lambda clip: (clip.content_hash, clip.name))


def manifest_differences(before: Manifest, now: Manifest) -> list[str]:
    """List the differences of two manifests.

    Returns:
        A line each for the clips that were added, removed, changed, moved or relabelled; none if they agree.
    """
    old, new = ({clip["name"]: clip for clip in manifest} for manifest in (before, now))
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(old.keys() | new.keys()):
        where = printable(name)
        if name not in old or name not in new:
            what, clip = ("removed", old[name]) if name in old else ("added", new[name])
            found[what].append(f"{where} ({clip['split']}, {clip['n_samples']:,} samples)")
            continue
        was, is_ = old[name], new[name]
        if was["n_samples"] != is_["n_samples"]:
            found["changed"].append(f"{where} ({was['n_samples']:,} samples before, {is_['n_samples']:,} now)")
        elif was["content_hash"] != is_["content_hash"]:
            found["changed"].append(f"{where} (other content of the same length)")
        if was.get("features") != is_.get("features"):
            found["changed"].append(f"{where} (other features)")
        if was["split"] != is_["split"]:
            found["moved"].append(f"{where} (from {was['split']} to {is_['split']})")
        if was["label"] != is_["label"]:
            found["relabelled"].append(f"{where} (from {was['label']!r} to {is_['label']!r})")
    return [
        f"{what}: {list_first(clips)}" if len(clips) == 1 else f"{len(clips):,} {what}: {list_first(clips)}"
        for what, clips in found.items()
    ]


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
        self._digests: dict[int, set[bytes]] = {}

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

    def _of_length(self, n_samples: int) -> set[bytes]:
        """Return digests of the files of a length, read on first use."""
        if n_samples not in self._digests:
            self._digests[n_samples] = {_digest(stored.classes()) for stored in self._by_length[n_samples]}
        return self._digests[n_samples]


def _hashes(manifest: Manifest, split: Split) -> set[str]:
    return {clip["content_hash"] for clip in manifest if clip["split"] == split}


def _digest(samples: npt.NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(samples).data).digest()
