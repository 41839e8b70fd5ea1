"""The weights of the residual blocks as the fused products take them, and their gradients back again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F


class Widths(NamedTuple):
    """The widths of the matrix products.

    Attributes:
        depth: number of blocks.
        channels: between the blocks, padded.
        gates: of the filter, padded.
        parts: of a convolution's outputs: 2 for a filter and a gate, 1 without a gate.
        dtype: of the products.
    """

    depth: int
    channels: int
    gates: int
    parts: int
    dtype: torch.dtype


@dataclass(frozen=True)
class StackWeights:
    """A stack's weights as its products take them, channels padded to whole registers, or their gradients.

    P is 2 for a filter and a gate, 1 without a gate.

    Args:
        convolution: (PG, kernel_size C) for each block, a row of all taps for each output.
        bias: (N, PG) float32 for each block, what conditions add included: a row for each of theirs.
        residual: (C, G) for each block but the last.
        skip: (S, blocks G).
        skip_bias: (S,).
    """

    convolution: list[Tensor]
    bias: list[npt.NDArray[np.float32]]
    residual: list[Tensor]
    skip: Tensor
    skip_bias: Tensor

    @classmethod
    def of(cls, widths: Widths, table: Tensor, parameters: Sequence[Tensor]) -> StackWeights:
        """Take a model's parameters: all convolutions, all biases, all residuals, the skips' weight and bias.

        Args:
            widths: of the stack.
            table: (N, blocks, PG), what conditions add to the biases.
            parameters: of the model.
        """
        depth, channels, gates, parts, dtype = widths
        convolution, bias, residual = [], [], []
        for weight in parameters[:depth]:
            taps, outputs, inputs = weight.shape
            # (taps, PG, C) -> (taps, P, G, C) -> padded -> (P, G, taps, C) -> (PG, taps C): filter and gate are padded
            # each by itself, so that both begin at a whole register
            apart = weight.view(taps, parts, outputs // parts, inputs)
            padded = F.pad(apart, (0, channels - inputs, 0, gates - outputs // parts))
            convolution.append(padded.permute(1, 2, 0, 3).reshape(parts * gates, taps * channels).to(dtype))
        for weight, added in zip(parameters[depth : 2 * depth], table.float().unbind(dim=1), strict=True):
            # (PG,) + (N, PG) -> (N, P, G) -> padded -> (N, PG): a row of biases for each row of the conditions
            apart = (weight + added).view(len(added), parts, -1)
            bias.append(F.pad(apart, (0, gates - len(weight) // parts)).flatten(1).contiguous().numpy())
        for weight in parameters[2 * depth : -2]:
            # Wr: (C, G), padded with zeros, which add nothing
            outputs, inputs = weight.shape
            residual.append(F.pad(weight, (0, gates - inputs, 0, channels - outputs)).to(dtype))
        skips, skip_bias = parameters[-2:]
        # Ws: (S, blocks G) -> (S, blocks, G) -> padded -> (S, blocks G), in the layout of the blocks' padded z
        by_block = skips.view(len(skips), depth, -1)
        skip = F.pad(by_block, (0, gates - by_block.shape[2])).flatten(1)
        return cls(convolution, bias, residual, skip.to(dtype), skip_bias.to(dtype))

    def zeros(self) -> StackWeights:
        """Return zeros in float32, to sum gradients in."""
        return StackWeights(
            [torch.zeros(weight.shape) for weight in self.convolution],
            [np.zeros_like(weight) for weight in self.bias],
            [torch.zeros(weight.shape) for weight in self.residual],
            torch.zeros(self.skip.shape),
            torch.zeros(self.skip_bias.shape),
        )

    def table_gradient(self, widths: Widths, outputs: int) -> Tensor:
        """Return the gradient of the table that ``of`` took, (N, blocks, outputs of a convolution)."""
        # (N, PG) of each block -> (N, blocks, PG) -> (N, blocks, P, G) without the padding -> (N, blocks, outputs)
        totals = torch.stack([torch.from_numpy(total) for total in self.bias], dim=1)
        apart = totals.view(*totals.shape[:2], widths.parts, -1)[..., : outputs // widths.parts]
        return apart.flatten(2)

    def as_gradients(self, widths: Widths, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return gradients in the parameters' order and shapes; the inverse of ``of``."""
        depth, channels, gates, parts, _ = widths
        gradients = []
        for weight, total in zip(parameters, self.convolution, strict=False):
            taps, outputs, inputs = weight.shape
            # (PG, taps C) -> (P, G, taps, C) without the padding -> (taps, P, G, C) -> (taps, outputs, inputs)
            wide = total.view(parts, gates, taps, channels)[:, : outputs // parts, :, :inputs]
            gradients.append(wide.permute(2, 0, 1, 3).reshape(weight.shape))
        for weight, total_bias in zip(parameters[depth:], self.bias, strict=False):
            # A bias is in every row of the conditions: (N, PG) -> (PG,) -> without the padding
            summed = torch.from_numpy(total_bias).sum(dim=0)
            gradients.append(summed.view(parts, -1)[:, : len(weight) // parts].reshape(-1))
        for weight, total in zip(parameters[2 * depth :], self.residual, strict=False):
            # Wr's without the padding
            gradients.append(total[: weight.shape[0], : weight.shape[1]])
        # Ws: (S, blocks G) -> (S, blocks, G) without the padding -> (S, blocks G)
        own = parameters[-2].shape[1] // depth
        by_block = self.skip.view(len(self.skip), depth, gates)[:, :, :own]
        return [*gradients, by_block.reshape(parameters[-2].shape), self.skip_bias]
