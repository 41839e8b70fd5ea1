"""A plain stack of causal layers, with joins: textbooks' simplified WaveNets, and DenseNets in one dimension.

The rows are time-major, as in ``wavegen.model.layers``. A fully connected layer over a clip's steps is a convolution
with one tap. A strided layer followed by others is the same function, at the steps that it keeps, as one without a
stride followed by layers of a larger dilation: a layer's dilation is the product of the strides below it.

Padding is zeros, as those texts have it: before a clip's start the input and every layer's output are 0. The class
that stands there is negative.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wavegen.config import LayerConfig
from wavegen.model.conditioning import Condition
from wavegen.model.network import Network
from wavegen.model.outputs import Distribution

NOTHING = -1  # the class that stands before a clip's start
ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class TapLayer(nn.Module, ABC):
    """A layer of which each output is made of some steps of its input.

    Args:
        kernel_size: steps that an output is made of.
        dilation: steps between them.
    """

    def __init__(self, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.kernel_size, self.dilation = kernel_size, dilation

    @property
    def reach(self) -> int:
        """How many steps of past one output sees."""
        return (self.kernel_size - 1) * self.dilation

    def forward(self, rows: Tensor, batch: int) -> Tensor:
        """Map (T * batch, C) time-major rows to ((T - reach) * batch, C') rows."""
        n_rows = len(rows) - self.reach * batch
        starts = [tap * self.dilation * batch for tap in range(self.kernel_size)]
        return self.combine([rows[start : start + n_rows] for start in starts])

    @abstractmethod
    def combine(self, taps: Sequence[Tensor]) -> Tensor:
        """The outputs (N, C') of their taps, (N, C) each, the oldest first."""


class ConvLayer(TapLayer):
    """A causal dilated convolution and its activation, with Glorot's first weights (Glorot and Bengio, 2010, eq. 16).

    Args:
        in_channels: of the layer below.
        out_channels: filters.
        kernel_size: taps.
        dilation: steps between taps.
        activation: by its name.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int, activation: str) -> None:
        super().__init__(kernel_size, dilation)
        self.weight = nn.Parameter(torch.empty(kernel_size, out_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        bound = (6.0 / (kernel_size * (in_channels + out_channels))) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.activation = ACTIVATIONS[activation]()

    def combine(self, taps: Sequence[Tensor]) -> Tensor:
        """See ``TapLayer``."""
        result: Tensor = self.bias
        for tap, weight in zip(taps, self.weight, strict=True):
            result = torch.addmm(result, tap, weight.t())
        activated: Tensor = self.activation(result)
        return activated


class PoolLayer(TapLayer):
    """The mean or the maximum of some steps of each channel.

    Args:
        kernel_size: steps that are pooled.
        dilation: steps between them.
        kind: which of the two.
    """

    def __init__(self, kernel_size: int, dilation: int, kind: Literal["average_pool", "max_pool"]) -> None:
        super().__init__(kernel_size, dilation)
        self.kind = kind

    def combine(self, taps: Sequence[Tensor]) -> Tensor:
        """See ``TapLayer``."""
        together = torch.stack(list(taps))
        return together.amax(dim=0) if self.kind == "max_pool" else together.mean(dim=0)


class JoinLayer(nn.Module):
    """Joins the layer below with an earlier one.

    Args:
        source: the earlier layer's place: 0 is the input, 1 the first layer.
        kind: concatenate their channels (DenseNet, Huang et al., 2017), the earlier one's first, or add them up.
    """

    def __init__(self, source: int, kind: Literal["concatenate", "add"]) -> None:
        super().__init__()
        self.source, self.kind = source, kind

    def forward(self, earlier: Tensor, below: Tensor) -> Tensor:
        """Join (N, C) and (N, C') rows."""
        return torch.cat([earlier, below], dim=-1) if self.kind == "concatenate" else earlier + below


class Stack(Network):
    """Predicts each sample from the layers' outputs at the step before it, through a last 1x1 layer.

    Args:
        classes: levels of the input; 0 where it is a series of values.
        entry: what a class becomes before it enters the lowest layer.
        width: channels that it has then.
        layers: the lowest first; valid.
        distribution: of a sample, whose parameters the network puts out.
    """

    def __init__(
        self,
        *,
        classes: int,
        entry: nn.Module,
        width: int,
        layers: Sequence[LayerConfig],
        distribution: Distribution,
    ) -> None:
        super().__init__(classes, distribution)
        self.input = entry
        self.layers = nn.ModuleList()
        widths, places = [width], {"input": 0}
        for i, layer in enumerate(layers, start=1):
            source = places.get(layer.source or "", 0)
            self.layers.append(_build_layer(layer, widths[-1], source))
            widths.append(layer.width(widths[-1], widths[source]))
            if layer.name is not None:
                places[layer.name] = i
        self.output = nn.Linear(widths[-1], distribution.n_parameters)
        nn.init.xavier_uniform_(self.output.weight)
        distribution.initialize(self.output)

    @property
    def receptive_field(self) -> int:
        """See ``Network``."""
        seen = [0]  # steps of past that the input and each layer's output need
        for layer in self.layers:
            if isinstance(layer, JoinLayer):
                seen.append(max(seen[-1], seen[layer.source]))
            elif isinstance(layer, TapLayer):
                seen.append(seen[-1] + layer.reach)
        return 1 + seen[-1]

    def padding(self, silence: int) -> int:  # noqa: ARG002
        """See ``Network``."""
        return NOTHING

    @property
    def before_series(self) -> float:
        """See ``Network``."""
        return math.nan

    def forward(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:  # noqa: ARG002
        """See ``Network``; inputs are negative (or not a number, in a series) before a clip's start."""
        self.check_length(inputs.shape[1])
        rows: Tensor = self.output(self._outputs(inputs)[-1])
        return rows.view(-1, len(inputs), rows.shape[-1]).transpose(0, 1)

    def enter(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest layer's input.

        Args:
            inputs: (N,).

        Returns:
            (N, C) rows, and (N, 1) 0 where they lie before a clip's start, else 1.
        """
        is_there = inputs >= 0 if self.classes else ~inputs.isnan()
        rows: Tensor = self.input(torch.where(is_there, inputs, 0)).to(self.output.weight.dtype)
        there = is_there[:, None].to(rows.dtype)
        return rows * there, there

    def queues(self, inputs: Tensor) -> list[Tensor]:
        """What the queue of every layer with taps holds after these inputs.

        Args:
            inputs: (B, T), T >= receptive_field - 1.

        Returns:
            For each of them (reach, B, C): the last ``reach`` rows of what it was given, oldest first.
        """
        batch = len(inputs)
        outputs = self._outputs(inputs[:, inputs.shape[1] - (self.receptive_field - 1) :])
        return [
            below[len(below) - layer.reach * batch :].view(layer.reach, batch, below.shape[1])
            for layer, below in zip(self.layers, outputs, strict=False)
            if isinstance(layer, TapLayer)
        ]

    def _outputs(self, inputs: Tensor) -> list[Tensor]:
        """The entered input and all layers' outputs, (steps * B, C) each, as far as their past reaches."""
        batch = len(inputs)
        entered, there = self.enter(inputs.t().reshape(-1))
        outputs = [entered]
        for layer in self.layers:
            if isinstance(layer, JoinLayer):
                earlier, below = outputs[layer.source], outputs[-1]
                n_rows = min(len(earlier), len(below))
                h = layer(earlier[len(earlier) - n_rows :], below[len(below) - n_rows :])
            else:
                h = layer(outputs[-1], batch)
            outputs.append(h * there[len(there) - len(h) :])
        return outputs


def _build_layer(layer: LayerConfig, width: int, source: int) -> nn.Module:
    if layer.kind == "conv" or layer.kind == "dense":
        assert layer.channels is not None
        taps = layer.kernel_size if layer.kind == "conv" else 1
        return ConvLayer(width, layer.channels, taps, layer.dilation, layer.activation)
    if layer.kind == "concatenate" or layer.kind == "add":
        return JoinLayer(source, layer.kind)
    return PoolLayer(layer.kernel_size, layer.dilation, layer.kind)
