"""What conditions add to the gates while sampling: computed ahead for many samples at once, by matrix products."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wavegen.audio.conditions import ClipCondition

Array = npt.NDArray[Any]

BLOCK_ROWS = 64  # a product's rounding depends on its shape: all have the same, and a chunk's length changes nothing


class Piece(NamedTuple):
    """Some samples of all streams, and what is added to their gates.

    Attributes:
        n: samples.
        table: (tables, R, blocks, outputs of a convolution or the next multiple), C-contiguous.
        row_of: (n,) int64, which of the R rows each sample sees.
    """

    n: int
    table: Array
    row_of: npt.NDArray[np.int64]


class RowsAhead:
    """The rows of several streams.

    Args:
        weights: by `wavegen.model.wavenet.WaveNet`'s parameter names.
        conditions: of each stream, all of one model; streams with the same one share a table.
        multiple: of which a table's innermost size is one; the rest is 0.
    """

    def __init__(self, weights: Mapping[str, Array], conditions: Sequence[ClipCondition], multiple: int = 1) -> None:
        projection = weights["conditioning.projection"]
        n_blocks = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
        n_gates = len(projection) // n_blocks
        by_block = projection.T.reshape(-1, n_blocks, n_gates)
        wide = np.pad(by_block, ((0, 0), (0, 0), (0, -n_gates % multiple)))
        self.shape = wide.shape[1:]  # blocks, outputs of a convolution
        self.projection = wide.reshape(len(wide), -1)
        self.interpolation = weights.get("conditioning.interpolation")
        labels = weights.get("conditioning.labels")
        distinct = {id(condition): condition for condition in conditions}
        places = {key: i for i, key in enumerate(distinct)}
        self.table_of = np.array([places[id(condition)] for condition in conditions], np.int64)
        self.conditions = list(distinct.values())
        self.embedded = [None if labels is None else condition.label @ labels for condition in self.conditions]
        self.upsampling, self.hop = self.conditions[0].rows_per_frame, self.conditions[0].hop_length
        self.block_frames = max(1, BLOCK_ROWS // self.upsampling)
        self._block, self._table = -1, np.zeros((0, 0, 0, 0))

    def before(self) -> Array:
        """What is added before clips begin, and at their first sample: (tables, blocks, outputs of a convolution)."""
        first: Array = self._table_at(0)[:, 0]
        return first

    def pieces(self, first: int, n: int) -> Iterator[Piece]:
        """The samples first .. first + n - 1, in pieces whose rows are made by one product."""
        if self.conditions[0].frames is None:
            yield Piece(n, self._table_at(0), np.zeros(n, np.int64))
            return
        length = self.block_frames * self.hop
        stop = first + n
        while first < stop:
            block, inside = divmod(first, length)
            samples = np.arange(inside, min(length, inside + stop - first))
            yield Piece(len(samples), self._table_at(block), samples // (self.hop // self.upsampling))
            first += len(samples)

    def _table_at(self, block: int) -> Array:
        """The rows of a block of frames; of the last one that was asked for they are kept."""
        if block != self._block:
            tables = [self._rows(i, block) @ self.projection for i in range(len(self.conditions))]
            self._block, self._table = block, np.stack(tables).reshape(len(tables), -1, *self.shape)
        return self._table

    def _rows(self, i: int, block: int) -> Array:
        """The conditions of a block, (R, channels): a label's embedding, then a frame."""
        condition, label = self.conditions[i], self.embedded[i]
        if condition.frames is None:
            assert label is not None
            return np.asarray(label[None])
        begin = block * self.block_frames
        frames = self._upsampled(condition.padded_frames(begin, begin + self.block_frames))
        return frames if label is None else np.concatenate([np.repeat(label[None], len(frames), 0), frames], axis=1)

    def _upsampled(self, frames: Array) -> Array:
        """Make several rows of each frame but the first and the last, as ``wavegen.model.conditioning`` does."""
        inner = frames[1:-1]
        if self.interpolation is None:
            return inner
        u = self.upsampling
        rows = np.empty((len(inner), u, frames.shape[1]), self.interpolation.dtype)
        for r in range(u):
            place = r + u // 2
            nearer, at = (frames[:-2], place + u) if place < u else (frames[2:], place - u)
            rows[:, r] = inner * self.interpolation[:, place] + nearer * self.interpolation[:, at]
        return rows.reshape(-1, frames.shape[1])
