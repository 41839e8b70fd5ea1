"""Conditioning: a bias that labels and frames add to the gates of every block.

    z = tanh(Wf * h + Vf c) . sigmoid(Wg * h + Vg c)           (WaveNet, section 2.5; Tamamori et al., 2017)

c is a label's embedding and a frame, one behind the other; a block without a gate has Vf alone. Conditions come
as a table of rows and, for each step, the row that it sees: V c is computed once for a row, not once for a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Floats = npt.NDArray[np.float32]
Rows = tuple[Floats | None, Floats | None, npt.NDArray[np.int64]]  # labels, frames, row_of of a sequence or a batch


class Condition(NamedTuple):
    """The conditions of a batch of sequences.

    Attributes:
        labels: (B, R, L) weights of the labels, or None.
        frames: (B, R, frame_channels) normalized frames, or None.
        row_of: (B, T) int64: which of the upsampling * R rows of its sequence each step sees.
    """

    labels: Tensor | None
    frames: Tensor | None
    row_of: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Rows], device: torch.device) -> Condition:
        """Batch the conditions of several sequences of equal length; their tables are padded to equal size.

        Args:
            sequences: (R, L) labels or None, (R, frame_channels) frames or None, (T,) row_of, of each.
            device: of the network.
        """

        def tables(arrays: Sequence[Floats | None]) -> Tensor | None:
            known = [torch.from_numpy(array) for array in arrays if array is not None]
            n_rows = max(map(len, known), default=0)
            padded = [F.pad(table, (0, 0, 0, n_rows - len(table))) for table in known]
            return torch.stack(padded).to(device) if padded else None

        labels, frames, row_of = zip(*sequences, strict=True)
        return cls(tables(labels), tables(frames), torch.from_numpy(np.stack(row_of)).to(device))


class GateBias(NamedTuple):
    """The gate bias: the values added to the filters and gates of all blocks.

    Attributes:
        table: (N, blocks, outputs of a convolution: 2 gate_channels, or gate_channels without gates).
        row_of: (T * B,) int64, which row of the table each time-major row of the network takes.
    """

    table: Tensor
    row_of: Tensor

    def of_block(self, block: int, n: int) -> Tensor:
        """Return the bias of one block's last n rows, (n, outputs of its convolution)."""
        return self.table[:, block].index_select(0, self.row_of[len(self.row_of) - n :])


class Conditioning(nn.Module):
    """Computes the gate bias of labels and frames.

    A new network's V is 0: it starts as if there were no conditions, and so does one that is fine-tuned from a network
    without them.

    Args:
        n_labels: labels, or 0.
        label_channels: numbers that describe a label.
        frame_channels: columns of a frame, such as mel bands; or 0.
        upsampling: rows that are made of a frame. More than 1 is a transposed convolution of that stride over twice
            as many steps, one for each column, which begins as linear interpolation.
        n_blocks: residual blocks.
        channels: that each block's convolution puts out: filter and gate, or one of them.
    """

    def __init__(
        self, n_labels: int, label_channels: int, frame_channels: int, upsampling: int, n_blocks: int, channels: int
    ) -> None:
        super().__init__()
        self.n_labels, self.frame_channels = n_labels, frame_channels
        self.upsampling, self.n_blocks = upsampling, n_blocks
        self.labels = nn.Parameter(torch.randn(n_labels, label_channels)) if n_labels else None
        learned = frame_channels and upsampling > 1
        self.interpolation = nn.Parameter(triangle(upsampling).repeat(frame_channels, 1)) if learned else None
        inputs = frame_channels + (label_channels if n_labels else 0)
        self.projection = nn.Parameter(torch.zeros(n_blocks * channels, inputs))

    def forward(self, condition: Condition) -> GateBias:
        """Compute V c for every row.

        Args:
            condition: of B sequences.

        Returns:
            Its table has upsampling * R rows for each sequence, one sequence behind the other.
        """
        parts = []
        if self.labels is not None and condition.labels is not None:
            parts.append(
                # (B, R, L) x (L, label_channels), then a row for each that a frame is made into
                (condition.labels.to(self.labels.dtype) @ self.labels).repeat_interleave(self.rows_per_frame, dim=1)
            )
        if condition.frames is not None:
            # (B, R, frame_channels) -> (B, upsampling R, frame_channels)
            parts.append(self.upsample(condition.frames.to(self.projection.dtype)))
        # c of every row: (B, rows, label_channels + frame_channels)
        rows = torch.cat(parts, dim=-1)
        batch, n_rows, channels = rows.shape
        # V c for all blocks at once: (B rows, channels) x (channels, blocks 2G) -> (B rows, blocks, 2G)
        table = F.linear(rows.reshape(-1, channels), self.projection).view(batch * n_rows, self.n_blocks, -1)
        # sequence b has the rows from b n_rows on; (B, T) -> (T, B) -> (T B,), time-major as the network's rows
        begins = n_rows * torch.arange(batch, device=condition.row_of.device)
        return GateBias(table, (condition.row_of + begins[:, None]).t().reshape(-1))

    @property
    def rows_per_frame(self) -> int:
        """Rows that are made of each row of a condition."""
        return self.upsampling if self.frame_channels else 1

    def upsample(self, frames: Tensor) -> Tensor:
        """Make several rows of each frame.

            y[f u + r] = sum_j w[u / 2 + r + (f - j) u] x[j],   u = upsampling,   j = f and its nearer neighbour

        Args:
            frames: (B, R, frame_channels).

        Returns:
            (B, upsampling * R, frame_channels).
        """
        if self.interpolation is None:
            return frames
        u, n_frames = self.upsampling, frames.shape[1]
        # (B, D, R) -> (B, D, u (R + 1)), each of the D columns by its own 2 u weights; the padding centres frames
        weights = self.interpolation[:, None]
        rows = F.conv_transpose1d(frames.mT, weights, stride=u, padding=u // 2, groups=self.frame_channels)
        return rows[:, :, : u * n_frames].mT


def triangle(upsampling: int) -> Tensor:
    """Return the weights of linear interpolation between the middles of frames, (2 upsampling,)."""
    place = torch.arange(2 * upsampling, dtype=torch.float32)
    middle = (upsampling - 1) / 2 + upsampling // 2
    return (1 - (place - middle).abs() / upsampling).clamp_min(0)
