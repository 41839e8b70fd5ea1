"""The WaveNet as textbooks write it: Conv1d on (B, C, T), one layer after another. A yardstick, not for use.

It computes the same function as ``WaveNet`` from the same weights. The tests compare the two, and ``wavegen
bench`` measures how much faster ``WaveNet`` is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavegen.model.layers import CausalConv, Condition
from wavegen.model.wavenet import WaveNet


class TextbookBlock(nn.Module):
    """A residual block (WaveNet, sections 2.3 and 2.4).

    Args:
        conv: the filter's and the gate's convolution, one above the other; or one alone, where there is no gate.
        activation: gated, relu or tanh.
        residual: Wr (C, G), or None in the last block.
        skip: Ws (S, G).
    """

    def __init__(self, conv: CausalConv, activation: str, residual: Tensor | None, skip: Tensor) -> None:
        super().__init__()
        self.activation = activation
        parts = 2 if activation == "gated" else 1
        weights = conv.weight.permute(1, 2, 0).chunk(parts)  # (G, C, taps) each
        biases = [None] * parts if conv.bias is None else conv.bias.chunk(parts)
        layers = [_convolution(weight, bias, conv.dilation) for weight, bias in zip(weights, biases, strict=True)]
        self.filter, self.gate = layers[0], layers[1] if parts == 2 else None
        self.residual = None if residual is None else _convolution(residual[:, :, None])
        self.skip = _convolution(skip[:, :, None])

    def forward(self, h: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map h (B, C, T) to the new h, and to the skip; both are shorter by the block's reach.

        With conditions, (B, 2 G, T) is added to filter and gate; without a gate, (B, G, T).
        """
        filter_ = self.filter(h)
        gate = None if self.gate is None else self.gate(h)
        if added is not None:
            parts = 1 if gate is None else 2
            of_filter, *of_gate = added[:, :, -filter_.shape[2] :].chunk(parts, dim=1)
            filter_ = filter_ + of_filter
            gate = None if gate is None else gate + of_gate[0]
        z = torch.relu(filter_) if self.activation == "relu" else torch.tanh(filter_)
        z = z if gate is None else z * torch.sigmoid(gate)
        skip = self.skip(z)
        return (h if self.residual is None else h[:, :, -z.shape[2] :] + self.residual(z)), skip


class TextbookWaveNet(nn.Module):
    """The same function as another WaveNet.

    Args:
        model: whose weights are copied.
    """

    def __init__(self, model: WaveNet) -> None:
        super().__init__()
        self.input = model.input
        blocks = model.residual_blocks
        skips = model.skip.weight.chunk(len(blocks), dim=1)
        self.blocks = nn.ModuleList(
            TextbookBlock(block.conv, block.activation, None if block.residual is None else block.residual.weight, skip)
            for block, skip in zip(blocks, skips, strict=True)
        )
        self.conditioning = model.conditioning
        self.skip_bias = None if model.skip.bias is None else nn.Parameter(model.skip.bias.detach().clone())
        self.head = _convolution(model.head.weight[:, :, None], model.head.bias)
        self.output = _convolution(model.output.weight[:, :, None], model.output.bias)
        self.receptive_field = model.receptive_field

    def forward(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        """Predict as ``WaveNet.forward``: (B, T) classes to (B, T - receptive_field + 1, n_parameters)."""
        batch, steps = inputs.shape
        h = self.input(inputs.reshape(-1)).view(batch, steps, -1).transpose(1, 2)  # (B, C, T)
        n_outputs = steps - self.receptive_field + 1
        total: Tensor | float = 0.0 if self.skip_bias is None else self.skip_bias[:, None]
        rows = None if self.conditioning is None or condition is None else self.conditioning(condition)
        for i, block in enumerate(self.blocks):
            added = None if rows is None else rows.of_block(i, batch * steps).view(steps, batch, -1).permute(1, 2, 0)
            h, skip = block(h, added)
            total = total + skip[:, :, -n_outputs:]
        assert isinstance(total, Tensor)  # there is at least one block
        logits: Tensor = self.output(torch.relu(self.head(torch.relu(total))))
        return logits.transpose(1, 2)


def _convolution(weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> nn.Conv1d:
    outputs, inputs, taps = weight.shape
    layer = nn.Conv1d(inputs, outputs, taps, dilation=dilation, bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(bias)
    return layer
