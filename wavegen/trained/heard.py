"""What a training has heard, by its content: names change, and so do formats."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.data.corpus import TAIL, Clip, Manifest, Stored
from wavegen.evaluation.evaluation import ScoredClip
from wavegen.series.scores import ScoredSeries
from wavegen.text import list_first, pluralize, printable


class Heard:
    """The clips that a model was trained on.

    Args:
        manifest: of its checkpoint.
        corpus: the training's clips as they are now; without them only the very same bytes are known again.
    """

    def __init__(self, manifest: Manifest, corpus: Iterable[Clip] = ()) -> None:
        self._hashes = {clip["content_hash"] for clip in manifest if clip["split"] == "train"}
        self._by_length: defaultdict[int, list[Stored]] = defaultdict(list)
        for clip in corpus:
            if clip.split == "train" and clip.content_hash in self._hashes:
                self._by_length[clip.stored.n_samples].append(clip.stored)
        self._digests: dict[int, set[bytes]] = {}

    def has(self, content_hash: str, samples: npt.NDArray[Any]) -> bool:
        """Whether a clip was trained on: a file with the same bytes, or one that is decoded to the same samples.

        Args:
            content_hash: SHA-256 of the file; of a series, of its values.
            samples: (T,) of the whole file, as the network hears them.
        """
        if content_hash in self._hashes:
            return True
        alike = self._of_length(len(samples))
        return bool(alike) and _digest(samples) in alike

    def has_held_out(self, clip: Clip) -> bool:
        """Whether a held-out clip was trained on all the same, under another name; an end of a file was not."""
        return not clip.name.endswith(TAIL) and self.has(clip.content_hash, clip.classes())

    def _of_length(self, n_samples: int) -> set[bytes]:
        """Digests of the files of a length; they are read when the first clip of that length asks for them."""
        if n_samples not in self._digests:
            self._digests[n_samples] = {_digest(stored.classes()) for stored in self._by_length[n_samples]}
        return self._digests[n_samples]


def _digest(samples: npt.NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(samples).data).digest()


def warning(scored: Sequence[ScoredClip] | Sequence[ScoredSeries], noun: str, material: str) -> str | None:
    """What the user should know of clips that were trained on; None where there are none.

    Args:
        scored: all that is scored.
        noun: what they are, in the plural.
        material: what they are made of.
    """
    names = [printable(one.name) for one in scored if one.trained_on]
    if not names:
        return None
    what = f"{pluralize(len(names), f'of {len(scored):,} {noun} was', f'of {len(scored):,} {noun} were')} trained on"
    return f"{what}, and the figures are not of held-out {material}: {list_first(names)}"
