"""The WaveNet (van den Oord et al., 2016): the stack, its receptive field, and the teacher-forced forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy.typing as npt
import torch
from torch import Tensor, nn

from wavegen.config import Config
from wavegen.model.layers import OneHotInput, ResidualBlock, ScalarInput
from wavegen.model.shapes import check_weights


class WaveNet(nn.Module):
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
        output_channels: numbers that describe one output distribution.
        input_kind: how a class enters the network.
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
        output_channels: int,
        input_kind: Literal["embedding", "one_hot", "scalar"] = "embedding",
    ) -> None:
        super().__init__()
        self.classes = classes
        inputs = {"embedding": nn.Embedding, "one_hot": OneHotInput, "scalar": ScalarInput}
        self.input = inputs[input_kind](classes, residual_channels)
        last = len(dilations) - 1
        self.blocks = nn.ModuleList(
            ResidualBlock(residual_channels, gate_channels, kernel_size, dilation, last=i == last)
            for i, dilation in enumerate(dilations)
        )
        # Ws of all blocks side by side: the sum of skips is one product with all z concatenated.
        self.skip = nn.Linear(len(dilations) * gate_channels, skip_channels)
        self.head = nn.Linear(skip_channels, head_channels)
        self.output = nn.Linear(head_channels, output_channels)
        for linear in (self.skip, self.head):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.output.weight)  # so that an untrained softmax says log2(classes) bits, not more
        nn.init.zeros_(self.output.bias)

    @property
    def receptive_field(self) -> int:
        """Samples of past that one prediction sees."""
        return 1 + sum(block.conv.reach for block in self._blocks())

    @property
    def dilations(self) -> list[int]:
        """The dilation of every block, in order."""
        return [block.conv.dilation for block in self._blocks()]

    @property
    def n_parameters(self) -> int:
        """Numbers that training fits."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds to generate one sample with queues: one for every weight of a matrix."""
        looked_up = self.input.weight if isinstance(self.input, nn.Embedding | OneHotInput) else None
        return sum(p.numel() for p in self.parameters() if p.dim() > 1 and p is not looked_up)

    def forward(self, inputs: Tensor) -> Tensor:
        """Predict every next sample from true past samples (teacher forcing), as one convolution.

        Args:
            inputs: (B, T) integer classes x[0..T-1], T >= receptive_field.

        Returns:
            (B, T - receptive_field + 1, output_channels): at position i the parameters of the distribution of
            x[i + receptive_field], which depend on x[i .. i + receptive_field - 1] only.

        Raises:
            ValueError: T is less than the receptive field.
        """
        batch, steps = inputs.shape
        n_rows = (steps - self.receptive_field + 1) * batch
        if n_rows <= 0:
            raise ValueError(f"expected {self.receptive_field} steps or more, found {steps}")
        h = self.input(inputs.t().reshape(-1))  # (T * B, residual)
        skips = []
        for block in self._blocks():
            z, h = block(h, batch)
            skips.append(z[-n_rows:])
        skip = torch.relu(self.skip(torch.cat(skips, dim=-1)))  # (n * B, skip)
        logits: Tensor = self.output(torch.relu(self.head(skip)))  # (n * B, output)
        return logits.view(-1, batch, logits.shape[-1]).transpose(0, 1)

    def queues(self, inputs: Tensor) -> list[Tensor]:
        """What every block's queue holds after these inputs: one parallel pass instead of a step per sample.

        Args:
            inputs: (B, T) integer classes, T >= receptive_field - 1.

        Returns:
            For each block (reach, B, residual_channels): its last ``reach`` inputs, oldest first.
        """
        batch, steps = inputs.shape
        inputs = inputs[:, steps - (self.receptive_field - 1) :]
        h = self.input(inputs.t().reshape(-1))
        held = []
        for block in self._blocks():
            reach = block.conv.reach
            held.append(h[len(h) - reach * batch :].view(reach, batch, -1))
            if block.residual is not None:
                _, h = block(h, batch)
        return held

    def _blocks(self) -> list[ResidualBlock]:
        return [block for block in self.blocks if isinstance(block, ResidualBlock)]


def build_model(config: Config) -> WaveNet:
    """The network that a configuration describes, with fresh weights from torch's current generator."""
    model = config.model
    return WaveNet(
        classes=config.quantization.classes,
        dilations=model.dilations,
        kernel_size=model.kernel_size,
        residual_channels=model.residual_channels,
        gate_channels=model.gate_channels,
        skip_channels=model.skip_channels,
        head_channels=model.head_channels,
        output_channels=config.quantization.classes,
        input_kind=model.input,
    )


@torch.no_grad()
def load_weights(model: WaveNet, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Copy arrays into a model's parameters, all of them.

    Raises:
        ModelError: a name or a shape does not fit, or a weight is not finite.
    """
    parameters = dict(model.named_parameters())
    check_weights(weights, {name: tuple(parameter.shape) for name, parameter in parameters.items()})
    for name, parameter in parameters.items():
        parameter.copy_(torch.from_numpy(weights[name].copy()))
