"""The layers of a WaveNet, on time-major rows.

Inside the network a batch of B sequences of T steps is one matrix of T * B rows: row t * B + b is step t of
sequence b. A shift by d steps is then a shift by d * B rows, a plain slice, so a dilated convolution is a sum of
matrix products over slices, without padding, copies or strides. (Measured against (B, T, C) and against Conv1d
on (B, C, T): see docs/how-it-works.md.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

LOWEST_WAVE, HIGHEST_WAVE = 0.5, 20.0  # radians from the middle class to the outermost
LARGEST_SLOPE_OF_VALUES = 1.0  # of a series, whose standard deviation is about 1
LARGEST_SLOPE = 20.0  # of a scalar input's first weights, because most of a recording is far below full scale


class CausalConv(nn.Module):
    """A causal dilated convolution, written as one matrix product per tap.

        y[t] = b + sum_j W[j] x[t - (kernel_size - 1 - j) dilation]          (WaveNet, section 2.1)

    Args:
        in_channels: channels of x.
        out_channels: channels of y.
        kernel_size: taps.
        dilation: steps between taps.
        bias: whether there is a b.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int, bias: bool = True) -> None:
        super().__init__()
        self.dilation = dilation
        self.kernel_size = kernel_size
        self.out_channels = out_channels
        self.weight = nn.Parameter(torch.empty(kernel_size, out_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.normal_(self.weight, std=(kernel_size * in_channels) ** -0.5)

    @property
    def reach(self) -> int:
        """Steps of past that one output sees: the input is this much longer than the output."""
        return (self.kernel_size - 1) * self.dilation

    def forward(self, rows: Tensor, batch: int) -> Tensor:
        """Convolve.

        Args:
            rows: (T * batch, in_channels) time-major rows.
            batch: sequences side by side in the rows.

        Returns:
            ((T - reach) * batch, out_channels) rows: the outputs whose whole past is in the input.
        """
        n_rows = len(rows) - self.reach * batch
        weight: Tensor = self.weight
        result: Tensor | None = self.bias
        for tap in range(self.kernel_size):
            # tap j of all outputs: the rows from j d B on, (n, C) x (C, C'), added to the taps before
            start = tap * self.dilation * batch
            inputs, matrix = rows[start : start + n_rows], weight[tap].t()
            result = inputs @ matrix if result is None else torch.addmm(result, inputs, matrix)
        assert result is not None  # there is at least one tap
        return result


def activate(convolved: Tensor, activation: str, out: Tensor | None = None) -> Tensor:
    """Apply a block's activation to its convolution's outputs.

        gated: z = tanh(f) . sigmoid(g)       relu: z = max(f, 0)       tanh: z = tanh(f)

    Args:
        convolved: (n, 2 gate_channels) f and g side by side; of the others (n, gate_channels) f.
        activation: one of ``wavegen.model.building.ACTIVATIONS``.
        out: where to write z, without gradients; None for a new tensor.

    Returns:
        z, (n, gate_channels).
    """
    if activation == "gated":
        # (n, 2 G) -> (n, G), (n, G)
        filter_, gate = convolved.chunk(2, dim=-1)
        return torch.mul(torch.tanh(filter_), torch.sigmoid(gate), out=out)
    if activation == "tanh":
        return torch.tanh(convolved, out=out)
    return torch.relu(convolved) if out is None else torch.clamp_min(convolved, 0.0, out=out)


class Dropped(NamedTuple):
    """Outputs of blocks that a training step leaves out.

    Attributes:
        kept: for each block a mask of its z, bool, in z's rows.
        scale: what is kept is multiplied by it, so that its mean stays.
    """

    kept: list[Tensor]
    scale: float


class ResidualBlock(nn.Module):
    """A residual block, gated as the paper's or not.

        z = tanh(Wf * h) . sigmoid(Wg * h)        * = causal dilated convolution    (WaveNet, section 2.3)
        h <- h + Wr z                                                               (WaveNet, section 2.4)

    With conditions c, z = tanh(Wf * h + Vf c) . sigmoid(Wg * h + Vg c): see ``wavegen.model.conditioning``. Other
    activations have Wf and Vf alone: see ``activate``.

    Wf and Wg are one convolution with stacked outputs. Wr has no bias: the next block's bias holds all that one
    could add. The skip connections of all blocks are one product over all z, in the model.

    Args:
        residual_channels: channels of h.
        gate_channels: channels of z: of the filter, and of the gate.
        kernel_size: taps of the convolution.
        dilation: steps between taps.
        last: the last block has no Wr: nothing uses its h.
        bias: of the convolution.
        activation: one of ``wavegen.model.building.ACTIVATIONS``.
    """

    def __init__(
        self,
        residual_channels: int,
        gate_channels: int,
        kernel_size: int,
        dilation: int,
        last: bool,
        bias: bool = True,
        activation: str = "gated",
    ) -> None:
        super().__init__()
        self.activation, self.n_outputs = activation, gate_channels
        convolved = (2 if activation == "gated" else 1) * gate_channels
        self.conv = CausalConv(residual_channels, convolved, kernel_size, dilation, bias)
        self.residual = None if last else nn.Linear(gate_channels, residual_channels, bias=False)
        if self.residual is not None:
            nn.init.normal_(self.residual.weight, std=gate_channels**-0.5)

    def forward(
        self, h: Tensor, batch: int, added: Tensor | None = None, kept: Tensor | None = None, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Apply the block.

        Args:
            h: (T * batch, residual_channels) time-major rows.
            batch: sequences side by side in the rows.
            added: ((T - reach) * batch, outputs of the convolution) what conditions add to it; None for nothing.
            kept: as z, which of its numbers dropout keeps; None for all.
            scale: of those that are kept.

        Returns:
            z, ((T - reach) * batch, gate_channels), and the new h, as long as z.
        """
        convolved = self.conv(h, batch)
        z = activate(convolved if added is None else convolved + added, self.activation)
        if kept is not None:
            z = z * kept * scale
        # the rows whose whole past is there: as many as z has
        h = h[self.conv.reach * batch :]
        return z, h if self.residual is None else h + self.residual(z)


def class_waves(classes: int, channels: int) -> Tensor:
    """First weights of an input layer, in which classes of nearly the same amplitude look nearly the same.

        w[i, c] = sqrt(2) sin(f[c] x[i] + phase[c])        x[i] = the place of class i between -1 and 1

    The frequencies f are spread evenly on a logarithmic scale, from half a radian to 20. From independent random rows
    a network has to learn the order of the classes first (measured: 0.1 bits/sample worse after 10 million targets).

    Returns:
        (classes, channels), unit variance.
    """
    # (classes, 1) * (channels,) -> (classes, channels)
    place = torch.linspace(-1.0, 1.0, classes)[:, None]
    frequencies = torch.logspace(math.log10(LOWEST_WAVE), math.log10(HIGHEST_WAVE), channels)
    return math.sqrt(2.0) * torch.sin(place * frequencies + 2 * math.pi * torch.rand(channels))


class EmbeddingInput(nn.Embedding):
    """A class enters as a vector of its own.

    Args:
        classes: number of levels.
        channels: of the output.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__(classes, channels, _weight=class_waves(classes, channels))


class ScalarInput(nn.Module):
    """A class enters as one number, its place between the lowest (-1) and the highest class (1).

    Args:
        classes: number of levels; 0 for values that enter as they are.
        channels: of the output.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.classes = classes
        self.linear = nn.Linear(1, channels)
        slope = LARGEST_SLOPE if classes else LARGEST_SLOPE_OF_VALUES
        nn.init.uniform_(self.linear.weight, -slope, slope)
        nn.init.zeros_(self.linear.bias)

    def forward(self, classes: Tensor) -> Tensor:
        """Map (N,) classes or values to (N, channels)."""
        if self.classes:
            steps = 2 * classes - (self.classes - 1)  # from the middle, which keeps every digit of a quiet sample
            position = steps.to(self.linear.weight.dtype) / (self.classes - 1)
        else:
            position = classes
        # not a matrix product, which autocast would round to the eight bits of bfloat16
        return position[:, None] * self.linear.weight[:, 0] + self.linear.bias


class OneHotInput(nn.Module):
    """A one-hot class times a matrix, plus a bias: a look-up, so the one-hot vector is never built.

    Args:
        classes: number of levels.
        channels: of the output.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(class_waves(classes, channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, classes: Tensor) -> Tensor:
        """Map (N,) classes to (N, channels)."""
        return nn.functional.embedding(classes, self.weight) + self.bias


class RawOneHot(nn.Module):
    """A class enters as a one-hot vector, without weights.

    Args:
        classes: number of levels.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, classes: Tensor) -> Tensor:
        """Map (N,) classes to (N, classes)."""
        return nn.functional.one_hot(classes, self.classes).float()


class RawScalar(nn.Module):
    """A class enters as its place between the lowest (-1) and the highest class (1), without weights.

    Args:
        classes: number of levels; 0 for values that enter as they are.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, classes: Tensor) -> Tensor:
        """Map (N,) classes or values to (N, 1)."""
        if not self.classes:
            return classes[:, None]
        # (N,) classes -> (N, 1) in [-1, 1]
        return ((2 * classes - (self.classes - 1)) / (self.classes - 1))[:, None]


def build_raw_input(kind: str, classes: int, embedding_channels: int) -> tuple[nn.Module, int]:
    """Build an input layer without weights, for networks whose first layer has them; return it and its width."""
    if kind == "embedding":
        return EmbeddingInput(classes, embedding_channels), embedding_channels
    return (RawOneHot(classes), classes) if kind == "one_hot" else (RawScalar(classes), 1)
