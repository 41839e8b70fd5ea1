"""The gate bias of conditions while sampling, precomputed for many samples at once by matrix products."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wavegen.data.conditioning import ClipCondition

Array = npt.NDArray[Any]

BLOCK_ROWS = 512  # are made at once: a call to compute a few frames costs as much as for many
PRODUCT_ROWS = 64  # at most in one product: always as many, for a product's rounding depends on its shape
ON_ONE_CORE = 1 << 18  # multiply-adds of a product that numpy's matrix library does not spread over several cores


class Piece(NamedTuple):
    """A run of samples of all streams, and their gate bias.

    Attributes:
        n: samples.
        table: (tables, R, blocks, outputs of a convolution or the next multiple), C-contiguous.
        row_of: (n,) int64, which of the R rows each sample sees.
    """

    n: int
    table: Array
    row_of: npt.NDArray[np.int64]


class PrecomputedRows:
    """Precomputes the gate bias of several streams, block by block of frames.

    Args:
        weights: by `wavegen.model.wavenet.WaveNet`'s parameter names.
        conditions: of each stream, all of one model; streams with the same one share a table.
        multiple: of which a table's innermost size is one; the rest is 0.
    """

    def __init__(self, weights: Mapping[str, Array], conditions: Sequence[ClipCondition], multiple: int = 1) -> None:
        projection = weights["conditioning.projection"]
        n_blocks = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
        n_gates = len(projection) // n_blocks
        # (blocks 2G, channels) -> (channels, blocks, 2G) -> padded -> (blocks, channels, 2G): a product for each block
        by_block = projection.T.reshape(-1, n_blocks, n_gates)
        wide = np.pad(by_block, ((0, 0), (0, 0), (0, -n_gates % multiple)))
        self.projection = np.ascontiguousarray(wide.transpose(1, 0, 2))  # (blocks, channels, 2 gate_channels)
        self.product_rows = max(1, min(PRODUCT_ROWS, ON_ONE_CORE // (wide.shape[0] * wide.shape[2])))
        self.interpolation = weights.get("conditioning.interpolation")
        labels = weights.get("conditioning.labels")
        distinct = {id(condition): condition for condition in conditions}
        places = {key: i for i, key in enumerate(distinct)}
        self.table_of = np.array([places[id(condition)] for condition in conditions], np.int64)
        self.conditions = list(distinct.values())
        # (L,) weights of the labels x (L, label_channels)
        self.embedded = [None if labels is None else condition.label @ labels for condition in self.conditions]
        self.upsampling, self.hop = self.conditions[0].rows_per_frame, self.conditions[0].hop_length
        self.block_frames = max(1, BLOCK_ROWS // self.upsampling)
        self._block, self._table = -1, np.zeros((0, 0, 0, 0))

    def before(self) -> Array:
        """Return the gate bias up to the clips' first sample, (tables, blocks, outputs of a convolution)."""
        first: Array = self._table_at(0)[:, 0]
        return first

    def pieces(self, first: int, n: int) -> Iterator[Piece]:
        """Yield the samples first .. first + n - 1 in pieces, each within one block of frames."""
        if self.conditions[0].frames is None:
            yield Piece(n, self._table_at(0), np.zeros(n, np.int64))
            return
        length = self.block_frames * self.hop
        stop = first + n
        while first < stop:
            block, inside = divmod(first, length)
            samples = np.arange(inside, min(length, inside + stop - first))
            yield Piece(len(samples), self._table_at(block), samples * self.upsampling // self.hop)
            first += len(samples)

    def _table_at(self, block: int) -> Array:
        """Compute the rows of a block of frames; those of the last block are kept."""
        if block != self._block:
            self._table = np.stack([self._projected(self._rows(i, block)) for i in range(len(self.conditions))])
            self._block = block
        return self._table

    def _projected(self, rows: Array) -> Array:
        """Compute V c: (R, channels) -> (R, blocks, 2 gate_channels)."""
        n = self.product_rows
        # (R, channels) -> (parts, 1, n, channels), the last part padded: all products have one shape
        parts = np.pad(rows, ((0, -len(rows) % n), (0, 0))).reshape(-1, 1, n, rows.shape[1])
        projected: Array = (parts @ self.projection).transpose(0, 2, 1, 3)  # (parts, n, blocks, 2 gate_channels)
        return projected.reshape(-1, *projected.shape[2:])[: len(rows)]

    def _rows(self, i: int, block: int) -> Array:
        """Return the conditions of a block, (R, channels): a label's embedding, then a frame."""
        condition, label = self.conditions[i], self.embedded[i]
        if condition.frames is None:
            assert label is not None
            return np.asarray(label[None])
        begin = block * self.block_frames
        frames = self._upsampled(condition.padded_frames(begin, begin + self.block_frames))
        return frames if label is None else np.concatenate([np.repeat(label[None], len(frames), 0), frames], axis=1)

    def _upsampled(self, frames: Array) -> Array:
        """Make several rows of each frame but the first and the last, as ``wavegen.model.layers.Conditioning`` does."""
        inner = frames[1:-1]
        if self.interpolation is None:
            return inner
        weights = neighbour_weights(self.interpolation)
        # (R, 1, D) * (u, D): what each frame and its neighbours add to its u rows
        rows = weights[:, 0] * frames[:-2, None] + weights[:, 1] * inner[:, None] + weights[:, 2] * frames[2:, None]
        return np.asarray(rows.reshape(-1, frames.shape[1]))


def neighbour_weights(interpolation: Array) -> Array:
    """Write out the transposed convolution of ``wavegen.model.layers.Conditioning``.

        row r of frame f: x[f] w[r + u/2] + x[f -+ 1] w[r + u/2 +- u],   u = upsampling

    Args:
        interpolation: (D, 2 u) its weights w.

    Returns:
        (u, 3, D): for each row the weights of the frame before, of its own, and of the next; one neighbour's are 0.
    """
    u = interpolation.shape[1] // 2
    weights = np.zeros((u, 3, len(interpolation)), interpolation.dtype)
    for r in range(u):
        place = r + u // 2
        weights[r, 1] = interpolation[:, place]
        weights[r, 0 if place < u else 2] = interpolation[:, place + u if place < u else place - u]
    return weights
