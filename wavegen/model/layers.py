"""The layers of a WaveNet, on time-major rows: convolutions, blocks, inputs, conditioning, weight normalization.

Inside the network a batch of B sequences of T steps is one matrix of T * B rows: row t * B + b is step t of
sequence b. A shift by d steps is then a shift by d * B rows, a plain slice, so a dilated convolution is a sum of
matrix products over slices, without padding, copies or strides. (Measured against (B, T, C) and against Conv1d
on (B, C, T): see docs/how-it-works.md.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOWEST_WAVE, HIGHEST_WAVE = 0.5, 20.0  # radians from the middle class to the outermost
LARGEST_SLOPE_OF_VALUES = 1.0  # of a series, whose standard deviation is about 1
LARGEST_SLOPE = 20.0  # of a scalar input's first weights, because most of a recording is far below full scale

Floats = npt.NDArray[np.float32]
Rows = tuple[Floats | None, Floats | None, npt.NDArray[np.int64]]  # labels, frames, row_of of a sequence or a batch
Model = TypeVar("Model", bound=nn.Module)


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

    With conditions c, z = tanh(Wf * h + Vf c) . sigmoid(Wg * h + Vg c): see ``Conditioning``. Other activations
    have Wf and Vf alone: see ``activate``.

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


def class_position(samples: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Return the place of classes between the lowest (-1) and the highest (1); values, of 0 classes, as they are."""
    if not classes:
        return samples
    steps = 2 * samples - (classes - 1)  # from the middle, which keeps every digit of a quiet sample
    return steps.to(dtype) / (classes - 1)


class EmbeddingInput(nn.Embedding):
    """A class enters as a vector of its own.

    Args:
        classes: number of levels.
        channels: of the output.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__(classes, channels, _weight=class_waves(classes, channels))


class OneHotInput(EmbeddingInput):
    """A one-hot class times a matrix, plus a bias: a look-up, so the one-hot vector is never built."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__(classes, channels)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, classes: Tensor) -> Tensor:
        """Map (N,) classes to (N, channels)."""
        return super().forward(classes) + self.bias


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
        position = class_position(classes, self.classes, self.linear.weight.dtype)
        # not a matrix product, which autocast would round to the eight bits of bfloat16
        return position[:, None] * self.linear.weight[:, 0] + self.linear.bias


class RawInput(nn.Module):
    """A class enters without weights: as a one-hot vector, or as its place between the lowest (-1) and the highest (1).

    Args:
        is_one_hot: which of the two.
        classes: number of levels; 0 for values that enter as they are.
    """

    def __init__(self, is_one_hot: bool, classes: int) -> None:
        super().__init__()
        self.is_one_hot, self.classes = is_one_hot, classes

    def forward(self, classes: Tensor) -> Tensor:
        """Map (N,) classes or values to (N, classes) or (N, 1)."""
        if self.is_one_hot:
            return F.one_hot(classes, self.classes).float()
        return class_position(classes, self.classes, torch.float32)[:, None]


def build_raw_input(kind: str, classes: int, embedding_channels: int) -> tuple[nn.Module, int]:
    """Build an input layer without weights, for networks whose first layer has them; return it and its width."""
    if kind == "embedding":
        return EmbeddingInput(classes, embedding_channels), embedding_channels
    return RawInput(kind == "one_hot", classes), classes if kind == "one_hot" else 1


