"""The WaveNet (van den Oord et al., 2016): the stack, its receptive field, and the teacher-forced forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wavegen.model.conditioning import Condition, Conditioning, GateRows
from wavegen.model.layers import Dropped, EmbeddingInput, OneHotInput, ResidualBlock, ScalarInput
from wavegen.model.network import Network
from wavegen.model.outputs import Distribution
from wavegen.model.shapes import output_has_bias
from wavegen.model.weight_norm import normalize

BlockStack = Callable[[Tensor, int, GateRows | None], Tensor]  # a way to compute the residual blocks


class WaveNet(Network):
    """Predicts each sample's distribution from the receptive field of samples before it.

        x[t-1], x[t-2], ... -> embedding -> residual blocks -> sum of skips -> ReLU -> 1x1 -> ReLU -> 1x1 -> p(x[t])

    Args:
        classes: levels of the input.
        dilations: one for each residual block, in order.
        kernel_size: taps of every dilated convolution.
        residual_channels: channels between the blocks.
        gate_channels: channels of each block's filter, and of its gate.
        skip_channels: channels of the summed skips.
        head_channels: channels between the head's two layers.
        distribution: of a sample, whose parameters the network puts out.
        input_kind: how a class enters the network.
        n_labels: labels to be conditioned on; 0 for none.
        label_channels: numbers that describe a label.
        n_mels: bands of mel frames to be conditioned on; 0 for none.
        upsampling: rows that are made of a mel frame.
        bias: of the blocks' convolutions, the skips, the head and the output layer. Without, the output layer of a
            mixture keeps its own, for it holds the first scales; an input layer is as it is in any case.
        activation: of each block, one of ``wavegen.model.shapes.ACTIVATIONS``.
        weight_norm: see ``wavegen.model.weight_norm``.
    """

    def __init__(
        self,
        *,
        classes: int,
        dilations: Sequence[int],
        kernel_size: int,
        residual_channels: int,
        gate_channels: int,
        skip_channels: int,
        head_channels: int,
        distribution: Distribution,
        input_kind: Literal["embedding", "one_hot", "scalar"] = "embedding",
        n_labels: int = 0,
        label_channels: int = 16,
        n_mels: int = 0,
        upsampling: int = 1,
        bias: bool = True,
        activation: str = "gated",
        weight_norm: bool = False,
    ) -> None:
        super().__init__(classes, distribution)
        self.activation = activation
        inputs = {"embedding": EmbeddingInput, "one_hot": OneHotInput, "scalar": ScalarInput}
        self.input = inputs[input_kind](classes, residual_channels)
        last = len(dilations) - 1
        self.blocks = nn.ModuleList(
            ResidualBlock(residual_channels, gate_channels, kernel_size, dilation, i == last, bias, activation)
            for i, dilation in enumerate(dilations)
        )
        # Ws of all blocks side by side: the sum of skips is one product with all z concatenated.
        self.skip = nn.Linear(len(dilations) * gate_channels, skip_channels, bias=bias)
        self.head = nn.Linear(skip_channels, head_channels, bias=bias)
        self.output = nn.Linear(head_channels, distribution.n_parameters, bias=output_has_bias(bias, distribution))
        for linear in (self.skip, self.head):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        distribution.initialize(self.output)
        self.conditioning = (
            Conditioning(
                n_labels, label_channels, n_mels, upsampling, len(dilations), self.residual_blocks[0].conv.out_channels
            )
            if n_labels or n_mels
            else None
        )
        if weight_norm:
            normalize(self)

    @property
    def receptive_field(self) -> int:
        """Samples of past that one prediction sees."""
        return 1 + sum(block.conv.reach for block in self.residual_blocks)

    @property
    def dilations(self) -> list[int]:
        """The dilation of every block, in order."""
        return [block.conv.dilation for block in self.residual_blocks]

    def forward(self, inputs: Tensor, condition: Condition | None = None, stack: BlockStack | None = None) -> Tensor:
        """See ``Network``: as one convolution.

        Args:
            inputs: as ``Network``'s.
            condition: likewise.
            stack: another way to compute the residual blocks; None for the blocks as they are.
        """
        batch = len(inputs)
        rows = self.predict((stack or self.stack)(self.embed(inputs), batch, self.gate_rows(condition)))
        return rows.view(-1, batch, rows.shape[-1]).transpose(0, 1)

    def embed(self, inputs: Tensor) -> Tensor:
        """The first block's input.

        Args:
            inputs: as ``forward``'s.

        Returns:
            (T * B, residual_channels) time-major rows.

        Raises:
            ValueError: T is less than the receptive field.
        """
        self.check_length(inputs.shape[1])
        rows: Tensor = self.input(inputs.t().reshape(-1))
        return rows

    def gate_rows(self, condition: Condition | None) -> GateRows | None:
        """What conditions add to the gates of every block; None in a network without conditions.

        Raises:
            ValueError: there is a condition and no place for it, or the reverse.
        """
        if (condition is None) != (self.conditioning is None):
            raise ValueError("expected a condition for a conditioned network, and none for another")
        if condition is None or self.conditioning is None:
            return None
        rows: GateRows = self.conditioning(condition)
        return rows

    def stack(
        self,
        h: Tensor,
        batch: int,
        rows: GateRows | None = None,
        recompute: bool = False,
        dropped: Dropped | None = None,
    ) -> Tensor:
        """All blocks, one after another, and the sum of their skips.

        Args:
            h: (T * batch, residual_channels) time-major rows.
            batch: sequences side by side in the rows.
            rows: what conditions add to the gates; ``row_of`` has an entry for each row of h.
            recompute: keep only each block's results for the backward pass, and compute what is inside again.
            dropped: outputs of blocks that are left out; None for none.

        Returns:
            (n * batch, skip_channels), for the n steps whose whole receptive field is in h.
        """
        outputs = []
        for i, block in enumerate(self.residual_blocks):
            added = None if rows is None else rows.of_block(i, len(h) - block.conv.reach * batch)
            given = (h, batch, added) if dropped is None else (h, batch, added, dropped.kept[i], dropped.scale)
            z, h = checkpoint(block, *given, use_reentrant=False) if recompute else block(*given)
            outputs.append(z)
        skip: Tensor = self.skip(torch.cat([z[-len(outputs[-1]) :] for z in outputs], dim=-1))
        return skip

    def predict(self, skip: Tensor) -> Tensor:
        """The head: from rows of summed skips (n, skip_channels) to distributions' parameters (n, n_parameters)."""
        hidden = torch.relu(self.head(torch.relu(skip)))
        if self.distribution.kind == "softmax":
            logits: Tensor = self.output(hidden)
            return logits
        # the eight bits of a bfloat16 mean would not tell neighbouring amplitudes apart
        with torch.autocast(skip.device.type, enabled=False):
            parameters: Tensor = self.output(hidden.to(self.output.weight.dtype))
        return parameters

    def queues(self, inputs: Tensor, condition: Condition | None = None) -> list[Tensor]:
        """What every block's queue holds after these inputs: one parallel pass instead of a step per sample.

        Args:
            inputs: (B, T) integer classes, T >= receptive_field - 1.
            condition: as ``forward``'s.

        Returns:
            For each block (reach, B, residual_channels): its last ``reach`` inputs, oldest first.
        """
        batch, steps = inputs.shape
        inputs = inputs[:, steps - (self.receptive_field - 1) :]
        h = self.input(inputs.t().reshape(-1))
        rows = self.gate_rows(condition)
        held = []
        for i, block in enumerate(self.residual_blocks):
            reach = block.conv.reach
            held.append(h[len(h) - reach * batch :].view(reach, batch, -1))
            if block.residual is not None:
                added = None if rows is None else rows.of_block(i, len(h) - reach * batch)
                _, h = block(h, batch, added)
        return held

    @property
    def residual_blocks(self) -> list[ResidualBlock]:
        """The blocks in order."""
        return [block for block in self.blocks if isinstance(block, ResidualBlock)]
