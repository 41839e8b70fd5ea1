"""The clips of a finished training: as its folder has them now, known again by their content."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.data.corpus import TAIL, Clip, Corpus, Manifest, Split, StoredClip
from wavegen.errors import DataError, UsageError, WavegenError

Progress = Callable[[int, int], None]


class TrainingClips:
    """The clips that a model was trained and validated on.

    Args:
        manifest: of the training's checkpoint; None of an exported model, which knows nothing of its clips.
        read_corpus: reads the training's folder, or generates its synthetic series.
    """

    def __init__(self, manifest: Manifest | None, read_corpus: Callable[[Progress | None], Corpus[Any]]) -> None:
        self.manifest, self._read_corpus = manifest, read_corpus
        self._corpus: Corpus[Any] | None = None

    def corpus(self, progress: Progress | None = None) -> Corpus[Any]:
        """Return what the training's folder holds now; it is read at the first call.

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
            raise UsageError("an exported model does not know what it was trained on or what was held out; give files")
        known = _hashes(self.manifest, split)
        corpus = self.corpus(progress)
        clips = [clip for clip in corpus.clips if clip.split == split and clip.content_hash in known]
        if not clips:
            did = "held out" if split == "validation" else "used"
            raise DataError(f"{corpus.folder}: expected the clips that the training {did}, found none")
        return clips

    def index(self, progress: Progress | None = None) -> TrainingClipIndex | None:
        """Return what tells clips that were trained on; None for an exported model, which does not know."""
        if self.manifest is None:
            return None
        try:
            return TrainingClipIndex(self.manifest, self.corpus(progress).clips)
        except WavegenError:
            return TrainingClipIndex(self.manifest)


class TrainingClipIndex:
    """Tells whether a clip was trained on, by its content: names change, and so do formats.

    Args:
        manifest: of a checkpoint.
        corpus: the training's clips as they are now; without them only the very same bytes are known again.
    """

    def __init__(self, manifest: Manifest, corpus: Iterable[Clip] = ()) -> None:
        self._hashes = _hashes(manifest, "train")
        self._by_length: defaultdict[int, list[StoredClip]] = defaultdict(list)
        for clip in corpus:
            if clip.split == "train" and clip.content_hash in self._hashes:
                self._by_length[clip.stored.n_samples].append(clip.stored)
        self._digests: dict[int, set[bytes]] = {}

    def contains(self, content_hash: str, samples: npt.NDArray[Any]) -> bool:
        """Return whether a clip was trained on: a file of the same bytes, or one decoded to the same samples.

        Args:
            content_hash: SHA-256 of the file; of a series, of its values.
            samples: (T,) of the whole file, as the network sees them.
        """
        if content_hash in self._hashes:
            return True
        alike = self._of_length(len(samples))
        return bool(alike) and _digest(samples) in alike

    def contains_held_out(self, name: str, content_hash: str, samples: npt.NDArray[Any]) -> bool:
        """Return whether a held-out clip was trained on under another name; the end of a file was not.

        Args:
            name: in the corpus.
            content_hash: as ``contains``.
            samples: as ``contains``.
        """
        return not name.endswith(TAIL) and self.contains(content_hash, samples)

    def _of_length(self, n_samples: int) -> set[bytes]:
        """Return digests of the files of a length, read when the first clip of that length asks for them."""
        if n_samples not in self._digests:
            self._digests[n_samples] = {_digest(stored.classes()) for stored in self._by_length[n_samples]}
        return self._digests[n_samples]


def file_hash(path: Path) -> str:
    """Return a file's SHA-256, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _hashes(manifest: Manifest, split: Split) -> set[str]:
    return {clip["content_hash"] for clip in manifest if clip["split"] == split}


def _digest(samples: npt.NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(samples).data).digest()