# --- conditioning --------------------------------------------------------------------------------------------------


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
    """Computes the gate bias of labels and frames: a bias that they add to the gates of every block.

        z = tanh(Wf * h + Vf c) . sigmoid(Wg * h + Vg c)           (WaveNet, section 2.5; Tamamori et al., 2017)

    c is a label's embedding and a frame, one behind the other; a block without a gate has Vf alone. Conditions come
    as a table of rows and, for each step, the row that it sees: V c is computed once for a row, not once for a step.

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


# --- weight normalization ------------------------------------------------------------------------------------------


class WeightNorm:
    """A layer whose lengths and directions are separate parameters (Salimans and Kingma, 2016, equation 2).

        w = g v / |v|          for each output of a layer: v its weights' direction, g its gain, a number

    Such a layer takes the place of a plain one and begins as the same function, with v = w and g = |w|. Of the skips,
    which are one product for all blocks, each block's have gains of their own. The output layer is left as it is: it
    begins with zeros, which have no direction.
    """

    direction: nn.Parameter
    gain: nn.Parameter
    bias: nn.Parameter | None

    def _take_over(self, plain: CausalConv | nn.Linear, parts: int) -> None:
        """Give the layer the parameters of a plain one; each of the equal parts of an output's inputs has a gain."""
        weight = plain.weight.detach()
        self.direction = nn.Parameter(weight.clone())
        self.gain = nn.Parameter(_lengths(_by_gain(weight, parts * weight.shape[-2])))
        self.bias = plain.bias

    @property
    def weight(self) -> Tensor:
        """(taps, outputs, inputs), or (outputs, inputs); ``wavegen.model.building.fold_weight_norm`` is its twin."""
        vectors = _by_gain(self.direction, len(self.gain))
        return (vectors * (self.gain / _lengths(vectors))[:, None]).view(self.direction.shape)


def _by_gain(direction: Tensor, n: int) -> Tensor:
    """View weights, (taps, outputs, inputs) or (outputs, inputs), as (taps, n, inputs): n vectors, of all taps each."""
    return direction.view(len(direction) if direction.dim() == 3 else 1, n, -1)


def _lengths(vectors: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(vectors, dim=(0, 2))
    return norm


class NormedConv(WeightNorm, CausalConv):  # type: ignore[misc]
    """A causal convolution under weight normalization.

    Args:
        plain: begins as its function; its bias is taken over.
    """

    def __init__(self, plain: CausalConv) -> None:
        nn.Module.__init__(self)  # not the parent's, which would draw a weight
        self.dilation, self.kernel_size, self.out_channels = plain.dilation, plain.kernel_size, plain.out_channels
        self._take_over(plain, parts=1)


class NormedLinear(WeightNorm, nn.Linear):  # type: ignore[misc, override]
    """A linear layer under weight normalization.

    Args:
        plain: begins as its function; its bias is taken over.
        parts: equal parts of the inputs, each with gains of its own.
    """

    def __init__(self, plain: nn.Linear, parts: int = 1) -> None:
        nn.Module.__init__(self)  # not the parent's, which would draw a weight
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self._take_over(plain, parts)


def bias_of(layer: CausalConv | nn.Linear) -> Tensor:
    """Return a layer's biases, or zeros that are not trained."""
    matrix = trained_matrix(layer)
    return matrix.new_zeros(matrix.shape[-2]) if layer.bias is None else layer.bias


def trained_matrix(layer: CausalConv | nn.Linear) -> Tensor:
    """Return the parameter that is a layer's matrix: its direction, or its weight."""
    return layer.direction if isinstance(layer, WeightNorm) else layer.weight


@torch.no_grad()
def folded(model: Model) -> Model:
    """Return the same function with plain weights: the model itself if it has no others, or else a copy."""
    if not any(isinstance(layer, WeightNorm) for layer in model.modules()):
        return model
    copy = deepcopy(model)
    for module in copy.modules():
        for name, layer in module.named_children():
            if isinstance(layer, NormedConv | NormedLinear):
                setattr(module, name, _plain(layer))
    return copy


def _plain(layer: NormedConv | NormedLinear) -> CausalConv | nn.Linear:
    """Build a layer without normalization that computes the same."""
    weight = layer.weight
    plain: CausalConv | nn.Linear
    if isinstance(layer, NormedConv):
        plain = CausalConv(weight.shape[2], layer.out_channels, layer.kernel_size, layer.dilation)
    else:
        plain = nn.Linear(layer.in_features, layer.out_features)
    plain.weight = nn.Parameter(weight, requires_grad=layer.direction.requires_grad)
    plain.bias = layer.bias
    return plain.train(layer.training)
